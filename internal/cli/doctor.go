// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/engine"
)

func (a *app) doctorCommand() *cobra.Command {
	var interfaces []string
	var file string
	c := a.jsonFlag(&cobra.Command{
		Use:   "doctor",
		Short: "Say whether Sentinel-X will run here, and what to do if not",
		Long: `Look at the kernel, the privileges, the BPF file system, the state directory and the
interfaces, and load the program once without attaching it. Nothing is changed. The
command fails if something would keep "run" from working.`,
		Example: "  sentinel-x doctor --interface eth0\n  sentinel-x doctor --config /etc/sentinel-x/sentinel-x.yaml",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file)
			if err != nil {
				return err
			}
			if len(interfaces) == 0 {
				interfaces = cfg.Interfaces
			}
			r, err := engine.Doctor(cmd.Context(), interfaces, cfg)
			if err != nil {
				return err
			}
			if err := a.print(r, func(w io.Writer) { writeDoctor(w, r) }); err != nil {
				return err
			}
			if !r.OK {
				return silentError{}
			}
			return nil
		},
	})
	c.Flags().StringSliceVarP(&interfaces, "interface", "i", nil, "interfaces to look at (default those of the configuration)")
	c.Flags().StringVar(&file, "config", "", "configuration file")
	completeInterfaces(c)
	return c
}

func writeDoctor(w io.Writer, r engine.DoctorReport) {
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.Name))
	}
	failed := 0
	for _, c := range r.Checks {
		fmt.Fprintf(w, "%-4s  %-*s  %s\n", c.Status, width, c.Name, c.Detail)
		if c.Advice != "" {
			fmt.Fprintf(w, "%-4s  %-*s  -> %s\n", "", width, "", c.Advice)
		}
		if c.Status == engine.CheckFail {
			failed++
		}
	}
	if r.OK {
		fmt.Fprintln(w, "\nSentinel-X will run here.")
	} else {
		fmt.Fprintf(w, "\nSentinel-X will not run here: %s.\n", plural(failed, "check failed", "checks failed"))
	}
}
