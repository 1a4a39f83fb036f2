// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"reflect"
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/scene"
)

// With the captures at hand, the templates in the program are those that they give.
func TestTemplatesAreOfTheCaptures(t *testing.T) {
	const data = "../../../../shared/data"
	if _, err := os.Stat(data); err != nil {
		t.Logf("%v: only the small captures of testdata are distilled", err)
		return
	}
	list, err := distil(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != len(scene.Templates()) {
		t.Fatalf("%d templates, %d in the program", len(list), len(scene.Templates()))
	}
	for i, want := range scene.Templates() {
		want.Weight = list[i].Weight // which the file rounds
		if !reflect.DeepEqual(list[i], want) {
			t.Fatalf("template %d, %s: %+v, in the program %+v", i, want.Name, list[i], want)
		}
	}
}

func TestFlows(t *testing.T) {
	for capture, want := range map[string]struct {
		flows, steps int
		class        scene.Class
		port         uint16
	}{
		"http_browsing.pcap": {1, 37, scene.ClassWeb, 80},
		"dns.pcap":           {8, 2, scene.ClassDNS, 53},
		"ntp.pcap":           {0, 0, scene.ClassTime, 123},
	} {
		flows, err := flowsOf("../../../testdata/captures/" + capture)
		if err != nil {
			t.Fatal(err)
		}
		if len(flows) == 0 {
			t.Fatalf("%s: no flows", capture)
		}
		tp := flows[0].template(capture)
		t.Logf("%s: %d flows, the first with %d packets to port %d", capture, len(flows), len(tp.Steps), tp.ServerPort)
		if want.flows > 0 && (len(flows) != want.flows || len(tp.Steps) != want.steps) {
			t.Errorf("%s: %d flows, the first with %d packets, want %d and %d", capture, len(flows), len(tp.Steps), want.flows, want.steps)
		}
		if tp.Class != want.class || tp.ServerPort != want.port {
			t.Errorf("%s: class %s, port %d", capture, tp.Class, tp.ServerPort)
		}
	}
}

// A flow whose beginning the capture lacks, or that nobody answers, is no template.
func TestUnansweredFlowsAreNone(t *testing.T) {
	flows, err := flowsOf("../../../testdata/captures/tcp_all_flags.pcap")
	if err != nil || len(flows) != 0 {
		t.Errorf("%d flows, %v", len(flows), err)
	}
}

// Segments that the network card would have cut are cut.
func TestLongSegmentsAreCut(t *testing.T) {
	f := &flow{protocol: 6}
	p := packet{protocol: 6, data: 4000}
	p.step.Length, p.step.Flags, p.step.DataOffset = 4052, 0x10, 8
	f.add(p, f.last)
	var total int
	for _, s := range f.steps {
		if s.Length > maxLength {
			t.Errorf("a packet of %d bytes", s.Length)
		}
		total += int(s.Length) - 52
	}
	if len(f.steps) != 3 || total != 4000 {
		t.Errorf("%d packets with %d bytes", len(f.steps), total)
	}
}
