// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/engine"
)

// benchMostTargets is what detect.max_targets may be.
const benchMostTargets = 4096

func (a *app) benchTickCommand() *cobra.Command {
	sizes := engine.DefaultTickSizes()
	c := a.jsonFlag(&cobra.Command{
		Use:   "tick",
		Short: "Measure what detection costs a tick, and each model a vector",
		Long: `Let the real program count packets of many active targets, attached nowhere, and measure
the processor time of a tick of the detector: reading the windows, making the features,
deciding. The processor time of a vector, and the memory allocated for it, is measured
for each model.`,
		Example: "  sentinel-x bench tick\n  sentinel-x bench tick --targets 4096 --json",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if sizes.Targets < 1 || sizes.Targets > benchMostTargets || sizes.Ticks < 1 {
				return usagef("--targets must be from 1 to %d, --ticks at least 1", benchMostTargets)
			}
			r, err := engine.BenchTick(cmd.Context(), sizes)
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) { writeTick(w, r) })
		},
	})
	c.Flags().IntVar(&sizes.Targets, "targets", sizes.Targets, "active targets")
	c.Flags().IntVar(&sizes.Ticks, "ticks", sizes.Ticks, "ticks that are measured in each case")
	return c
}

func writeTick(w io.Writer, r engine.TickReport) {
	writeHost(w, r.BenchHost)
	fmt.Fprintf(w, "%d ticks of %s; processor time of one thread\n\n", r.Ticks, plural(r.Targets, "active target", "active targets"))
	t := newTable("CASE", ">MEDIAN MS", ">MAX MS", ">READING MS", "PACKETS")
	for _, c := range r.Cases {
		t.row(c.Name, fmt.Sprintf("%.2f", c.MedianMS), fmt.Sprintf("%.2f", c.MaxMS), fmt.Sprintf("%.2f", c.ReadMS), c.What)
	}
	t.write(w)
	fmt.Fprintf(w, "the budget is %.0f ms for 256 active targets\n\n", r.LimitMS)
	t = newTable("MODEL", ">NS A VECTOR", ">ALLOCATIONS")
	for _, c := range r.Inference {
		t.row(c.Model, whole(c.NS), whole(c.Allocations))
	}
	t.write(w)
	fmt.Fprintf(w, "the budget is %.0f µs a model and no allocation\n", r.LimitNS/1e3)
}
