// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Mode is where in the receive path a program runs.
type Mode string

// The modes. Auto is native, or generic where the driver refuses, and says so.
const (
	ModeAuto    Mode = "auto"
	ModeNative  Mode = "native"
	ModeGeneric Mode = "generic"
	ModeOffload Mode = "offload"
)

var modeFlags = map[Mode]link.XDPAttachFlags{
	ModeNative: link.XDPDriverMode, ModeGeneric: link.XDPGenericMode, ModeOffload: link.XDPOffloadMode,
}

// Attachment describes the program on one interface.
type Attachment struct {
	Interface string
	Index     int
	Mode      Mode   // what it runs in
	Requested Mode   // what was asked for
	Fallback  string // why it is generic although auto was asked for
	Frags     bool   // takes multi-buffer frames
	MTU       int    // when it was attached
	LinkID    uint32
	ProgramID uint32
	Pinned    bool
	Adopted   bool // an earlier process's link was taken over without a gap
}

type attached struct {
	Attachment
	link link.Link
	pins string   // directory; "": not pinned
	lock *os.File // the directory, held while this process filters here
}

// release lets another process have the pins.
func (a *attached) release() {
	if a.lock != nil {
		a.lock.Close()
	}
}

// ErrForeign is returned by Attach when a program that is not ours is on the interface.
var ErrForeign = errors.New("another XDP program is attached")

// Attach puts the program on an interface of the current network namespace. A
// link that an earlier process pinned is taken over in one step, with no packet
// unfiltered. A foreign program is refused (ErrForeign) unless replace is set.
func (p *Plane) Attach(name string, mode Mode, replace bool) (Attachment, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	dev, err := findInterface(name)
	if err != nil {
		return Attachment{}, err
	}
	a := &attached{Attachment: Attachment{
		Interface: name, Index: dev.Attrs().Index, Requested: mode, Frags: p.features.Frags, MTU: dev.Attrs().MTU,
	}}
	if err := p.hook(a, dev, replace); err != nil {
		a.abandon()
		return Attachment{}, err
	}
	if err := errors.Join(p.describeLink(a), p.pin(a)); err != nil {
		return Attachment{}, errors.Join(err, a.end())
	}
	p.links[name] = a
	return a.Attachment, nil
}

// abandon leaves the pins as they were; a directory that was made for nothing goes.
func (a *attached) abandon() {
	if a.pins != "" {
		os.Remove(a.pins)
	}
	a.release()
}

// end detaches and removes the pins.
func (a *attached) end() error {
	err := detachLink(a.link)
	if a.pins != "" {
		err = errors.Join(err, os.RemoveAll(a.pins))
	}
	a.release()
	return err
}

func findInterface(name string) (netlink.Link, error) {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return nil, explainLookup(name, err)
	}
	if dev.Attrs().Flags&net.FlagUp == 0 {
		return nil, fmt.Errorf("interface %s is down: bring it up first (`ip link set %s up`)", name, name)
	}
	return dev, nil
}

func explainLookup(name string, err error) error {
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return fmt.Errorf("interface %q does not exist here: `ip link` lists those that do", name)
	}
	return fmt.Errorf("look up interface %s: %w", name, err)
}

// CheckInterface says whether a program could be attached to an interface as it is now.
func CheckInterface(name string) error {
	_, err := findInterface(name)
	return err
}

// hook gives a a link: the pinned one with the new program, or a new one.
func (p *Plane) hook(a *attached, dev netlink.Link, replace bool) error {
	if err := p.claim(a); err != nil {
		return err
	}
	old, err := pinnedLink(a)
	if err != nil {
		return err
	}
	if old != nil && fits(old, dev, a.Requested) {
		if err := old.Update(p.objs.Sentinel); err == nil {
			a.link, a.Adopted, a.Mode = old, true, attachedMode(dev)
			return nil
		}
	}
	if old != nil {
		p.log.Warn("cannot take over the earlier link; there is a moment without a filter", "interface", a.Interface)
		if err := detachLink(old); err != nil {
			return fmt.Errorf("detach the earlier program from %s: %w", a.Interface, err)
		}
	} else if err := clearForeign(dev, replace); err != nil {
		return err
	}
	return p.attachNew(a)
}

// fits tells whether a pinned link is on this very device, in the mode asked for.
func fits(old link.Link, dev netlink.Link, mode Mode) bool {
	info, err := old.Info()
	if err != nil || info.XDP() == nil || int(info.XDP().Ifindex) != dev.Attrs().Index {
		return false
	}
	return mode == ModeAuto || mode == attachedMode(dev)
}

// attachedMode returns the mode of what is on the interface, by the kernel's word (IFLA_XDP_ATTACHED).
func attachedMode(dev netlink.Link) Mode {
	xdp := dev.Attrs().Xdp
	if xdp == nil {
		return ""
	}
	switch xdp.AttachMode {
	case xdpAttachedSKB:
		return ModeGeneric
	case xdpAttachedHW:
		return ModeOffload
	}
	return ModeNative
}

// IFLA_XDP_ATTACHED of <linux/if_link.h>.
const (
	xdpAttachedSKB = 2
	xdpAttachedHW  = 3
)

func (p *Plane) attachNew(a *attached) error {
	modes := []Mode{a.Requested}
	if a.Requested == ModeAuto {
		modes = []Mode{ModeNative, ModeGeneric}
	}
	for i, mode := range modes {
		l, err := link.AttachXDP(link.XDPOptions{Program: p.objs.Sentinel, Interface: a.Index, Flags: modeFlags[mode]})
		if err == nil {
			a.link, a.Mode = l, mode
			return nil
		}
		err = explainAttach(err, a, mode)
		if i == len(modes)-1 {
			return err
		}
		a.Fallback = err.Error()
	}
	return nil
}

func explainAttach(err error, a *attached, mode Mode) error {
	op := fmt.Sprintf("attach to %s in %s mode", a.Interface, mode)
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s: %w meanwhile: detach it or use --replace: %w", op, ErrForeign, err)
	case mode == ModeOffload:
		return fmt.Errorf("%s: the card cannot run this program (few can): use --mode auto: %w", op, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%s: the driver has no native XDP: use --mode generic: %w", op, err)
	case mode == ModeNative && a.MTU > 1500 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE)):
		return fmt.Errorf("%s: the driver refuses, most likely because of the MTU of %d: lower it "+
			"(`ip link set %s mtu 1500`) or use --mode generic: %w", op, a.MTU, a.Interface, err)
	}
	return fmt.Errorf("%s: the driver refuses (too few queues, or receive offloads that exclude XDP?): %w", op, err)
}

// clearForeign refuses a program that is on the interface, or takes it off.
func clearForeign(dev netlink.Link, replace bool) error {
	xdp, name := dev.Attrs().Xdp, dev.Attrs().Name
	if xdp == nil || !xdp.Attached {
		return nil
	}
	who := fmt.Sprintf("program %d", xdp.ProgId)
	if program := programName(xdp.ProgId); program != "" {
		who += " (" + program + ")"
	}
	if !replace {
		return fmt.Errorf("%w to %s: %s; detach it (`sentinel-x detach --interface %s` if it is an earlier "+
			"sentinel-x, `ip link set %s xdp off` otherwise), or use --replace", ErrForeign, name, who, name, name)
	}
	if err := removeForeign(dev); err != nil {
		return fmt.Errorf("take %s off %s: %w", who, name, err)
	}
	return waitFree(name)
}

// waitFree waits until an interface has no program any more: what a closed link held goes some milliseconds later.
func waitFree(name string) error {
	for range 100 {
		dev, err := netlink.LinkByName(name)
		if err != nil {
			return explainLookup(name, err)
		}
		if xdp := dev.Attrs().Xdp; xdp == nil || !xdp.Attached {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s still has a program a second after it was taken off", name)
}

// removeForeign takes off what is attached by netlink, or else by a link, which only its owner or its id can end.
func removeForeign(dev netlink.Link) error {
	err := netlink.LinkSetXdpFdWithFlags(dev, -1, 0)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	found, err := linksOn(dev)
	switch {
	case err != nil:
	case len(found) == 1:
		return detachLink(found[0])
	default:
		// Another network namespace may have an interface of the same index.
		err = fmt.Errorf("%d links of its program are on interfaces of index %d: end the process that holds the right one", len(found), dev.Attrs().Index)
	}
	for _, l := range found {
		l.Close()
	}
	return err
}

// linksOn returns the links of the program that is on a device. A link tells an
// index and not of which namespace, so the program's id is compared too.
func linksOn(dev netlink.Link) (found []link.Link, err error) {
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		l := it.Take()
		info, err := l.Info()
		if err == nil && info.XDP() != nil && int(info.XDP().Ifindex) == dev.Attrs().Index && uint32(info.Program) == dev.Attrs().Xdp.ProgId {
			found = append(found, l)
			continue
		}
		l.Close()
	}
	return found, it.Err()
}

// detachLink ends a link at once: after closing or unpinning alone the program goes on for milliseconds.
func detachLink(l link.Link) error {
	var err error
	if d, ok := l.(interface{ Detach() error }); ok {
		err = d.Detach()
	}
	if errors.Is(err, unix.ENOLINK) || errors.Is(err, unix.ENODEV) {
		err = nil // the device went first
	}
	return errors.Join(err, l.Close())
}

func (p *Plane) describeLink(a *attached) error {
	info, err := a.link.Info()
	if err != nil {
		return fmt.Errorf("read the link on %s: %w", a.Interface, err)
	}
	a.LinkID, a.ProgramID = uint32(info.ID), uint32(info.Program)
	return nil
}

// Detach takes the program off one interface and removes its pins.
func (p *Plane) Detach(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.detach(name)
}

func (p *Plane) detach(name string) error {
	a, ok := p.links[name]
	if !ok {
		return nil
	}
	delete(p.links, name)
	if err := a.end(); err != nil {
		return fmt.Errorf("detach from %s: %w", name, err)
	}
	return nil
}

// Attachments returns where the program is, in no order.
func (p *Plane) Attachments() []Attachment {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Attachment
	for _, a := range p.links {
		all = append(all, a.Attachment)
	}
	return all
}

// pinDir is where the pins of one interface of the current network namespace are;
// the same name may exist in another namespace, and file names on a bpffs have no dots.
func pinDir(root, name string) (string, error) {
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return "", fmt.Errorf("read own network namespace: %w", err)
	}
	return filepath.Join(root, fmt.Sprintf("%d:%s", ns.Ino, bpffsName(name))), nil
}
