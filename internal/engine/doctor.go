// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
)

// The statuses of a check.
const (
	CheckOK   = "ok"
	CheckWarn = "warn" // works, with a restriction
	CheckFail = "fail" // sentinel-x will not run
)

// Check is one thing doctor looked at.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"` // what to do, where there is something to do
}

// DoctorReport is what doctor found.
type DoctorReport struct {
	Checks []Check `json:"checks"`
	OK     bool    `json:"ok"` // no check failed
}

func (r *DoctorReport) add(name, status, advice, format string, args ...any) {
	r.Checks = append(r.Checks, Check{Name: name, Status: status, Detail: fmt.Sprintf(format, args...), Advice: advice})
	r.OK = r.OK && status != CheckFail
}

// Doctor looks whether sentinel-x will run on this kernel and these interfaces. It changes nothing.
func Doctor(_ context.Context, names []string, cfg config.Config) (DoctorReport, error) {
	r := DoctorReport{OK: true}
	r.checkKernel()
	r.checkLoad(cfg)
	r.checkPins(cfg)
	r.checkStateDir(cfg.StateDir)
	for _, name := range names {
		r.checkInterface(name)
	}
	if len(names) == 0 {
		r.add("interfaces", CheckWarn, "name them with --interface or in the configuration file", "none given, so none was looked at")
	}
	return r, nil
}

func (r *DoctorReport) checkKernel() {
	f, err := dataplane.Probe()
	switch {
	case err != nil:
		r.add("kernel", CheckFail, "", "%s: %v", kernelRelease(), err)
	case !f.Frags:
		r.add("kernel", CheckWarn, "Linux 5.18 or newer filters jumbo frames in native mode", "%s: no multi-buffer frames (xdp.frags)", kernelRelease())
	default:
		r.add("kernel", CheckOK, "", "%s: has everything the packet path uses", kernelRelease())
	}
	if text, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable"); err == nil && strings.TrimSpace(string(text)) == "0" {
		r.add("jit", CheckWarn, "sysctl net.core.bpf_jit_enable=1", "the BPF JIT is off: the program is interpreted, several times slower")
	}
}

// checkLoad loads the real program and lets go of it.
func (r *DoctorReport) checkLoad(cfg config.Config) {
	cost, err := dataplane.Verify(PlaneOptions(cfg))
	if err != nil {
		r.add("program", CheckFail, "", "%v", err)
		return
	}
	r.add("program", CheckOK, "", "the verifier accepts it, %d instructions processed", cost.Instructions)
}

func (r *DoctorReport) checkPins(cfg config.Config) {
	if !cfg.Pin.Enabled {
		r.add("pins", CheckOK, "", "switched off: the filter ends with the process")
		return
	}
	path := filepath.Dir(cfg.Pin.Path)
	if err := dataplane.OnBPFFS(path); err != nil {
		r.add("pins", CheckWarn, "mount -t bpf bpf /sys/fs/bpf", "%v: the filter ends with the process", err)
		return
	}
	r.add("pins", CheckOK, "", "%s is on a bpffs: a restart leaves no gap", path)
}

func (r *DoctorReport) checkStateDir(dir string) {
	for path := dir; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if os.IsNotExist(err) && path != filepath.Dir(path) {
			continue // it is made at start
		}
		switch {
		case err != nil:
			r.add("state directory", CheckFail, "", "%v", err)
		case !info.IsDir():
			r.add("state directory", CheckFail, "move the file away or set state_dir", "%s is not a directory", path)
		case !writable(path):
			r.add("state directory", CheckFail, "set state_dir to a directory that can be written", "%s cannot be written", path)
		default:
			r.add("state directory", CheckOK, "", "%s can be written", dir)
		}
		return
	}
}

func (r *DoctorReport) checkInterface(name string) {
	if err := dataplane.CheckInterface(name); err != nil {
		r.add("interface "+name, CheckFail, "", "%v", err)
		return
	}
	dev, err := netlink.LinkByName(name)
	if err != nil {
		r.add("interface "+name, CheckFail, "", "%v", err)
		return
	}
	a := dev.Attrs()
	r.add("interface "+name, CheckOK, "", "driver %s, MTU %d, %d receive and %d transmit queues", orUnknown(driver(name), dev.Type()), a.MTU, a.NumRxQueues, a.NumTxQueues)
	r.checkForeign(name)
	r.checkOffloads(name)
	if a.MTU > 3498 {
		r.add("MTU of "+name, CheckWarn, "check after the start that `status` says native", "%d: many drivers take large frames in native mode only from 5.18 on, some never", a.MTU)
	}
}

func (r *DoctorReport) checkForeign(name string) {
	on, ok, err := dataplane.Look(name)
	if err == nil && ok {
		r.add("program on "+name, CheckWarn, "detach it, or start with --replace", "program %d %q is attached in %s mode", on.ProgramID, on.Name, on.Mode)
	}
}

// checkOffloads names receive offloads that change what the program sees.
func (r *DoctorReport) checkOffloads(name string) {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return
	}
	defer tool.Close()
	features, err := tool.Features(name)
	if err != nil {
		return // the driver has none to show
	}
	if features["rx-vlan-hw-parse"] {
		r.add("VLAN offload of "+name, CheckWarn, "ethtool -K "+name+" rxvlan off, if events shall show tags",
			"the card takes VLAN tags off: the program sees untagged frames (lists and limits work all the same)")
	}
	for _, f := range []string{"rx-gro-hw", "rx-lro"} {
		if features[f] {
			r.add(f+" of "+name, CheckWarn, "ethtool -K "+name+" lro off rx-gro-hw off", "merged frames keep many drivers from native mode")
		}
	}
}

func orUnknown(name, kind string) string {
	if name != "" {
		return name
	}
	return kind
}

func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }
