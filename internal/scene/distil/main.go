// SPDX-License-Identifier: Apache-2.0

// Distil makes the flow templates of internal/scene from captures: the same file, byte for
// byte, from the same captures. templates/README.md says which they are.
//
//	go run ./internal/scene/distil -data ../shared/data -o internal/scene/templates/flows.bin.gz
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/sentinel-x/sentinel-x/internal/scene"
)

func main() {
	data := flag.String("data", "../shared/data", "folder with benign-ndpi, benign-trex and benign-cesnet")
	out := flag.String("o", "internal/scene/templates/flows.bin.gz", "the template file")
	flag.Parse()
	if err := run(*data, *out); err != nil {
		fmt.Fprintln(os.Stderr, "distil:", err)
		os.Exit(1)
	}
}

// origins are the folders, in the order of the file, each with how many flows of one capture are taken.
var origins = []struct {
	folder string
	flows  int
}{{"benign-cesnet", 40}, {"benign-ndpi", 6}, {"benign-trex", 4}}

func run(data, out string) error {
	list, err := distil(data)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := scene.WriteTemplates(&b, list); err != nil {
		return err
	}
	fmt.Printf("%s: %d flows, %d packets, %d bytes\n", out, len(list), packets(list), b.Len())
	return os.WriteFile(out, b.Bytes(), 0o644)
}

// distil returns the templates of all captures.
func distil(data string) ([]scene.Template, error) {
	weights, err := readWeights(filepath.Join(data, "benign-trex", "sfr_delay_10_1g.yaml"))
	if err != nil {
		return nil, err
	}
	var list []scene.Template
	for _, o := range origins {
		more, err := distilFolder(filepath.Join(data, o.folder), o.flows, weights)
		if err != nil {
			return nil, err
		}
		fmt.Printf("%s: %d flows, %d packets\n", o.folder, len(more), packets(more))
		list = append(list, more...)
	}
	return list, nil
}

func packets(list []scene.Template) (n int) {
	for _, t := range list {
		n += len(t.Steps)
	}
	return n
}

// readWeights returns the connections a second by the names of captures.
func readWeights(path string) (map[string]float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var mixes []struct {
		Captures []struct {
			Name string  `yaml:"name"`
			CPS  float64 `yaml:"cps"`
		} `yaml:"cap_info"`
	}
	if err := yaml.Unmarshal(text, &mixes); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	weights := map[string]float64{}
	for _, m := range mixes {
		for _, c := range m.Captures {
			weights[filepath.Base(c.Name)] = c.CPS
		}
	}
	return weights, nil
}

// untaken captures (of PPP and Cisco HDLC links, and of pcap 2.1) could not be read when
// the templates were made. Their flows would change all that is composed from a seed,
// and with it the default model.
var untaken = []string{"BGP_Cisco_hdlc_slarp.pcap", "BGP_redist.pcap", "dlt_ppp.pcap", "nfsv2.pcap", "nfsv3.pcap"}

// unfit captures are of damaged or made-up packets, or of attacks.
func unfit(name string) bool {
	if slices.Contains(untaken, name) {
		return true
	}
	for _, part := range []string{"fuzz", "garbage", "crash", "segv", "overflow", "badpackets", "malicious", "invalid"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

func distilFolder(folder string, most int, weights map[string]float64) ([]scene.Template, error) {
	entries, err := os.ReadDir(folder) // sorted by name
	if err != nil {
		return nil, err
	}
	var list []scene.Template
	for _, e := range entries {
		name := e.Name()
		weight, inMix := weights[name]
		if strings.HasSuffix(name, ".yaml") || unfit(name) || strings.HasPrefix(name, "delay_10_") && !inMix {
			continue
		}
		flows, err := flowsOf(filepath.Join(folder, name))
		if err != nil {
			// Some captures of nDPI are damaged on purpose; what was read counts.
			fmt.Println("damaged:", err)
		}
		slices.SortStableFunc(flows, func(a, b *flow) int { return len(b.steps) - len(a.steps) })
		flows = flows[:min(most, len(flows))]
		for _, f := range flows {
			t := f.template(strings.TrimSuffix(name, filepath.Ext(name)))
			t.Weight = weight / float64(len(flows))
			list = append(list, t)
		}
	}
	if len(list) == 0 {
		return nil, errors.New(folder + ": no flows")
	}
	return list, nil
}
