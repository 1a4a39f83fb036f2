// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"image/color"
	"strings"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/lab"
)

func hostLine(h engine.BenchHost) string {
	return fmt.Sprintf("Linux %s, %s, %s, %s", h.Kernel, h.CPU, plural(h.CPUs, "CPU", "CPUs"), h.Date.Format(time.DateOnly))
}

func verdictChart(r engine.VerdictReport) chart {
	p := rowPanel{title: "added by a verdict; the line is from the fastest to the slowest round", axis: "ns a packet over a bare XDP_DROP", noteWidth: 150}
	for _, c := range r.Cases {
		paint := blue
		if strings.HasPrefix(c.Name, "drop_") {
			paint = sky
		}
		p.rows = append(p.rows, chartRow{
			label: c.Name, bar: max(c.AddedNS, 0), paint: paint, low: c.MinNS, high: c.MaxNS,
			note: fmt.Sprintf("%s ns, p99 %d", whole(c.AddedNS), c.P99NS),
		})
	}
	return chart{
		title: "What a verdict costs", subtitle: hostLine(r.BenchHost),
		legend: []legendEntry{{"the packet passes", blue, false}, {"it is dropped", sky, false}},
		height: panelHead + panelFoot + 26*float64(len(p.rows)), panels: []panel{p},
	}
}

// scaleStyles are how the lines of bench scale look, by engine and case.
var scaleStyles = map[string]legendEntry{
	"sentinel_x listed":     {"Sentinel-X, matches or is listed", blue, false},
	"sentinel_x not_listed": {"Sentinel-X, passes", blue, true},
	"sentinel_x match":      {"Sentinel-X, matches or is listed", blue, false},
	"sentinel_x no_match":   {"Sentinel-X, passes", blue, true},
	"sentinel_x metered":    {"Sentinel-X, passes", blue, true},
	"tutorial listed":       {"LPM_TRIE + LRU_HASH, is listed", vermilion, false},
	"tutorial not_listed":   {"LPM_TRIE + LRU_HASH, passes", vermilion, true},
	"tutorial metered":      {"LPM_TRIE + LRU_HASH, passes", vermilion, true},
}

var scaleTitles = map[string][2]string{
	"prefixes":   {"block list", "prefixes on the list"},
	"signatures": {"signatures", "signatures armed"},
	"sources":    {"meter", "sources at the same time"},
}

func scaleChart(r engine.ScaleReport) chart {
	c := chart{title: "What a verdict adds to a bare XDP_DROP, as things grow", subtitle: hostLine(r.BenchHost), height: 380}
	var values []float64
	shown := map[string]bool{}
	for _, s := range r.Series {
		for _, p := range s.Points {
			values = append(values, max(p.AddedNS, 1))
		}
		style := scaleStyles[s.Engine+" "+s.Case]
		if !shown[style.text] {
			shown[style.text] = true
			c.legend = append(c.legend, style)
		}
	}
	for i := 0; i < len(r.Series); {
		axis := r.Series[i].Axis
		p := linePanel{title: scaleTitles[axis][0], axis: scaleTitles[axis][1], values: values}
		for ; i < len(r.Series) && r.Series[i].Axis == axis; i++ {
			s := r.Series[i]
			style := scaleStyles[s.Engine+" "+s.Case]
			l := chartLine{paint: style.paint, hollow: style.hollow}
			for _, point := range s.Points {
				l.points = append(l.points, [2]float64{float64(point.N), max(point.AddedNS, 1)})
			}
			p.lines = append(p.lines, l)
		}
		c.panels = append(c.panels, p)
	}
	return c
}

func peersChart(r lab.PeerReport) chart {
	rate := rowPanel{
		title: "dropped in a second of the filter's own thread, slowest to fastest round", axis: "million frames, and share of a bare XDP_DROP", noteWidth: 90,
	}
	trip := rowPanel{title: "round trip of real requests beside it", axis: "µs", log: true, noLabels: true, noteWidth: 90}
	for _, c := range r.Cases {
		rate.rows = append(rate.rows, chartRow{
			label: c.Name, bar: c.ThreadMPPS, paint: peerColour(c.Name), low: c.ThreadMin, high: c.ThreadMax,
			note: fmt.Sprintf("%.2f (%.0f %%)", c.ThreadMPPS, 100*c.ThreadBare),
		})
		row := chartRow{label: c.Name, note: "none was answered"}
		if c.P50Micros > 0 {
			row.marks = []chartMark{{c.P50Micros, blue}, {c.P99Micros, orange}, {c.MaxMicros, vermilion}}
			row.note = fmt.Sprintf("lost %.0f %%", c.LostPercent)
		}
		trip.rows = append(trip.rows, row)
	}
	return chart{
		title: fmt.Sprintf("The same flood, %s blocked", plural(r.Prefixes, "prefix", "prefixes")), subtitle: hostLine(r.BenchHost),
		legend: []legendEntry{{"p50", blue, false}, {"p99", orange, false}, {"longest", vermilion, false}},
		height: panelHead + panelFoot + 28*float64(len(rate.rows)), panels: []panel{rate, trip},
	}
}

func peerColour(name string) color.RGBA {
	if strings.HasPrefix(name, "sentinel_x") {
		return blue
	}
	return grey
}

func memoryChart(r engine.MemoryReport) chart {
	c := chart{
		title: "What the kernel charges for the maps", subtitle: hostLine(r.BenchHost),
		legend: []legendEntry{{fmt.Sprintf("budget, %s bytes", grouped(r.LimitBytes)), vermilion, false}},
	}
	for i, s := range r.Setups {
		p := rowPanel{title: s.What, axis: "bytes", limit: float64(r.LimitBytes), noLabels: i > 0, noteWidth: 80}
		for _, m := range s.Maps {
			p.rows = append(p.rows, chartRow{label: m.Name, bar: float64(m.Bytes), paint: sky, note: size(m.Bytes)})
		}
		p.rows = append(p.rows, chartRow{label: "all", bar: float64(s.Bytes), paint: blue, note: size(s.Bytes)})
		c.height = max(c.height, panelHead+panelFoot+24*float64(len(p.rows)))
		c.panels = append(c.panels, p)
	}
	return c
}
