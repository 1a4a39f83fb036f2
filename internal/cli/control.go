// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/api"
)

func (a *app) bypassCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bypass",
		Short: "Let every packet pass, for an emergency",
		Long: `With the bypass switch on, every packet passes unexamined, with the reason bypass.
It takes effect with the next packet and stays on until it is turned off or the
engine ends.`,
		Example: "  sentinel-x bypass on",
	}
	set := func(word string, on bool) *cobra.Command {
		return a.jsonFlag(&cobra.Command{
			Use: word, Short: "Turn the switch " + word, Args: args(0, 0),
			RunE: func(cmd *cobra.Command, _ []string) error {
				if err := a.client().SetBypass(cmd.Context(), on); err != nil {
					return err
				}
				return a.printBypass(on)
			},
		})
	}
	status := a.jsonFlag(&cobra.Command{
		Use: "status", Short: "Say whether the switch is on", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			on, err := a.client().Bypass(cmd.Context())
			if err != nil {
				return err
			}
			return a.printBypass(on)
		},
	})
	c.AddCommand(set("on", true), set("off", false), status)
	return c
}

func (a *app) printBypass(on bool) error {
	text := "bypass is off: packets are judged"
	if on {
		text = "bypass is on: every packet passes unexamined"
	}
	return a.print(api.BypassState{On: on}, func(w io.Writer) { fmt.Fprintln(w, text) })
}

func (a *app) reloadCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "reload",
		Short: "Make the engine read its configuration file again",
		Long: `Make the engine read its configuration file again, as SIGHUP does. The new
configuration is applied whole; if it is faulty, the old one stays and the command
fails and says what is wrong.`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.client().Reload(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { writeReload(w, r) })
		},
	})
}

func writeReload(w io.Writer, r api.ReloadResult) {
	if len(r.Changed)+len(r.Restart) == 0 {
		fmt.Fprintln(w, "nothing has changed")
	}
	if len(r.Changed) > 0 {
		fmt.Fprintf(w, "in force now: %s\n", strings.Join(r.Changed, ", "))
	}
	if len(r.Restart) > 0 {
		fmt.Fprintf(w, "takes a restart: %s\n", strings.Join(r.Restart, ", "))
	}
}
