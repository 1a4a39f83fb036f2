// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the man pages into a directory",
		Example: "  sentinel-x man /usr/local/share/man/man1",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("make the directory of the man pages: %w", err)
			}
			for _, c := range visible(cmd.Root()) {
				file := filepath.Join(args[0], pageName(c)+".1")
				if err := os.WriteFile(file, md2man.Render([]byte(manPage(c))), 0o644); err != nil {
					return fmt.Errorf("write a man page: %w", err)
				}
			}
			return nil
		},
	}
}

// visible returns a command and all below it that a reader of the documentation
// is to know, in the order of the help.
func visible(c *cobra.Command) []*cobra.Command {
	if c.Hidden || c.Name() == "help" {
		return nil
	}
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		all = append(all, visible(sub)...)
	}
	return all
}

// prepare adds what cobra adds only when a command runs: --help, completion.
func prepare(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range visible(root) {
		c.InitDefaultHelpFlag()
	}
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manPage writes the page of a command as the Markdown that go-md2man reads.
func manPage(c *cobra.Command) string {
	prepare(c.Root())
	var b strings.Builder
	fmt.Fprintf(&b, "%% \"%s\" \"1\" \"\" \"sentinel-x %s\" \"Sentinel-X\"\n\n", strings.ToUpper(pageName(c)), version())
	fmt.Fprintf(&b, "# NAME\n%s - %s\n\n", pageName(c), lowerFirst(c.Short))
	fmt.Fprintf(&b, "# SYNOPSIS\n**%s**\n\n", c.UseLine())
	fmt.Fprintf(&b, "# DESCRIPTION\n%s\n\n", description(c))
	if flags := strings.TrimRight(c.NonInheritedFlags().FlagUsages(), "\n"); flags != "" {
		fmt.Fprintf(&b, "# OPTIONS\n```\n%s\n```\n\n", flags)
	}
	if flags := strings.TrimRight(c.InheritedFlags().FlagUsages(), "\n"); flags != "" {
		fmt.Fprintf(&b, "# OPTIONS OF EVERY COMMAND\n```\n%s\n```\n\n", flags)
	}
	if c.Example != "" {
		fmt.Fprintf(&b, "# EXAMPLES\n```\n%s\n```\n\n", c.Example)
	}
	b.WriteString("# EXIT STATUS\n0 done, 1 failed, 2 the command line makes no sense\n\n")
	var see []string
	if c.HasParent() {
		see = append(see, pageName(c.Parent())+"(1)")
	}
	for _, sub := range c.Commands() {
		if len(visible(sub)) > 0 {
			see = append(see, pageName(sub)+"(1)")
		}
	}
	fmt.Fprintf(&b, "# SEE ALSO\n%s\n", strings.Join(see, ", "))
	return b.String()
}

func description(c *cobra.Command) string {
	if c.Long != "" {
		return c.Long
	}
	return c.Short + "."
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

const markdownHead = `<!-- Written by "go generate ./internal/cli" from the commands themselves; do not edit. -->

# The command line

Every command that prints has ` + "`--json`" + `. Answers go to standard output; errors go to standard error,
as lines that begin with ` + "`sentinel-x: `" + `.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | failed, or found a fault; the error says what to do |
| 2 | the command line makes no sense |

`

// writeMarkdown writes docs/cli.md.
func writeMarkdown(w io.Writer, root *cobra.Command) {
	prepare(root)
	fmt.Fprint(w, markdownHead)
	fmt.Fprint(w, "| command | does |\n|---|---|\n")
	for _, c := range visible(root)[1:] {
		if !c.HasSubCommands() {
			fmt.Fprintf(w, "| [`%s`](#%s) | %s |\n", strings.TrimPrefix(c.CommandPath(), "sentinel-x "), pageName(c), c.Short)
		}
	}
	for _, c := range visible(root) {
		fmt.Fprintf(w, "\n## %s\n\n%s\n\n", c.CommandPath(), description(c))
		if !c.HasSubCommands() {
			fmt.Fprintf(w, "```\n%s\n```\n", c.UseLine())
		}
		if flags := strings.TrimRight(c.LocalNonPersistentFlags().FlagUsages(), "\n"); flags != "" && !c.HasSubCommands() {
			fmt.Fprintf(w, "\n```\n%s\n```\n", flags)
		}
		if c == root {
			fmt.Fprintf(w, "Every command takes:\n\n```\n%s\n```\n", strings.TrimRight(c.PersistentFlags().FlagUsages(), "\n"))
		}
		if c.Example != "" {
			fmt.Fprintf(w, "\nExamples:\n\n```sh\n%s\n```\n", unindent(c.Example))
		}
	}
}

func unindent(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}
