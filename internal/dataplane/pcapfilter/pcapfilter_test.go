// SPDX-License-Identifier: Apache-2.0

package pcapfilter

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
	"github.com/cloudflare/cbpfc"
	"golang.org/x/net/bpf"

	"github.com/sentinel-x/sentinel-x/internal/dataplane/packettest"
	"github.com/sentinel-x/sentinel-x/internal/signature"
)

var update = flag.Bool("update", false, "ask the tcpdump that is installed, and write testdata anew")

const (
	framesFile  = "testdata/frames.pcap"
	answersFile = "testdata/tcpdump.txt"
)

func frames(t testing.TB) (all [][]byte) {
	t.Helper()
	err := packettest.ReadCapture(framesFile, func(r packettest.Record) error {
		all = append(all, append([]byte(nil), r.Data...))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// matches returns a bit for each frame, the first in the highest bit of the first byte.
func matches(t testing.TB, expression string, all [][]byte) []byte {
	t.Helper()
	program, err := Compile(expression)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	bits := make([]byte, (len(all)+7)/8)
	for i, frame := range all {
		n, err := vm.Run(frame)
		if err != nil {
			t.Fatalf("%s: %v", expression, err)
		}
		if n != 0 {
			bits[i/8] |= 0x80 >> (i % 8)
		}
	}
	return bits
}

// TestAsTcpdump: of good and of broken packets, every expression matches those that tcpdump's does.
func TestAsTcpdump(t *testing.T) {
	text, err := os.ReadFile(answersFile)
	if err != nil {
		t.Fatal(err)
	}
	all := frames(t)
	var anew strings.Builder
	hit := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			anew.WriteString(line + "\n")
			continue
		}
		expression, answer, _ := strings.Cut(line, "\t")
		if *update {
			answer = hex.EncodeToString(askTcpdump(t, expression, all))
		}
		fmt.Fprintf(&anew, "%s\t%s\n", expression, answer)
		want, err := hex.DecodeString(answer)
		if err != nil {
			t.Fatalf("%s: %v", expression, err)
		}
		got := matches(t, expression, all)
		for i, frame := range all {
			if bit := byte(0x80 >> (i % 8)); i/8 >= len(want) || got[i/8]&bit != want[i/8]&bit {
				t.Errorf("%s: frame %d differs\n%x", expression, i, frame)
				break
			}
		}
		if bytes.Count(want, []byte{0}) < len(want) {
			hit++
		}
	}
	if hit < 60 {
		t.Errorf("only %d expressions match anything", hit)
	}
	if *update {
		if err := os.WriteFile(answersFile, []byte(anew.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// askTcpdump returns the bits of matches. It finds frames again by their bytes.
func askTcpdump(t *testing.T, expression string, all [][]byte) []byte {
	t.Helper()
	out := t.TempDir() + "/out.pcap"
	if text, err := exec.Command("tcpdump", "-r", framesFile, "-w", out, expression).CombinedOutput(); err != nil {
		t.Fatalf("tcpdump %s: %v\n%s", expression, err, text)
	}
	left := map[string]bool{}
	err := packettest.ReadCapture(out, func(r packettest.Record) error {
		left[string(r.Data)] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	bits := make([]byte, (len(all)+7)/8)
	for i, frame := range all {
		if left[string(frame)] {
			bits[i/8] |= 0x80 >> (i % 8)
		}
	}
	return bits
}

func TestRefused(t *testing.T) {
	for expression, want := range map[string]struct {
		offset  int
		problem string
	}{
		"":                              {0, "a condition"},
		"udp and":                       {7, "ends here"},
		"udp tcp":                       {4, `unexpected "tcp"`},
		"(udp":                          {4, "want )"},
		"udp)":                          {3, `unexpected ")"`},
		"port":                          {4, "a condition"},
		"port http":                     {5, "service names"},
		"port 65536":                    {5, "not a port number"},
		"port 1-2":                      {6, `unexpected "-"`},
		"portrange 9-2":                 {10, "not a range"},
		"icmp port 7":                   {10, "no ports"},
		"host example.org":              {5, "names are not looked up"},
		"host 192.0.2.0/24":             {5, "write net"},
		"net 192.0.2.1/24":              {4, "write 192.0.2.0/24"},
		"net 192.0.2":                   {4, "written with its length"},
		"net 192.0.2.0 mask 255.0.0.0":  {4, "write the length"},
		"ip6 host 192.0.2.1":            {9, "not an address of ip6"},
		"host ::ffff:192.0.2.1":         {5, "IPv4-mapped"},
		"ether host 02:00:00:00:00:01":  {11, "ether[0:4]"},
		"vlan 3":                        {0, "VLAN"},
		"udp or arp":                    {7, "ARP always passes"},
		"ip[8":                          {4, "want ]"},
		"ip[8:3] = 1":                   {5, "1, 2 or 4"},
		"ip[8] =":                       {7, "a number"},
		"ip[8]":                         {5, "a comparison"},
		"ip[70000] = 1":                 {0, "behind the end"},
		"gre[0] = 1":                    {0, `unexpected "gre"`},
		"ip[8] / 0 = 1":                 {6, "division by zero"},
		"ip[8] << 32 = 1":               {6, "shift"},
		"ip[8] & 1 | 2 = 3":             {0, "parentheses"},
		"ip[8] % 3 + 1 = 3":             {0, "parentheses"},
		"udp # comment":                 {4, "no meaning"},
		"proto frobnicate":              {6, "unknown"},
		"tcp proto 3":                   {10, "has no protocols"},
		"src proto 3":                   {10, "no direction"},
		strings.Repeat("(", 99) + "udp": {31, "too deeply"},
		"len > 1" + strings.Repeat(" or len > 1", 400):                             {maxText, "longer than"},
		"ip[8]" + strings.Repeat("+(ip[9]", 20) + strings.Repeat(")", 20) + " = 1": {0, "too deeply"},
		"not " + strings.Repeat("not ", 40) + "udp":                                {128, "too deeply"},
	} {
		_, err := Compile(expression)
		var syntax *signature.SyntaxError
		switch {
		case !errors.As(err, &syntax):
			t.Errorf("%q: %v, want %q", expression, err, want.problem)
		case syntax.Offset != want.offset || !strings.Contains(syntax.Problem, want.problem):
			t.Errorf("%q: at %d: %s; want at %d: %s", expression, syntax.Offset, syntax.Problem, want.offset, want.problem)
		}
	}
}

// FuzzCompile: no text crashes it, errors lie in the text, and what compiles runs, also as eBPF's compiler sees it.
func FuzzCompile(f *testing.F) {
	text, err := os.ReadFile(answersFile)
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		expression, _, _ := strings.Cut(line, "\t")
		f.Add(expression)
	}
	all := frames(f)[:20]
	f.Fuzz(func(t *testing.T, expression string) {
		program, err := Compile(expression)
		if err != nil {
			var syntax *signature.SyntaxError
			if !errors.As(err, &syntax) || syntax.Offset < 0 || syntax.Offset > len(expression) {
				t.Fatalf("%q: %#v", expression, err)
			}
			return
		}
		matches(t, expression, all)
		_, err = cbpfc.ToEBPF(program, cbpfc.EBPFOpts{
			PacketStart: asm.R2, PacketEnd: asm.R3, Result: asm.R0, ResultLabel: "result",
			Working: [4]asm.Register{asm.R4, asm.R5, asm.R6, asm.R7}, LabelPrefix: "fuzz",
		})
		if err != nil {
			t.Logf("%q: %v", expression, err)
		}
	})
}
