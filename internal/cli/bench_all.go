// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/lab"
)

// benchReports is a run of all benchmarks.
type benchReports struct {
	Verdict engine.VerdictReport `json:"verdict"`
	Scale   engine.ScaleReport   `json:"scale"`
	Peers   []lab.PeerReport     `json:"peers"` // with one blocked prefix, and with many
	Memory  engine.MemoryReport  `json:"memory"`
}

// benchSizes are those of all benchmarks.
type benchSizes struct {
	verdict  engine.BenchSizes
	scale    engine.ScaleSizes
	peers    lab.PeerSizes
	prefixes []int // of peers
}

func defaultBenchSizes() benchSizes {
	return benchSizes{engine.DefaultBenchSizes(), engine.DefaultScaleSizes(), lab.DefaultPeerSizes(), []int{1, 10_000}}
}

// quickBenchSizes show that the benchmarks run; their figures mean nothing.
func quickBenchSizes() benchSizes {
	return benchSizes{
		engine.BenchSizes{Rounds: 1, Packets: 2000, Prefixes: 2000},
		engine.ScaleSizes{Rounds: 1, Packets: 2000, Prefixes: []int{10, 1000}, Signatures: []int{1, 64}, Sources: []int{1, 1000}},
		lab.PeerSizes{Rounds: 1, Duration: 100 * time.Millisecond, Sources: 1000},
		[]int{1, 100},
	}
}

func (a *app) benchAllCommand() *cobra.Command {
	var docs, file string
	var quick bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "all",
		Short: "Run every benchmark, and write the figures into the documentation",
		Long: `Run verdict, scale, peers (with one blocked prefix and with 10 000) and memory with
their defaults: about three minutes. With --docs, the plots go into that directory,
and the tables into its performance.md, between the marks that name the benchmark.`,
		Example: "  sentinel-x bench all --docs docs",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file)
			if err != nil {
				return err
			}
			sizes := defaultBenchSizes()
			if quick {
				sizes = quickBenchSizes()
			}
			r, err := runBenches(cmd.Context(), cfg, sizes)
			if err != nil {
				return err
			}
			if docs != "" {
				if err := writeBenchDocs(docs, r); err != nil {
					return err
				}
			}
			return a.print(r, func(w io.Writer) { writeBenches(w, r) })
		},
	})
	c.Flags().StringVar(&docs, "docs", "", "directory with performance.md")
	c.Flags().BoolVar(&quick, "quick", false, "few packets: shows that everything runs, the figures mean nothing")
	c.Flags().StringVar(&file, "config", "", "configuration file with policies, tunnels and sizes")
	return c
}

func runBenches(ctx context.Context, cfg config.Config, sizes benchSizes) (r benchReports, err error) {
	if r.Verdict, err = engine.BenchVerdict(ctx, cfg, sizes.verdict); err != nil {
		return r, err
	}
	if r.Scale, err = engine.BenchScale(ctx, cfg, sizes.scale); err != nil {
		return r, err
	}
	for _, sizes.peers.Prefixes = range sizes.prefixes {
		p, err := lab.BenchPeers(ctx, cfg, sizes.peers)
		if err != nil {
			return r, err
		}
		r.Peers = append(r.Peers, p)
	}
	r.Memory, err = engine.BenchMemory(cfg)
	return r, err
}

func writeBenches(w io.Writer, r benchReports) {
	writeVerdict(w, r.Verdict)
	fmt.Fprintln(w)
	writeScale(w, r.Scale)
	for _, p := range r.Peers {
		fmt.Fprintln(w)
		writePeers(w, p)
	}
	fmt.Fprintln(w)
	writeMemory(w, r.Memory)
}

// benchPart is what one mark of docs/performance.md is filled with.
type benchPart struct {
	name string // of the mark, and of the plot
	plot chart
	text func(w io.Writer)
}

func benchParts(r benchReports) []benchPart {
	parts := []benchPart{
		{"verdict", verdictChart(r.Verdict), func(w io.Writer) { verdictMarkdown(w, r.Verdict) }},
		{"scale", scaleChart(r.Scale), func(w io.Writer) { scaleMarkdown(w, r.Scale) }},
	}
	for i, p := range r.Peers {
		name := [...]string{"peers", "peers-many"}[min(i, 1)]
		parts = append(parts, benchPart{name, peersChart(p), func(w io.Writer) { peersMarkdown(w, p) }})
	}
	return append(parts, benchPart{"memory", memoryChart(r.Memory), func(w io.Writer) { memoryMarkdown(w, r.Memory) }})
}

// writeBenchDocs writes the plots beside performance.md, and the tables into it.
func writeBenchDocs(dir string, r benchReports) error {
	page := filepath.Join(dir, "performance.md")
	text, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("read the page for the figures: %w", err)
	}
	for _, p := range benchParts(r) {
		plot := "bench-" + p.name + ".svg"
		var b bytes.Buffer
		p.text(&b)
		fmt.Fprintf(&b, "\n![bench %s](%s)\n", p.name, plot)
		if text, err = fillMark(text, p.name, b.Bytes()); err != nil {
			return fmt.Errorf("write %s: %w", page, err)
		}
		if err := p.plot.save(filepath.Join(dir, plot)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(page, text, 0o644); err != nil {
		return fmt.Errorf("write the page with the figures: %w", err)
	}
	return nil
}

// fillMark replaces what stands between <!-- bench NAME --> and <!-- end NAME -->.
func fillMark(page []byte, name string, text []byte) ([]byte, error) {
	first, last := fmt.Sprintf("<!-- bench %s -->\n", name), fmt.Sprintf("<!-- end %s -->", name)
	before, rest, begins := strings.Cut(string(page), first)
	_, after, ends := strings.Cut(rest, last)
	if !begins || !ends {
		return nil, errors.New("it lacks the marks " + strings.TrimSpace(first) + " and " + last)
	}
	return []byte(before + first + string(text) + last + after), nil
}

func verdictMarkdown(w io.Writer, r engine.VerdictReport) {
	fmt.Fprintf(w, "%s. %d rounds of %s packets a case; long lists of %s prefixes; bare `XDP_DROP`: %.0f ns. ",
		hostLine(r.BenchHost), r.Rounds, grouped(uint64(r.Packets)), grouped(uint64(r.Prefixes)), r.BaselineNS)
	frame, largest := r.Verifier.Frames()
	fmt.Fprintf(w, "The verifier processed %s instructions; the program takes %d bytes of stack, its subprograms at most %d.\n\n", grouped(uint64(r.Verifier.Instructions)), frame, largest)
	verdictTable(r).markdown(w)
}

func scaleMarkdown(w io.Writer, r engine.ScaleReport) {
	fmt.Fprintf(w, "%s. %d rounds of %s packets a point; added ns.\n", hostLine(r.BenchHost), r.Rounds, grouped(uint64(r.Packets)))
	for _, t := range scaleTables(r) {
		fmt.Fprintln(w)
		t.markdown(w)
	}
}

func peersMarkdown(w io.Writer, r lab.PeerReport) {
	fmt.Fprintf(w, "%s. %d rounds of %.1f s a filter; %s sources, %s blocked.\n\n",
		hostLine(r.BenchHost), r.Rounds, r.Seconds, grouped(uint64(r.Sources)), plural(r.Prefixes, "prefix", "prefixes"))
	peersTable(r).markdown(w)
	for _, m := range r.Missing {
		fmt.Fprintf(w, "\nMissing: %s: %s\n", m.Name, m.Why)
	}
}

func memoryMarkdown(w io.Writer, r engine.MemoryReport) {
	fmt.Fprintf(w, "%s.\n", hostLine(r.BenchHost))
	for _, s := range r.Setups {
		fmt.Fprintf(w, "\n%s, %s:\n\n", s.What, memoryVerdict(r, s))
		memoryTable(s).markdown(w)
	}
}
