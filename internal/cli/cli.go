// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line: it reads flags, calls the engine or its API,
// and writes the answer as text for people or as JSON for programs.
//
// Answers go to standard output, errors to standard error as one line that
// begins with "sentinel-x: ". The exit status is ExitOK, ExitFailed or ExitUsage.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
)

//go:generate go test -run=^TestCommandPage$ . -update

// The exit statuses.
const (
	ExitOK     = 0 // done
	ExitFailed = 1 // the command could not do what it was told, or found a fault
	ExitUsage  = 2 // the command line makes no sense
)

// Version is the version of this build, set by the linker.
var Version string

// Main runs the command line of the process and returns its exit status.
// SIGINT and SIGTERM end a command cleanly.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends a clean-up that hangs
	return Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Run runs one command line and returns its exit status.
func Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	return (&app{in: in, out: out, err: errOut, now: time.Now}).execute(ctx, args)
}

func (a *app) execute(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	if _, silent := errors.AsType[silentError](err); silent {
		return ExitFailed
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(a.err, "sentinel-x: %s\n", strings.TrimRight(line, "\n"))
	}
	if _, usage := errors.AsType[usageError](err); a.started && !usage {
		return ExitFailed
	}
	fmt.Fprintf(a.err, "Run '%s --help' for usage.\n", cmd.CommandPath())
	return ExitUsage
}

// app is what the commands share.
type app struct {
	in       io.Reader
	out, err io.Writer
	now      func() time.Time
	socket   string // --socket
	json     bool   // --json
	started  bool   // the command line was understood
}

// usageError is a mistake in the command line that only the command itself can see.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// silentError makes a command fail that has said all in its output.
type silentError struct{}

func (silentError) Error() string { return "failed" }

const rootLong = `Sentinel-X keeps a Linux host reachable under a DDoS attack: it drops floods in the
network driver (XDP), before the kernel spends anything on them.

"sentinel-x run" filters; the other commands ask or change the running engine
through its UNIX socket, or work without one (replay, doctor, detach, demo, bench).

Exit status: 0 done, 1 failed, 2 the command line makes no sense.`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "sentinel-x",
		Short:             "Drop floods in the network driver",
		Long:              rootLong,
		Args:              args(0, 0),
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		PersistentPreRun:  func(*cobra.Command, []string) { a.started = true },
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetIn(a.in)
	root.PersistentFlags().StringVar(&a.socket, "socket", config.Default().Socket, "UNIX socket of the engine's API")
	root.AddGroup(
		&cobra.Group{ID: "filter", Title: "Filter:"},
		&cobra.Group{ID: "look", Title: "Look at the running engine:"},
		&cobra.Group{ID: "act", Title: "Change the running engine:"},
		&cobra.Group{ID: "try", Title: "Try and measure, without a running engine:"},
		&cobra.Group{ID: "keep", Title: "Set up and repair:"},
	)
	for group, commands := range a.commands() {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID("keep")
	root.SetCompletionCommandGroupID("keep")
	groupsNeedASubcommand(root)
	return root
}

func (a *app) commands() map[string][]*cobra.Command {
	return map[string][]*cobra.Command{
		"filter": {a.runCommand()},
		"look":   {a.statusCommand(), a.incidentsCommand(), a.eventsCommand()},
		"act":    {a.listCommand(blockList), a.listCommand(allowList), a.listCommand(protectedList), a.signatureCommand(), a.bypassCommand(), a.reloadCommand()},
		"try":    {a.demoCommand(), a.replayCommand(), a.benchCommand()},
		"keep":   {a.configCommand(), a.modelCommand(), a.baselineCommand(), a.trainCommand(), a.doctorCommand(), a.detachCommand(), a.versionCommand(), a.manCommand()},
	}
}

// groupsNeedASubcommand makes `sentinel-x block` a mistake, where cobra would
// print the help and report success, and names a mistyped subcommand.
func groupsNeedASubcommand(c *cobra.Command) {
	for _, sub := range c.Commands() {
		groupsNeedASubcommand(sub)
	}
	if c.Runnable() || !c.HasSubCommands() {
		return
	}
	c.Args = nil
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("%q is not a command of %s%s", args[0], cmd.CommandPath(), suggestion(cmd, args[0]))
		}
		if cmd.Parent() == nil {
			return cmd.Help()
		}
		return usagef("%s needs a subcommand", cmd.CommandPath())
	}
	c.Args = cobra.ArbitraryArgs
}

func suggestion(cmd *cobra.Command, word string) string {
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(word); len(s) > 0 {
		return fmt.Sprintf("; did you mean %q?", s[0])
	}
	return ""
}

// jsonFlag gives a command that prints the flag --json.
func (a *app) jsonFlag(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

func (a *app) client() *api.Client { return api.NewClient(a.socket) }

// print writes v as JSON if --json was given, otherwise what text writes.
func (a *app) print(v any, text func(w io.Writer)) error {
	if !a.json {
		return a.write(text)
	}
	var data strings.Builder
	out := json.NewEncoder(&data)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false) // an expression may have < and >
	if err := out.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return a.write(func(w io.Writer) { fmt.Fprint(w, data.String()) })
}

// write collects output, so that a closed pipe or a full disk is one error.
func (a *app) write(text func(w io.Writer)) error {
	var b strings.Builder
	text(&b)
	if _, err := io.WriteString(a.out, b.String()); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// args wants between least and most arguments; most below 0 is no bound.
func args(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if len(given) >= least && (most < 0 || len(given) <= most) {
			return nil
		}
		_, words, _ := strings.Cut(c.Use, " ")
		how := "too few arguments"
		if len(given) > least {
			how = "too many arguments"
		}
		return usagef("%s; write %s", how, strings.TrimSpace(c.CommandPath()+" "+words))
	}
}

// noComplete keeps the shell from offering files where there are none to name.
func noComplete(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// versionInfo is what `version --json` prints.
type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	System  string `json:"system"`
}

// version returns the version of this build: the linker's, else the module's.
func version() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return strings.Trim(info.Main.Version, "()") // (devel) without a version
	}
	return "unknown"
}

func (a *app) versionCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return a.print(v, func(w io.Writer) { fmt.Fprintf(w, "sentinel-x %s (%s, %s)\n", v.Version, v.Go, v.System) })
		},
	})
}
