// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/engine"
)

// modelFlags say where the models are.
type modelFlags struct{ config, dir string }

func (f *modelFlags) add(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&f.config, "config", "", "configuration file, for its detect.model_dir")
	c.Flags().StringVar(&f.dir, "model-dir", "", "directory of the models (default detect.model_dir)")
	return c
}

// load returns the configuration with the flag in it.
func (f *modelFlags) load() (config.Detect, error) {
	cfg, err := loadConfig(f.config)
	if f.dir != "" {
		cfg.Detect.ModelDir = f.dir
	}
	return cfg.Detect, err
}

// need is load for what makes no sense without a directory.
func (f *modelFlags) need() (config.Detect, error) {
	c, err := f.load()
	if err == nil && c.ModelDir == "" {
		return c, usagef("no model directory: name one with --model-dir, or --config with detect.model_dir")
	}
	return c, err
}

func (a *app) modelCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "model",
		Short: "Look at, check, import and roll back the trees that detect attacks",
		Long: `The trees are one file of XGBoost's JSON or UBJ (1.7 to 3.x). Without any in
detect.model_dir, those that come with the program are used. A change counts from the
next start of "run".`,
	}
	c.AddCommand(a.modelShowCommand(), a.modelVerifyCommand(), a.modelImportCommand(), a.modelRollbackCommand())
	return c
}

func (a *app) modelShowCommand() *cobra.Command {
	var f modelFlags
	return f.add(a.jsonFlag(&cobra.Command{
		Use:     "show",
		Short:   "Show the trees that run would use, and earlier ones",
		Example: "  sentinel-x model show --model-dir /var/lib/sentinel-x/models",
		Args:    args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			c, err := f.load()
			if err != nil {
				return err
			}
			s, err := engine.ShowModels(c)
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { writeModels(w, s) })
		},
	}))
}

func writeModels(w io.Writer, s engine.ModelState) {
	if s.Live == nil {
		fmt.Fprintln(w, "no generation can be used: the deterministic layer decides alone")
	} else {
		writeModel(w, *s.Live)
	}
	if len(s.Generations) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := newTable(">GENERATION", "STATE", "FILE")
	for _, g := range s.Generations {
		state := "kept"
		switch {
		case g.Live:
			state = "live"
		case g.Error != "":
			state = "unusable"
		}
		t.row(fmt.Sprint(g.Number), state, g.File)
	}
	t.write(w)
	for _, g := range s.Generations {
		if g.Error != "" {
			fmt.Fprintf(w, "%s\n", g.Error)
		}
	}
}

func writeModel(w io.Writer, m engine.ModelInfo) {
	fmt.Fprintf(w, "origin:   %s\n", m.Origin)
	fmt.Fprintf(w, "trees:    %d, %d nodes, depth %d, %s\n", m.Trees, m.Nodes, m.MaxDepth, m.Objective)
	fmt.Fprintf(w, "features: %d, schema %s\n", len(m.Features), m.SchemaHash)
	fmt.Fprintf(w, "classes:  %s\n", strings.Join(m.Classes, ", "))
}

func (a *app) modelVerifyCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "verify FILE",
		Short: "Check whether detection takes a file of trees",
		Long: `Read a file of trees as run would, and say what is wrong with it: cut, damaged, of
another version, or made for other features (then both lists are printed).`,
		Example: "  sentinel-x model verify trees.ubj",
		Args:    args(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			check, err := engine.VerifyModel(args[0])
			if err != nil && !a.json {
				return err
			}
			printErr := a.print(check, func(w io.Writer) {
				fmt.Fprintf(w, "%s: no errors\n", check.File)
				writeModel(w, *check.Model)
			})
			if printErr != nil || err == nil {
				return printErr
			}
			return silentError{}
		},
	})
}

func (a *app) modelImportCommand() *cobra.Command {
	var f modelFlags
	return f.add(a.jsonFlag(&cobra.Command{
		Use:   "import FILE",
		Short: "Make a file of trees the one that run uses from its next start",
		Long: `Check a file of trees as verify does, and make it the newest generation in the model
directory. The last three are kept, for rollback.`,
		Example: "  sentinel-x model import trees.json --config /etc/sentinel-x/sentinel-x.yaml",
		Args:    args(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := f.need()
			if err != nil {
				return err
			}
			change, err := engine.ImportModel(c.ModelDir, args[0])
			return a.printModelChange(change, err)
		},
	}))
}

func (a *app) modelRollbackCommand() *cobra.Command {
	var f modelFlags
	return f.add(a.jsonFlag(&cobra.Command{
		Use:     "rollback",
		Short:   "Go back to the trees before the last import or training",
		Long:    "Withdraw the newest generation of the model directory for the one before it that can be read.",
		Example: "  sentinel-x model rollback --model-dir /var/lib/sentinel-x/models",
		Args:    args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			c, err := f.need()
			if err != nil {
				return err
			}
			change, err := engine.RollbackModel(c.ModelDir)
			return a.printModelChange(change, err)
		},
	}))
}

func (a *app) printModelChange(change engine.ModelChange, err error) error {
	if err != nil {
		return err
	}
	return a.print(change, func(w io.Writer) {
		fmt.Fprintf(w, "generation %d is live from the next start of run\n", change.Number)
		writeModel(w, change.Model)
	})
}
