// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/lab"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// mountBPFFS gives a test a bpffs of its own.
func mountBPFFS(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpffs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	return dir
}

func newPlane(t *testing.T, o dataplane.Options) *dataplane.Plane {
	t.Helper()
	p, err := dataplane.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// attach does so in the victim's namespace.
func attach(t *testing.T, n *lab.Net, p *dataplane.Plane, mode dataplane.Mode, replace bool) (a dataplane.Attachment, err error) {
	t.Helper()
	err = n.Victim.Do(func() error {
		a, err = p.Attach(n.VictimEnd.Name, mode, replace)
		return err
	})
	return a, err
}

func mustAttach(t *testing.T, n *lab.Net, p *dataplane.Plane, mode dataplane.Mode) dataplane.Attachment {
	t.Helper()
	a, err := attach(t, n, p, mode, false)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// look returns what is on the victim's interface.
func look(t *testing.T, n *lab.Net) (on dataplane.OnInterface, ok bool) {
	t.Helper()
	err := n.Victim.Do(func() (err error) {
		on, ok, err = dataplane.Look(n.VictimEnd.Name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return on, ok
}

// reaches reports whether datagrams of a client arrive at the victim.
func reaches(t *testing.T, n *lab.Net, from, to netip.Addr) bool {
	t.Helper()
	ok, err := n.Reaches(from, to)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func blockOne(a netip.Addr) []traffic.Entry {
	return []traffic.Entry{{Prefix: netip.PrefixFrom(a, a.BitLen())}}
}

func TestFilterOnVeth(t *testing.T) {
	for _, mode := range []dataplane.Mode{dataplane.ModeNative, dataplane.ModeGeneric} {
		t.Run(string(mode), func(t *testing.T) {
			n := lab.NewTestNet(t, lab.NetOptions{Clients: 2})
			p := newPlane(t, dataplane.Options{})
			if a := mustAttach(t, n, p, mode); a.Mode != mode || a.Fallback != "" {
				t.Fatalf("attachment %+v", a)
			}
			filterBoth(t, n, p, lab.Client4(0), lab.Client4(1), lab.Victim4)
			filterBoth(t, n, p, lab.Client6(0), lab.Client6(1), lab.Victim6)
		})
	}
}

// filterBoth checks block, allow above block, observe, bypass, expiry and removal for one address family.
func filterBoth(t *testing.T, n *lab.Net, p *dataplane.Plane, bad, good, victim netip.Addr) {
	t.Helper()
	check := func(what string, want bool) {
		t.Helper()
		if got := reaches(t, n, bad, victim); got != want {
			t.Errorf("%s: %v reaches the victim: %v, want %v", what, bad, got, want)
		}
		if !reaches(t, n, good, victim) {
			t.Errorf("%s: %v does not reach the victim", what, good)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check("no list", true)
	do(p.Put(traffic.ListBlock, blockOne(bad)))
	check("blocked", false)
	do(p.SetObserve(true))
	check("observed", true)
	do(p.SetObserve(false))
	do(p.SetBypass(true))
	check("bypass", true)
	do(p.SetBypass(false))
	check("blocked again", false)
	do(p.Put(traffic.ListAllow, blockOne(bad)))
	check("allowed above blocked", true)
	do(p.Remove(traffic.ListAllow, []netip.Prefix{blockOne(bad)[0].Prefix}))
	short := blockOne(bad)
	short[0].Expires = time.Now().Add(time.Second)
	do(p.Put(traffic.ListBlock, short))
	check("for a second", false)
	time.Sleep(time.Until(short[0].Expires))
	check("expired", true)
}

func TestInterfacesThatCannotBeUsed(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	p := newPlane(t, dataplane.Options{})
	err := n.Victim.Do(func() error { _, err := p.Attach("nosuch0", dataplane.ModeAuto, false); return err })
	if err == nil || !strings.Contains(err.Error(), `"nosuch0" does not exist`) {
		t.Errorf("unknown interface: %v", err)
	}
	if err := n.VictimEnd.SetUp(false); err != nil {
		t.Fatal(err)
	}
	if _, err := attach(t, n, p, dataplane.ModeAuto, false); err == nil || !strings.Contains(err.Error(), "is down") {
		t.Errorf("interface down: %v", err)
	}
	if err := n.VictimEnd.SetUp(true); err != nil {
		t.Fatal(err)
	}
	if _, err := attach(t, n, p, dataplane.ModeOffload, false); err == nil || !strings.Contains(err.Error(), "card cannot run") {
		t.Errorf("offload on veth: %v", err)
	}
	if on, ok := look(t, n); ok {
		t.Errorf("something is attached after refusals: %+v", on)
	}
}

func foreignProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	return prog
}

func TestForeignProgramStays(t *testing.T) {
	kinds := map[string]func(dev netlink.Link, prog *ebpf.Program) error{
		"attached by netlink": func(dev netlink.Link, prog *ebpf.Program) error {
			return netlink.LinkSetXdpFdWithFlags(dev, prog.FD(), 0)
		},
		"attached by a link": func(dev netlink.Link, prog *ebpf.Program) error {
			l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: dev.Attrs().Index})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
	}
	for name, put := range kinds {
		t.Run(name, func(t *testing.T) {
			n := lab.NewTestNet(t, lab.NetOptions{})
			prog := foreignProgram(t)
			err := n.Victim.Do(func() error {
				dev, err := netlink.LinkByName(n.VictimEnd.Name)
				if err != nil {
					return err
				}
				return put(dev, prog)
			})
			if err != nil {
				t.Fatal(err)
			}
			before, _ := look(t, n)
			p := newPlane(t, dataplane.Options{})
			if _, err := attach(t, n, p, dataplane.ModeAuto, false); !errors.Is(err, dataplane.ErrForeign) || !strings.Contains(err.Error(), "foreign") {
				t.Errorf("attach over a foreign program: %v", err)
			}
			if after, _ := look(t, n); after != before {
				t.Errorf("the foreign program was touched: %+v, then %+v", before, after)
			}
			if _, err := attach(t, n, p, dataplane.ModeAuto, true); err != nil {
				t.Fatalf("with replace: %v", err)
			}
			if after, _ := look(t, n); after.Name != "sentinel" {
				t.Errorf("after replacing: %+v", after)
			}
		})
	}
}

func TestAutoFallsBackToGeneric(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	p := newPlane(t, dataplane.Options{})
	var a dataplane.Attachment
	err := n.Victim.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "sxbridge0" // a bridge has no native XDP
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge)); err != nil {
			return err
		}
		if _, err := p.Attach("sxbridge0", dataplane.ModeNative, false); err == nil || !strings.Contains(err.Error(), "generic") {
			t.Errorf("native on a bridge: %v", err)
		}
		var err error
		a, err = p.Attach("sxbridge0", dataplane.ModeAuto, false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.Mode != dataplane.ModeGeneric || !strings.Contains(a.Fallback, "no native XDP") {
		t.Errorf("attachment %+v", a)
	}
}

func TestPinnedLinkIsTakenOver(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{Clients: 1})
	o := dataplane.Options{PinPath: filepath.Join(mountBPFFS(t), "sentinel-x"), AdoptFrom: n.VictimEnd.Name}
	var first *dataplane.Plane
	inVictim := func(f func() error) {
		t.Helper()
		if err := n.Victim.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	inVictim(func() (err error) { first, err = dataplane.New(o); return err })
	if err := first.Put(traffic.ListBlock, blockOne(lab.Client4(0))); err != nil {
		t.Fatal(err)
	}
	a := mustAttach(t, n, first, dataplane.ModeAuto)
	if !a.Pinned || a.Adopted {
		t.Fatalf("first attachment %+v", a)
	}
	// While the first lives, neither another one nor detach may touch the interface.
	if _, err := attach(t, n, newPlane(t, o), dataplane.ModeAuto, false); !errors.Is(err, dataplane.ErrInUse) {
		t.Errorf("second instance: %v", err)
	}
	inVictim(func() error {
		if _, err := dataplane.DetachPinned(o.PinPath, n.VictimEnd.Name); !errors.Is(err, dataplane.ErrInUse) {
			t.Errorf("detach under a living process: %v", err)
		}
		return nil
	})
	if reaches(t, n, lab.Client4(0), lab.Victim4) {
		t.Error("blocked source reaches the victim")
	}
	before, err := first.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Leave(); err != nil {
		t.Fatal(err)
	}
	if reaches(t, n, lab.Client4(0), lab.Victim4) {
		t.Error("what was pinned stopped filtering with its process")
	}
	var second *dataplane.Plane
	inVictim(func() (err error) { second, err = dataplane.New(o); return err })
	defer second.Close()
	if b := mustAttach(t, n, second, dataplane.ModeAuto); !b.Adopted || b.LinkID != a.LinkID || b.ProgramID == a.ProgramID {
		t.Errorf("taken over: %+v, before %+v", b, a)
	}
	after, err := second.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if n := after.Reason(traffic.ReasonBlocklist).Packets; n < before.Reason(traffic.ReasonBlocklist).Packets+3 {
		t.Errorf("counters did not go on: %d blocked, then %d", before.Reason(traffic.ReasonBlocklist).Packets, n)
	}
	if !reaches(t, n, lab.Client4(0), lab.Victim4) {
		t.Error("the new process's empty list is not in force")
	}
}

func TestDetachPinnedLeavesNothing(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	fs := mountBPFFS(t)
	o := dataplane.Options{PinPath: filepath.Join(fs, "sentinel-x")}
	p := newPlane(t, o)
	mustAttach(t, n, p, dataplane.ModeAuto)
	if err := p.Leave(); err != nil {
		t.Fatal(err)
	}
	if _, ok := look(t, n); !ok {
		t.Fatal("the pinned program is gone")
	}
	for i, want := range []bool{true, false} {
		err := n.Victim.Do(func() error {
			got, err := dataplane.DetachPinned(o.PinPath, n.VictimEnd.Name)
			if got != want {
				t.Errorf("call %d: detached %v, want %v", i, got, want)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if on, ok := look(t, n); ok {
		t.Errorf("still attached: %+v", on)
	}
	left, err := filepath.Glob(filepath.Join(o.PinPath, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left on the bpffs: %v %v", left, err)
	}
}

func TestCloseDetachesAtOnce(t *testing.T) {
	n := lab.NewTestNet(t, lab.NetOptions{})
	p := newPlane(t, dataplane.Options{PinPath: filepath.Join(mountBPFFS(t), "sentinel-x")})
	mustAttach(t, n, p, dataplane.ModeGeneric)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if on, ok := look(t, n); ok {
		t.Errorf("still attached: %+v", on)
	}
}

func TestPinningNeedsABPFFS(t *testing.T) {
	if err := dataplane.MakePinDir(filepath.Join(t.TempDir(), "sentinel-x")); err == nil || !strings.Contains(err.Error(), "mount -t bpf") {
		t.Errorf("a pin directory on a plain file system: %v", err)
	}
}

// Whatever part of the pins a process that died between its steps left: the next
// one starts, filters, and leaves nothing.
func TestStartOverHalfMadePins(t *testing.T) {
	for _, kept := range [][]string{{}, {"totals"}, {"totals", "reasons", "latency"}, {"link"}, {"link", "reasons"}} {
		t.Run(strings.Join(kept, " and ")+" kept", func(t *testing.T) {
			n := lab.NewTestNet(t, lab.NetOptions{Clients: 1})
			o := dataplane.Options{PinPath: filepath.Join(mountBPFFS(t), "sentinel-x"), AdoptFrom: n.VictimEnd.Name}
			first := newPlane(t, o)
			mustAttach(t, n, first, dataplane.ModeAuto)
			if err := first.Leave(); err != nil {
				t.Fatal(err)
			}
			pins, err := filepath.Glob(filepath.Join(o.PinPath, "*", "*"))
			if err != nil || len(pins) != 4 {
				t.Fatalf("pins %v %v", pins, err)
			}
			for _, pin := range pins {
				if !slices.Contains(kept, filepath.Base(pin)) {
					if err := os.Remove(pin); err != nil {
						t.Fatal(err)
					}
				}
			}
			var second *dataplane.Plane
			if err := n.Victim.Do(func() (err error) { second, err = dataplane.New(o); return err }); err != nil {
				t.Fatal(err)
			}
			defer second.Close()
			if err := second.Put(traffic.ListBlock, blockOne(lab.Client4(0))); err != nil {
				t.Fatal(err)
			}
			attachWhenFree(t, n, second)
			if reaches(t, n, lab.Client4(0), lab.Victim4) {
				t.Error("a blocked source reaches the victim")
			}
			if err := second.Close(); err != nil {
				t.Fatal(err)
			}
			left, err := filepath.Glob(filepath.Join(o.PinPath, "*"))
			if on, ok := look(t, n); ok || err != nil || len(left) > 0 {
				t.Errorf("left: %+v %v %v", on, left, err)
			}
		})
	}
}

// attachWhenFree attaches; the kernel lets go of an unpinned link some milliseconds later.
func attachWhenFree(t *testing.T, n *lab.Net, p *dataplane.Plane) {
	t.Helper()
	var err error
	for range 100 {
		if _, err = attach(t, n, p, dataplane.ModeAuto, false); !errors.Is(err, dataplane.ErrForeign) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
}
