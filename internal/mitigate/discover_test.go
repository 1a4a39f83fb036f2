// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"
)

func lines(protected []Protected) []string {
	out := []string{}
	for _, p := range protected {
		out = append(out, fmt.Sprintf("%s %s %v", p.Prefix, p.Why, p.Own))
	}
	slices.Sort(out)
	return out
}

// inNamespace runs f in a network namespace of its own, with a veth pair.
func inNamespace(t *testing.T, f func(first, second netlink.Link)) {
	t.Helper()
	runtime.LockOSThread()
	home, err := netns.Get()
	mustDo(t, err)
	name := fmt.Sprintf("sx-guard-%d", os.Getpid())
	ns, err := netns.NewNamed(name)
	mustDo(t, err)
	defer func() {
		mustDo(t, netns.Set(home))
		mustDo(t, netns.DeleteNamed(name))
		mustDo(t, ns.Close())
		mustDo(t, home.Close())
		runtime.UnlockOSThread()
	}()
	mustDo(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "sxa"}, PeerName: "sxb"}))
	var links []netlink.Link
	for _, name := range []string{"lo", "sxa", "sxb"} {
		link, err := netlink.LinkByName(name)
		mustDo(t, err)
		mustDo(t, netlink.LinkSetUp(link))
		links = append(links, link)
	}
	f(links[1], links[2])
}

func address(t *testing.T, link netlink.Link, cidr string) {
	t.Helper()
	a, err := netlink.ParseAddr(cidr)
	mustDo(t, err)
	a.Flags = unix.IFA_F_NODAD
	mustDo(t, netlink.AddrAdd(link, a))
}

func route(t *testing.T, r netlink.Route, dst string) {
	t.Helper()
	if dst != "" {
		d, err := netlink.ParseIPNet(dst)
		mustDo(t, err)
		r.Dst = d
	}
	mustDo(t, netlink.RouteAdd(&r))
}

func TestAddressesAndGateways(t *testing.T) {
	inNamespace(t, func(first, second netlink.Link) {
		lo, err := netlink.LinkByName("lo")
		mustDo(t, err)
		address(t, lo, "203.0.113.9/32") // anycast: an own address all the same
		address(t, first, "192.0.2.5/24")
		address(t, second, "198.51.100.5/24")
		address(t, first, "2001:db8::5/64")
		address(t, second, "203.0.113.9/32") // the same twice

		ip := func(s string) []byte { return netip.MustParseAddr(s).AsSlice() }
		route(t, netlink.Route{LinkIndex: first.Attrs().Index, Gw: ip("192.0.2.1")}, "0.0.0.0/0")
		route(t, netlink.Route{LinkIndex: first.Attrs().Index, Gw: ip("2001:db8::1")}, "::/0")
		route(t, netlink.Route{LinkIndex: first.Attrs().Index, Gw: ip("192.0.2.77")}, "10.0.0.0/8") // not a default route
		route(t, netlink.Route{Table: 100, MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: first.Attrs().Index, Gw: ip("192.0.2.2")},
			{LinkIndex: second.Attrs().Index, Gw: ip("198.51.100.1")},
		}}, "0.0.0.0/0")
		route(t, netlink.Route{Table: 101, LinkIndex: first.Attrs().Index, Via: &netlink.Via{AddrFamily: unix.AF_INET6, Addr: ip("2001:db8::2")}}, "0.0.0.0/0")
		route(t, netlink.Route{Table: 102, LinkIndex: second.Attrs().Index}, "0.0.0.0/0") // no gateway at all

		found, err := gateways()
		mustDo(t, err)
		want := []string{
			"192.0.2.1/32 default gateway false", "192.0.2.2/32 default gateway false", "198.51.100.1/32 default gateway false",
			"2001:db8::1/128 default gateway false", "2001:db8::2/128 default gateway false",
		}
		if diff := cmp.Diff(want, lines(found)); diff != "" {
			t.Errorf("gateways (-want +got):\n%s", diff)
		}

		for name, want := range map[string]string{"sxb": "own address of sxb", "sxa": "own address of lo"} {
			found, err = ownAddresses([]string{name})
			mustDo(t, err)
			got := map[netip.Prefix]string{}
			for _, p := range found {
				if !p.Own {
					t.Errorf("%v is not marked as our own", p)
				}
				if !p.Prefix.Addr().IsLinkLocalUnicast() {
					got[p.Prefix] = p.Why
				}
			}
			want := map[netip.Prefix]string{
				netip.MustParsePrefix("192.0.2.5/32"): "own address of sxa", netip.MustParsePrefix("198.51.100.5/32"): "own address of sxb",
				netip.MustParsePrefix("2001:db8::5/128"): "own address of sxa", netip.MustParsePrefix("203.0.113.9/32"): want,
			}
			if !maps.Equal(got, want) {
				t.Errorf("named first: %s: got %v, want %v", name, got, want)
			}
		}

		all, err := Discover([]string{"sxa"})
		mustDo(t, err)
		joined := strings.Join(lines(all), "\n")
		for _, want := range []string{"192.0.2.1/32 default gateway false", "192.0.2.5/32 own address of sxa true"} {
			if !strings.Contains(joined, want) {
				t.Errorf("Discover lacks %q:\n%s", want, joined)
			}
		}
		if strings.Contains(joined, "127.0.0.1") || strings.Contains(joined, "::1/128 own") {
			t.Errorf("Discover holds loopback addresses:\n%s", joined)
		}
	})
}

func TestResolvers(t *testing.T) {
	dir := t.TempDir()
	h := host{resolvConfs: []string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "none")}}
	mustDo(t, os.WriteFile(h.resolvConfs[0], []byte(`# nameserver 203.0.113.1
nameserver 127.0.0.53
nameserver ::1
nameserver	192.0.2.53  # trailing
nameserver fe80::53%eth0
nameserver ::ffff:192.0.2.54
nameserver not-an-address
nameserver
nameservers 203.0.113.2
search example.org
options edns0`), 0o600))
	mustDo(t, os.WriteFile(h.resolvConfs[1], []byte("nameserver 2001:db8::53\n"), 0o600))
	found, err := h.resolvers()
	mustDo(t, err)
	want := []string{
		"192.0.2.53/32 resolver in " + h.resolvConfs[0] + " false", "192.0.2.54/32 resolver in " + h.resolvConfs[0] + " false",
		"2001:db8::53/128 resolver in " + h.resolvConfs[1] + " false", "fe80::53/128 resolver in " + h.resolvConfs[0] + " false",
	}
	if diff := cmp.Diff(want, lines(found)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	h.resolvConfs[1] = dir
	found, err = h.resolvers()
	if err == nil || len(found) != 3 {
		t.Errorf("one that cannot be read: %v, %v", found, err)
	}
}

// processes writes a tree of processes: each is the parent of the one before.
func processes(t *testing.T, environs ...string) host {
	t.Helper()
	h := host{proc: t.TempDir(), pid: 1000, getenv: func(string) string { return "" }}
	for i, environ := range append([]string{"IN=own"}, environs...) {
		pid, dir := 1000-i, filepath.Join(h.proc, strconv.Itoa(1000-i))
		mustDo(t, os.Mkdir(dir, 0o700))
		parent := pid - 1
		if i == len(environs) {
			parent = 1
		}
		stat := fmt.Sprintf("%d (odd ) (name) S %d %d %d 0 -1", pid, parent, pid, pid)
		mustDo(t, os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o600))
		if environ != "unreadable" {
			mustDo(t, os.WriteFile(filepath.Join(dir, "environ"), []byte(strings.ReplaceAll(environ, ";", "\x00")), 0o600))
		}
	}
	return h
}

func TestSSHPeer(t *testing.T) {
	const ssh = "HOME=/root;SSH_CONNECTION=192.0.2.9 50000 192.0.2.5 22;TERM=xterm"
	deep := slices.Repeat([]string{"A=b"}, 100)
	for name, tt := range map[string]struct {
		h    host
		want string
	}{
		"parent":              {processes(t, ssh), "192.0.2.9/32"},
		"behind sudo":         {processes(t, "SUDO_USER=x;TERM=y", "", "unreadable", ssh), "192.0.2.9/32"},
		"nearest wins":        {processes(t, "SSH_CONNECTION=2001:db8::9 1 2001:db8::5 22", ssh), "2001:db8::9/128"},
		"mapped":              {processes(t, "SSH_CONNECTION=::ffff:192.0.2.8 1 ::ffff:192.0.2.5 22"), "192.0.2.8/32"},
		"link-local":          {processes(t, "SSH_CONNECTION=fe80::9%eth0 1 fe80::5%eth0 22"), "fe80::9/128"},
		"loopback":            {processes(t, "SSH_CONNECTION=127.0.0.1 1 127.0.0.1 22"), ""},
		"garbage":             {processes(t, "SSH_CONNECTION=x y z"), ""},
		"empty":               {processes(t, "SSH_CONNECTION="), ""},
		"another variable":    {processes(t, "OLD_SSH_CONNECTION=192.0.2.9 1 2 3"), ""},
		"no session":          {processes(t, "A=b", "C=d"), ""},
		"too far up":          {processes(t, append(deep, ssh)...), ""},
		"process that is not": {host{proc: t.TempDir(), pid: 7, getenv: func(string) string { return "" }}, ""},
		"own environment": {host{proc: t.TempDir(), pid: 7, getenv: func(name string) string {
			return map[string]string{"SSH_CONNECTION": "203.0.113.9 1 203.0.113.5 22"}[name]
		}}, "203.0.113.9/32"},
	} {
		var got []string
		for _, p := range tt.h.sshPeer() {
			if p.Own || p.Why != "peer of the SSH session" {
				t.Errorf("%s: %+v", name, p)
			}
			got = append(got, p.Prefix.String())
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: got %q, want %q", name, s, tt.want)
		}
	}
	if h := thisHost(); h.parent(h.pid) != os.Getppid() {
		t.Errorf("parent of this process: %d, want %d", h.parent(h.pid), os.Getppid())
	}
}
