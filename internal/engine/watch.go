// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sentinel-x/sentinel-x/internal/dataplane"
)

// iface is an interface the engine filters on, and what is wrong with it.
type iface struct {
	name       string
	attachment dataplane.Attachment
	mtu        int
	down       bool
	gone       bool
}

// complaints returns what is not as it was when the program was attached.
func (i *iface) complaints() (all []string) {
	switch {
	case i.gone:
		return []string{fmt.Sprintf("interface %s is gone: nothing is filtered there until it comes back", i.name)}
	case i.down:
		all = append(all, fmt.Sprintf("interface %s is down", i.name))
	}
	if i.mtu > i.attachment.MTU && i.attachment.Mode == dataplane.ModeNative {
		all = append(all, fmt.Sprintf("the MTU of %s was raised from %d to %d after the program was attached: "+
			"some drivers lose larger frames without a word; restart sentinel-x or lower the MTU", i.name, i.attachment.MTU, i.mtu))
	}
	if i.attachment.Fallback != "" {
		all = append(all, fmt.Sprintf("%s runs in generic mode: %s", i.name, i.attachment.Fallback))
	}
	return all
}

// watch follows changes of the interfaces: down, gone, back, another MTU.
func (e *Engine) watch(ctx context.Context) error {
	updates := make(chan netlink.LinkUpdate, 64)
	failed := make(chan error, 1)
	err := netlink.LinkSubscribeWithOptions(updates, ctx.Done(), netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case failed <- err:
			default:
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	addresses := make(chan netlink.AddrUpdate, 64)
	err = netlink.AddrSubscribeWithOptions(addresses, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: func(error) {}})
	if err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-addresses:
			if !ok {
				addresses = nil // the interfaces are watched all the same
				continue
			}
			e.detect.retarget()
		case err := <-failed:
			if ctx.Err() == nil {
				e.log.Warn("watch interfaces", "error", err)
			}
		case u, ok := <-updates:
			if !ok {
				if ctx.Err() == nil {
					e.log.Error("watch interfaces: the kernel's messages ended; the filter goes on, health shows what was last known")
				}
				<-ctx.Done()
				return nil
			}
			e.linkChanged(u)
		}
	}
}

func (e *Engine) linkChanged(u netlink.LinkUpdate) {
	attrs := u.Link.Attrs()
	e.mu.Lock()
	i := e.ifaces[attrs.Index]
	if i == nil {
		i = e.returned(attrs)
	}
	e.mu.Unlock()
	switch {
	case i == nil:
	case u.Header.Type == unix.RTM_DELLINK:
		e.lose(i)
	default:
		e.note(i, attrs)
		e.detect.retarget() // it may be back, and until it has an address nobody else says so
	}
}

// note records what a change means for an interface, and logs what is new. The caller does not hold mu.
func (e *Engine) note(i *iface, attrs *netlink.LinkAttrs) {
	e.mu.Lock()
	before := i.complaints()
	i.mtu, i.down = attrs.MTU, attrs.Flags&net.FlagUp == 0
	after := i.complaints()
	e.mu.Unlock()
	for _, c := range after {
		if !slices.Contains(before, c) {
			e.log.Warn("degraded", "reason", c)
		}
	}
}

// lose lets go of an interface that is gone; its link died with it.
func (e *Engine) lose(i *iface) {
	if err := e.plane.Detach(i.name); err != nil {
		e.log.Warn("let go of a lost interface", "interface", i.name, "error", err)
	}
	e.mu.Lock()
	i.gone = true
	e.mu.Unlock()
	e.log.Error("degraded", "reason", i.complaints()[0])
}

// returned finds the lost interface that has come back under its name, and filters
// on it again as soon as it is up. The caller holds mu.
func (e *Engine) returned(attrs *netlink.LinkAttrs) *iface {
	for index, i := range e.ifaces {
		if !i.gone || i.name != attrs.Name || attrs.Flags&net.FlagUp == 0 {
			continue
		}
		a, err := e.plane.Attach(i.name, dataplane.Mode(e.cfg.Mode), e.cfg.Replace)
		if err != nil {
			e.log.Error("interface is back, but cannot be filtered", "interface", i.name, "error", err)
			return nil
		}
		delete(e.ifaces, index)
		i.attachment, i.gone, i.mtu = a, false, a.MTU
		e.ifaces[a.Index] = i
		e.log.Info("interface is back: filtering", "interface", i.name, "mode", string(a.Mode))
		return i
	}
	return nil
}

func (e *Engine) interfaceName(index int) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := e.ifaces[index]; i != nil {
		return i.name
	}
	return fmt.Sprintf("#%d", index)
}
