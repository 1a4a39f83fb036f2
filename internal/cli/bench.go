// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/engine"
)

func (a *app) benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure what the packet path costs on this machine",
	}
	c.AddCommand(a.benchVerdictCommand())
	return c
}

func (a *app) benchVerdictCommand() *cobra.Command {
	var o engine.BenchOptions
	var file string
	c := a.jsonFlag(&cobra.Command{
		Use:   "verdict",
		Short: "Measure what a verdict adds to a bare XDP_DROP",
		Long: `Run packets through the real program and through a bare XDP_DROP, in turn and in the
same harness (BPF_PROG_TEST_RUN), and report the difference a packet: the median of
the rounds, and the smallest and largest round. Nothing is attached.`,
		Example: "  sentinel-x bench verdict\n  sentinel-x bench verdict --rounds 21 --json",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Rounds < 1 || o.Repeat < 1 {
				return usagef("--rounds and --packets are at least 1")
			}
			var err error
			if o.Config, err = loadConfig(file); err != nil {
				return err
			}
			r, err := engine.BenchVerdict(cmd.Context(), o)
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { writeBench(w, r) })
		},
	})
	c.Flags().IntVar(&o.Rounds, "rounds", 9, "rounds")
	c.Flags().IntVar(&o.Repeat, "packets", 1_000_000, "packets of each case in a round")
	c.Flags().StringVar(&file, "config", "", "configuration file with limits, policies and tunnels")
	return c
}

func writeBench(w io.Writer, r engine.BenchReport) {
	fmt.Fprintf(w, "Linux %s, %s, %d CPUs\n", r.Kernel, r.CPU, r.CPUs)
	fmt.Fprintf(w, "%d rounds of %s packets a case; a bare XDP_DROP takes %.1f ns", r.Rounds, grouped(uint64(r.Repeat)), r.BaselineNS)
	if r.VerifierInstructions > 0 {
		fmt.Fprintf(w, "; the verifier looked at %s instructions", grouped(uint64(r.VerifierInstructions)))
	}
	fmt.Fprint(w, "\n\n")
	t := newTable("CASE", ">ADDED NS", ">MIN", ">MAX", ">TOTAL NS", "PACKET")
	for _, c := range r.Cases {
		t.row(c.Name, fmt.Sprintf("%.1f", c.AddedNS), fmt.Sprintf("%.1f", c.MinNS), fmt.Sprintf("%.1f", c.MaxNS), fmt.Sprintf("%.1f", c.NS), c.What)
	}
	t.write(w)
}
