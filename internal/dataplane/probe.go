// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

const bpfFXDPHasFrags = 1 << 5 // BPF_F_XDP_HAS_FRAGS, kernel 5.18

var pageSize = os.Getpagesize()

// Features says what this kernel and this process can do, as found by trying.
type Features struct {
	Frags   bool     // multi-buffer frames
	Missing []string // features without which nothing works, a sentence each
}

var probed = sync.OnceValues(probe)

// Probe tries what the program needs. It returns an error that names a missing
// capability, or a missing kernel feature, and what to do.
func Probe() (Features, error) {
	if err := checkCapabilities(); err != nil {
		return Features{}, err
	}
	f, err := probed()
	if err != nil {
		return f, err
	}
	return f, f.usable()
}

// usable returns an error that names what the kernel lacks.
func (f Features) usable() error {
	if len(f.Missing) == 0 {
		return nil
	}
	return fmt.Errorf("this kernel cannot run the packet path: %s; Linux 5.10 or newer can", strings.Join(f.Missing, "; "))
}

func probe() (f Features, err error) {
	// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK.
	if err := rlimit.RemoveMemlock(); err != nil {
		return f, fmt.Errorf("raise the limit of locked memory (needs CAP_SYS_RESOURCE on kernels before 5.11): %w", err)
	}
	need := func(what string, err error) {
		if errors.Is(err, ebpf.ErrNotSupported) {
			f.Missing = append(f.Missing, "no "+what)
		}
	}
	need("XDP programs", features.HaveProgramType(ebpf.XDP))
	need("arrays of any size in maps of maps (5.10)", features.HaveMapFlag(features.BPF_F_INNER_MAP))
	need("BPF ring buffers (5.8)", features.HaveMapType(ebpf.RingBuf))
	need("maps of maps", features.HaveMapType(ebpf.ArrayOfMaps))
	f.Frags = haveFrags()
	return f, nil
}

// haveFrags loads the smallest program with the flag; helper and flag came together in 5.18.
func haveFrags() bool {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		Flags:        bpfFXDPHasFrags,
		License:      "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.FnXdpGetBuffLen.Call(), asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		return false
	}
	prog.Close()
	return true
}

// The capabilities the packet path needs, and the one that includes the first and third.
var wanted = []struct {
	name string
	bit  uint
}{
	{"CAP_BPF", unix.CAP_BPF},
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
	{"CAP_PERFMON", unix.CAP_PERFMON},
}

// checkCapabilities asks before the kernel answers EPERM, which does not say what for.
func checkCapabilities() error {
	effective, err := effectiveCapabilities("/proc/thread-self/status")
	if err != nil {
		return err
	}
	if missing := missingCapabilities(effective); len(missing) > 0 {
		return fmt.Errorf("missing %s: run as root, or give the binary cap_bpf,cap_net_admin,cap_perfmon with setcap",
			strings.Join(missing, ", "))
	}
	return nil
}

func missingCapabilities(effective uint64) (missing []string) {
	has := func(bit uint) bool { return effective&(1<<bit) != 0 }
	for _, w := range wanted {
		if !has(w.bit) && (w.bit == unix.CAP_NET_ADMIN || !has(unix.CAP_SYS_ADMIN)) {
			missing = append(missing, w.name)
		}
	}
	return missing
}

func effectiveCapabilities(status string) (uint64, error) {
	text, err := os.ReadFile(status)
	if err != nil {
		return 0, fmt.Errorf("read own capabilities: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	return 0, fmt.Errorf("read own capabilities: no CapEff in %s", status)
}

// explainLoad says what a refused load means. The library blames the memory limit
// for every EPERM; capabilities were checked before, so what is left is a policy.
func explainLoad(err error, whole bool) error {
	var v *ebpf.VerifierError
	switch {
	case errors.As(err, &v) && whole:
		return fmt.Errorf("load the packet path: the verifier refused it: %w\n%s", err, fmt.Sprintf("%+v", v))
	case errors.As(err, &v):
		return fmt.Errorf("load the packet path: the verifier refused it (--verifier-log shows all of it): %w", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("load the packet path: the kernel refused although all capabilities are there: "+
			"is BPF locked down (see /sys/kernel/security/lockdown), or not in the initial user namespace? %w", unix.EPERM)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("load the packet path: out of memory for the maps (the control group's memory limit?): %w", err)
	}
	return fmt.Errorf("load the packet path: %w", err)
}
