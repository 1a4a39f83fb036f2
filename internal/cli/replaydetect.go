// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"math"
	"net/netip"
	"strings"

	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// shownTargets is how many targets the text names.
const shownTargets = 4

func writeReplayDetection(w io.Writer, r engine.ReplayResult) {
	d := r.Detection
	if d == nil {
		return
	}
	fmt.Fprintf(w, "\nDetection\n  targets: %s (%s)\n  trees: %s\n", targetWords(d.Targets), d.Chosen, d.Trees)
	for _, note := range d.Notes {
		fmt.Fprintf(w, "  %s\n", note)
	}
	if len(r.Incidents) == 0 {
		fmt.Fprintln(w, "  no incident")
		return
	}
	fmt.Fprintln(w)
	t := newTable("TARGET", "KIND", ">ONSET", ">DETECTED", ">ENDED", ">CONFIDENCE", ">PEAK")
	for _, i := range r.Incidents {
		ended := "-"
		if i.Ended != nil {
			ended = fmt.Sprintf("%.1f s", *i.Ended)
		}
		t.row(i.Target.String(), kindWords(i), fmt.Sprintf("%.1f s", i.Onset), fmt.Sprintf("%.1f s", i.Detected),
			ended, fmt.Sprintf("%.2f", i.Confidence), grouped(uint64(i.Peak.Packets))+" packets/s")
	}
	t.write(w)
	for _, i := range r.Incidents {
		writeReplayWhy(w, i)
	}
}

func targetWords(targets []netip.Prefix) string {
	if len(targets) == 0 {
		return "the whole capture"
	}
	var words []string
	for _, p := range targets[:min(len(targets), shownTargets)] {
		if p.IsSingleIP() {
			words = append(words, p.Addr().String())
		} else {
			words = append(words, p.String())
		}
	}
	if more := len(targets) - shownTargets; more > 0 {
		words = append(words, fmt.Sprintf("%d more", more))
	}
	return strings.Join(words, ", ")
}

func kindWords(i engine.ReplayIncident) string {
	if i.Protocol == "" {
		return i.Kind.String()
	}
	return i.Kind.String() + " (" + i.Protocol + ")"
}

func writeReplayWhy(w io.Writer, i engine.ReplayIncident) {
	fmt.Fprintf(w, "\n%v %v:\n", i.Target, i.Kind)
	if i.NoBaseline {
		fmt.Fprintln(w, "  the target had no baseline yet")
	}
	if i.MergedInto != nil {
		fmt.Fprintf(w, "  explained by the incident of %v\n", *i.MergedInto)
	}
	for _, v := range i.Votes {
		if v.Opinion == traffic.OpinionAbsent {
			continue
		}
		fmt.Fprintf(w, "  %s: %v", v.Detector, v.Opinion)
		if !math.IsNaN(float64(v.Score)) {
			fmt.Fprintf(w, ", %.3g (threshold %.3g)", float64(v.Score), float64(v.Threshold))
		}
		fmt.Fprintln(w)
		for _, reason := range v.Reasons {
			fmt.Fprintf(w, "    %s\n", reason)
		}
		for _, e := range v.Features {
			fmt.Fprintf(w, "    %s %.4g (normal %.4g to %.4g)\n", e.Name, float64(e.Value), float64(e.Low), float64(e.High))
		}
	}
	for _, note := range i.Notes {
		fmt.Fprintf(w, "  %s\n", note)
	}
}
