// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/engine"
)

func (a *app) detachCommand() *cobra.Command {
	var interfaces []string
	var pinPath string
	c := a.jsonFlag(&cobra.Command{
		Use:   "detach",
		Short: "Remove what an engine that died left on an interface",
		Long: `Remove the program and the pins that an engine left on an interface, whether it died
or was told to leave them. No engine needs to run. A program that is not Sentinel-X's
is left alone and named, and the command fails.`,
		Example: "  sentinel-x detach --interface eth0",
		Args:    args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if len(interfaces) == 0 {
				return usagef("which interface? give --interface")
			}
			return a.detach(interfaces, pinPath)
		},
	})
	c.Flags().StringSliceVarP(&interfaces, "interface", "i", nil, "interfaces to free")
	c.Flags().StringVar(&pinPath, "pin-path", config.Default().Pin.Path, "directory of the pins")
	completeInterfaces(c)
	return c
}

func (a *app) detach(interfaces []string, pinPath string) error {
	results := make([]engine.DetachResult, 0, len(interfaces))
	var failed []error
	for _, name := range interfaces {
		r, err := engine.Detach(name, pinPath)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		results = append(results, r)
		if r.Remaining != "" {
			failed = append(failed, fmt.Errorf("%s: %s", name, r.Remaining))
		}
	}
	printErr := a.print(results, func(w io.Writer) {
		for _, r := range results {
			text := "nothing of Sentinel-X was there"
			if r.Detached {
				text = "detached"
			}
			fmt.Fprintf(w, "%s: %s\n", r.Interface, text)
		}
	})
	return errors.Join(append(failed, printErr)...)
}
