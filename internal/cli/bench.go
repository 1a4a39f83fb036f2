// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/lab"
)

func (a *app) benchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure what the packet path costs on this machine",
		Long: `Measure what the packet path costs on this machine. docs/performance.md says how each
figure comes about. Figures mean little while the machine does other work.`,
	}
	c.AddCommand(a.benchVerdictCommand(), a.benchScaleCommand(), a.benchPeersCommand(), a.benchMemoryCommand(), a.benchDetectionCommand(), a.benchTickCommand(), a.benchAllCommand())
	return c
}

// benchFiles are what every benchmark reads and writes beside its output.
type benchFiles struct{ config, plot string }

func (f *benchFiles) flags(c *cobra.Command, config string) {
	c.Flags().StringVar(&f.config, "config", "", config)
	c.Flags().StringVar(&f.plot, "plot", "", "write a plot into this file, .svg or .png")
}

// load checks both names before anything is measured, and reads the configuration.
func (f *benchFiles) load() (config.Config, error) {
	if err := checkPlot(f.plot); err != nil {
		return config.Config{}, err
	}
	return loadConfig(f.config)
}

func (f *benchFiles) finish(a *app, report any, c chart, table func(io.Writer)) error {
	if err := c.save(f.plot); err != nil {
		return err
	}
	return a.print(report, table)
}

func (a *app) benchVerdictCommand() *cobra.Command {
	sizes := engine.DefaultBenchSizes()
	var files benchFiles
	c := a.jsonFlag(&cobra.Command{
		Use:   "verdict",
		Short: "Measure what a verdict adds to a bare XDP_DROP",
		Long: `Run packets through the real program and through a bare XDP_DROP, in turn and in the
same harness (BPF_PROG_TEST_RUN), and report the difference a packet: the median of
the rounds, and the smallest and largest round. Each packet has another source. p50
and p99 are of the program's own histogram, in a pass in which it times every
packet; they contain two readings of the clock. Nothing is attached.`,
		Example: "  sentinel-x bench verdict\n  sentinel-x bench verdict --rounds 21 --json",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if sizes.Rounds < 1 || sizes.Packets < 1 || sizes.Prefixes < 1 || sizes.Prefixes > math.MaxInt32 {
				return usagef("--rounds, --packets and --prefixes are at least 1")
			}
			cfg, err := files.load()
			if err != nil {
				return err
			}
			r, err := engine.BenchVerdict(cmd.Context(), cfg, sizes)
			if err != nil {
				return err
			}
			return files.finish(a, r, verdictChart(r), func(w io.Writer) { writeVerdict(w, r) })
		},
	})
	c.Flags().IntVar(&sizes.Rounds, "rounds", sizes.Rounds, "rounds")
	c.Flags().IntVar(&sizes.Packets, "packets", sizes.Packets, "packets of each case in a round")
	c.Flags().IntVar(&sizes.Prefixes, "prefixes", sizes.Prefixes, "prefixes on the long list of each family")
	files.flags(c, "configuration file with policies, tunnels and sizes")
	return c
}

func writeHost(w io.Writer, h engine.BenchHost) {
	fmt.Fprintln(w, hostLine(h))
}

func writeVerdict(w io.Writer, r engine.VerdictReport) {
	writeHost(w, r.BenchHost)
	fmt.Fprintf(w, "%d rounds of %s packets a case; the long lists have %s prefixes; a bare XDP_DROP takes %.0f ns\n",
		r.Rounds, grouped(uint64(r.Packets)), grouped(uint64(r.Prefixes)), r.BaselineNS)
	frame, largest := r.Verifier.Frames()
	fmt.Fprintf(w, "the verifier processed %s instructions; stack %d bytes, and at most %d in a subprogram\n\n", grouped(uint64(r.Verifier.Instructions)), frame, largest)
	verdictTable(r).write(w)
}

func verdictTable(r engine.VerdictReport) *table {
	t := newTable("CASE", ">ADDED NS", ">MIN", ">MAX", ">TOTAL NS", ">P50 NS", ">P99 NS", "PACKETS")
	for _, c := range r.Cases {
		t.row(c.Name, whole(c.AddedNS), whole(c.MinNS), whole(c.MaxNS), whole(c.NS),
			strconv.FormatInt(c.P50NS, 10), strconv.FormatInt(c.P99NS, 10), c.What)
	}
	return t
}

// whole writes a number without decimals.
func whole(n float64) string { return strconv.FormatFloat(n, 'f', 0, 64) }

func (a *app) benchScaleCommand() *cobra.Command {
	sizes := engine.DefaultScaleSizes()
	var files benchFiles
	c := a.jsonFlag(&cobra.Command{
		Use:   "scale",
		Short: "Measure how the cost of a verdict grows with lists, signatures and sources",
		Long: `Measure what a verdict adds to a bare XDP_DROP, as bench verdict does, against the
length of the block list, the number of signatures and the number of sources, and
beside it what tutorials build: an LPM trie for the list, an LRU hash for the rates.`,
		Example: "  sentinel-x bench scale\n  sentinel-x bench scale --prefixes 1000,1000000 --json",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkScale(sizes); err != nil {
				return err
			}
			cfg, err := files.load()
			if err != nil {
				return err
			}
			r, err := engine.BenchScale(cmd.Context(), cfg, sizes)
			if err != nil {
				return err
			}
			return files.finish(a, r, scaleChart(r), func(w io.Writer) { writeScale(w, r) })
		},
	})
	c.Flags().IntVar(&sizes.Rounds, "rounds", sizes.Rounds, "rounds")
	c.Flags().IntVar(&sizes.Packets, "packets", sizes.Packets, "packets of each point in a round")
	c.Flags().IntSliceVar(&sizes.Prefixes, "prefixes", sizes.Prefixes, "lengths of the block list")
	c.Flags().IntSliceVar(&sizes.Signatures, "signatures", sizes.Signatures, "numbers of signatures, 1 to 64")
	c.Flags().IntSliceVar(&sizes.Sources, "sources", sizes.Sources, "numbers of sources")
	files.flags(c, "configuration file with policies, tunnels and sizes")
	return c
}

func checkScale(s engine.ScaleSizes) error {
	if s.Rounds < 1 || s.Packets < 1 {
		return usagef("--rounds and --packets are at least 1")
	}
	for _, axis := range []struct {
		flag   string
		values []int
		most   int
	}{{"prefixes", s.Prefixes, 10_000_000}, {"signatures", s.Signatures, 64}, {"sources", s.Sources, 1_000_000_000}} {
		for _, n := range axis.values {
			if n < 1 || n > axis.most {
				return usagef("--%s %d: must be from 1 to %d", axis.flag, n, axis.most)
			}
		}
	}
	return nil
}

func writeScale(w io.Writer, r engine.ScaleReport) {
	writeHost(w, r.BenchHost)
	fmt.Fprintf(w, "%d rounds of %s packets a point; added ns over a bare XDP_DROP\n", r.Rounds, grouped(uint64(r.Packets)))
	for _, t := range scaleTables(r) {
		fmt.Fprintln(w)
		t.write(w)
	}
}

// scaleTables returns one table for each axis.
func scaleTables(r engine.ScaleReport) (tables []*table) {
	for i := 0; i < len(r.Series); {
		axis := r.Series[i].Axis
		head := []string{strings.ToUpper(axis), "CASE"}
		for _, p := range r.Series[i].Points {
			head = append(head, ">"+short(float64(p.N)))
		}
		t := newTable(head...)
		for ; i < len(r.Series) && r.Series[i].Axis == axis; i++ {
			cells := []string{r.Series[i].Engine, r.Series[i].Case}
			for _, p := range r.Series[i].Points {
				cells = append(cells, whole(p.AddedNS))
			}
			t.row(cells...)
		}
		tables = append(tables, t)
	}
	return tables
}

func (a *app) benchPeersCommand() *cobra.Command {
	sizes := lab.DefaultPeerSizes()
	var files benchFiles
	c := a.jsonFlag(&cobra.Command{
		Use:   "peers",
		Short: "Compare what filters drop of the same flood, and how real requests fare beside it",
		Long: `Send a flood of 60-byte UDP from many sources through veth pairs, in namespaces of their
own, against a bare XDP_DROP, Sentinel-X, and what this machine has of xdp-filter,
XDP-Firewall, tc, nftables and iptables, in rounds of all in turn. One CPU sends, another
filters. For each: frames a second that it dropped, the same in a second of its own
thread's time, the load of its core, and round-trip time and loss of 1 000 real requests
a second beside the flood. What cannot be set up here is named.`,
		Example: "  sentinel-x bench peers\n  sentinel-x bench peers --prefixes 10000 --json",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if sizes.Rounds < 1 || sizes.Duration < time.Millisecond {
				return usagef("--rounds is at least 1, --duration at least 1ms")
			}
			if sizes.Prefixes < 1 || sizes.Prefixes > lab.MaxPeerPrefixes {
				return usagef("--prefixes %d: must be from 1 to %d", sizes.Prefixes, lab.MaxPeerPrefixes)
			}
			if sizes.Sources < 1 || sizes.Sources > lab.MaxPeerSources {
				return usagef("--sources %d: must be from 1 to %d", sizes.Sources, lab.MaxPeerSources)
			}
			cfg, err := files.load()
			if err != nil {
				return err
			}
			r, err := lab.BenchPeers(cmd.Context(), cfg, sizes)
			if err != nil {
				return err
			}
			return files.finish(a, r, peersChart(r), func(w io.Writer) { writePeers(w, r) })
		},
	})
	c.Flags().IntVar(&sizes.Rounds, "rounds", sizes.Rounds, "rounds")
	c.Flags().DurationVar(&sizes.Duration, "duration", sizes.Duration, "of each filter in a round")
	c.Flags().IntVar(&sizes.Prefixes, "prefixes", sizes.Prefixes, "blocked prefixes")
	c.Flags().IntVar(&sizes.Sources, "sources", sizes.Sources, "sources of the flood")
	files.flags(c, "configuration file with policies, tunnels and sizes")
	return c
}

func writePeers(w io.Writer, r lab.PeerReport) {
	writeHost(w, r.BenchHost)
	fmt.Fprintf(w, "%d rounds of %.1f s a filter; %s sources, %s blocked\n\n",
		r.Rounds, r.Seconds, grouped(uint64(r.Sources)), plural(r.Prefixes, "prefix", "prefixes"))
	peersTable(r).write(w)
	for _, m := range r.Missing {
		fmt.Fprintf(w, "missing: %s: %s\n", m.Name, m.Why)
	}
}

func peersTable(r lab.PeerReport) *table {
	t := newTable("FILTER", ">DROPPED MPPS", ">OF BARE", ">THREAD MPPS", ">OF BARE", ">PASSED", ">CORE", ">RTT P50 µs", ">P99 µs", ">MAX µs", ">REQUESTS LOST", "HOW")
	for _, c := range r.Cases {
		t.row(c.Name, fmt.Sprintf("%.2f", c.MPPS), fmt.Sprintf("%.0f %%", 100*c.OfBare),
			fmt.Sprintf("%.2f", c.ThreadMPPS), fmt.Sprintf("%.0f %%", 100*c.ThreadBare), fmt.Sprintf("%.1f %%", 100*c.PassedShare), fmt.Sprintf("%.0f %%", c.CPUPercent),
			whole(c.P50Micros), whole(c.P99Micros), whole(c.MaxMicros), fmt.Sprintf("%.1f %%", c.LostPercent), c.What)
	}
	return t
}

func (a *app) benchMemoryCommand() *cobra.Command {
	var files benchFiles
	c := a.jsonFlag(&cobra.Command{
		Use:   "memory",
		Short: "Show what the kernel charges for the maps",
		Long: `Load the program with the configuration, and again with limits on, a few protected
addresses on the lists, and show what the kernel charges for each map.`,
		Example: "  sentinel-x bench memory",
		Args:    args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := files.load()
			if err != nil {
				return err
			}
			r, err := engine.BenchMemory(cfg)
			if err != nil {
				return err
			}
			return files.finish(a, r, memoryChart(r), func(w io.Writer) { writeMemory(w, r) })
		},
	})
	files.flags(c, "configuration file with limits and sizes")
	return c
}

func writeMemory(w io.Writer, r engine.MemoryReport) {
	writeHost(w, r.BenchHost)
	for _, s := range r.Setups {
		fmt.Fprintf(w, "\n%s: %s\n", s.Name, s.What)
		memoryTable(s).write(w)
		fmt.Fprintln(w, memoryVerdict(r, s))
	}
}

func memoryVerdict(r engine.MemoryReport, s engine.MemorySetup) string {
	word := "within"
	if s.Bytes > r.LimitBytes {
		word = "OVER"
	}
	return fmt.Sprintf("%s the budget of %s bytes", word, grouped(r.LimitBytes))
}

func memoryTable(s engine.MemorySetup) *table {
	t := newTable("MAP", ">ENTRIES", ">BYTES")
	for _, m := range s.Maps {
		t.row(m.Name, grouped(uint64(m.Entries)), grouped(m.Bytes))
	}
	t.row("all", "", grouped(s.Bytes))
	return t
}
