// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check a configuration file, show the running one",
		Long: `The configuration is one YAML file, read strictly: an unknown key or a bad value is
an error that names its line. docs/configuration.md describes every key.`,
	}
	c.AddCommand(a.configCheckCommand(), a.configShowCommand(), a.configSchemaCommand(), a.configExampleCommand())
	return c
}

// checkResult is what `config check --json` prints.
type checkResult struct {
	File    string   `json:"file"`
	OK      bool     `json:"ok"`
	Errors  []string `json:"errors"`
	Notices []string `json:"notices"`
}

func (a *app) configCheckCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "check FILE",
		Short:   "Check a configuration file",
		Long:    "Read a configuration file as run does, and say what is wrong with it. Nothing is changed.",
		Example: "  sentinel-x config check /etc/sentinel-x/sentinel-x.yaml",
		Args:    args(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := config.Load(args[0])
			if !a.json {
				if err != nil {
					return err
				}
				a.notices(cfg)
				return a.write(func(w io.Writer) { fmt.Fprintf(w, "%s: no errors\n", args[0]) })
			}
			r := checkResult{File: args[0], OK: err == nil, Errors: lines(err), Notices: []string{}}
			if err == nil {
				r.Notices = append(r.Notices, cfg.Notices()...)
			}
			if printErr := a.print(r, nil); printErr != nil || err == nil {
				return printErr
			}
			return silentError{}
		},
	})
}

// lines returns the errors that are joined in err.
func lines(err error) []string {
	out := []string{}
	if err == nil {
		return out
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // this very error, not one it wraps
		for _, e := range joined.Unwrap() {
			out = append(out, e.Error())
		}
		return out
	}
	return append(out, err.Error())
}

func (a *app) notices(cfg config.Config) {
	for _, notice := range cfg.Notices() {
		fmt.Fprintf(a.err, "sentinel-x: note: %s\n", notice)
	}
}

func (a *app) configShowCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "show [FILE]",
		Short: "Show every key with its value, of the running engine or of a file",
		Long: `Show the configuration that is running, flags included; with FILE, the one that the
file would give, without asking the engine.`,
		Example: "  sentinel-x config show\n  sentinel-x config show sentinel-x.yaml",
		Args:    args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var cfg config.Config
			if len(args) == 1 {
				var err error
				if cfg, err = config.Load(args[0]); err != nil {
					return err
				}
			} else {
				running, err := a.client().Config(cmd.Context())
				if err != nil {
					return err
				}
				if cfg, err = config.Parse("the running configuration", []byte(running.YAML)); err != nil {
					return err
				}
			}
			return a.print(cfg, func(w io.Writer) { fmt.Fprintf(w, "%s", cfg.Marshal()) })
		},
	})
}

func (a *app) configSchemaCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON schema of the file, for editors",
		Example: "  sentinel-x config schema > sentinel-x.schema.json",
		Args:    args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			return a.write(func(w io.Writer) { fmt.Fprintf(w, "%s", config.Schema()) })
		},
	})
}

func (a *app) configExampleCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "example",
		Short:   "Print a file with every key, its default and what it means",
		Example: "  sentinel-x config example > /etc/sentinel-x/sentinel-x.yaml",
		Args:    args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.print(config.Default(), nil)
			}
			return a.write(func(w io.Writer) { fmt.Fprintf(w, "%s", config.Example()) })
		},
	})
}
