// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written as 1s, 250ms or 1h30m.
type Duration struct{ time.Duration }

// MarshalText writes the duration without zero parts: 10m, not 10m0s.
func (d Duration) MarshalText() ([]byte, error) {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return []byte(s), nil
}

// UnmarshalText reads what time.ParseDuration reads; a number needs its unit.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write 1s, 250ms or 1h30m", clip(string(text)))
	}
	d.Duration = v
	return nil
}

// Count is a number that may be written with the suffix k, M or G (10k = 10000).
type Count uint64

// Bytes is a number of bytes that may be written with the suffix k, M, G
// (powers of 1000) or KiB, MiB, GiB (powers of 1024).
type Bytes uint64

var decimalUnits = []unit{{"k", 1e3}, {"M", 1e6}, {"G", 1e9}}

var byteUnits = []unit{{"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}

type unit struct {
	suffix string
	factor uint64
}

// ParseCount reads a number with an optional suffix k, M or G.
func ParseCount(s string) (Count, error) {
	n, err := parseNumber(s, decimalUnits)
	if err != nil {
		return 0, fmt.Errorf("%q is not a count (%w); write 5000, or 5k, with k, M or G", clip(s), err)
	}
	return Count(n), nil
}

// ParseBytes reads a number with an optional suffix k, M, G, KiB, MiB or GiB.
func ParseBytes(s string) (Bytes, error) {
	n, err := parseNumber(s, byteUnits)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of bytes (%w); write 1000000, 1M or 1MiB, with k, M, G, KiB, MiB or GiB", clip(s), err)
	}
	return Bytes(n), nil
}

func parseNumber(s string, units []unit) (uint64, error) {
	suffix := strings.TrimLeft(s, "0123456789")
	digits := s[:len(s)-len(suffix)]
	if digits == "" {
		return 0, errors.New("not a whole number")
	}
	factor := uint64(1)
	if suffix != "" {
		factor = 0
		for _, u := range units {
			if u.suffix == suffix {
				factor = u.factor
			}
		}
		if factor == 0 {
			return 0, fmt.Errorf("unknown suffix %q", clip(suffix))
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, errors.New("too large")
	}
	hi, lo := bits.Mul64(n, factor)
	if hi != 0 {
		return 0, errors.New("too large")
	}
	return lo, nil
}

// String writes the count with the largest suffix that divides it.
func (c Count) String() string { return formatNumber(uint64(c), decimalUnits) }

// String writes the number with the largest suffix that divides it.
func (b Bytes) String() string { return formatNumber(uint64(b), byteUnits) }

func formatNumber(n uint64, units []unit) string {
	best := unit{"", 1}
	for _, u := range units {
		if n != 0 && n%u.factor == 0 && u.factor > best.factor {
			best = u
		}
	}
	return strconv.FormatUint(n/best.factor, 10) + best.suffix
}

// ParsePrefix reads a host or a CIDR prefix. A host becomes a /32 or /128. The
// error says what to write instead for an IPv4-mapped IPv6 prefix, an address
// with a zone, and a prefix with host bits set.
func ParsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return hostPrefix(s, addr)
	}
	host, width, cidr := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(host)
	if err != nil || !cidr {
		return netip.Prefix{}, fmt.Errorf("%q is not an address or CIDR prefix; write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32", clip(s))
	}
	n, err := strconv.ParseUint(width, 10, 8)
	if err != nil || int(n) > addr.BitLen() || width != strconv.FormatUint(n, 10) {
		return netip.Prefix{}, fmt.Errorf("%q has no prefix length from 0 to %d behind the slash", clip(s), addr.BitLen())
	}
	prefix := netip.PrefixFrom(addr, int(n))
	if addr.Is4In6() {
		return netip.Prefix{}, mappedError(s, addr, int(n))
	}
	if masked := prefix.Masked(); masked != prefix {
		return netip.Prefix{}, fmt.Errorf("%q has host bits set; write %s, or %s for the one address", s, masked, addr)
	}
	return prefix, nil
}

func hostPrefix(s string, addr netip.Addr) (netip.Prefix, error) {
	if zone := addr.Zone(); zone != "" {
		_, width, cidr := strings.Cut(zone, "/")
		if cidr {
			width = "/" + width
		}
		return netip.Prefix{}, fmt.Errorf("%q has a zone; write %s", clip(s), addr.WithZone("").String()+clip(width))
	}
	if addr.Is4In6() {
		return netip.Prefix{}, mappedError(s, addr, 128)
	}
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

// mappedError refuses ::ffff:0:0/96 and longer: packets never carry such
// sources, the IPv4 prefix is what is meant.
func mappedError(s string, addr netip.Addr, width int) error {
	if width < 96 {
		return fmt.Errorf("%q is an IPv4-mapped IPv6 prefix; write the IPv4 prefix", s)
	}
	v4 := netip.PrefixFrom(addr.Unmap(), width-96).Masked()
	if v4.IsSingleIP() {
		return fmt.Errorf("%q is an IPv4-mapped IPv6 address; write the IPv4 address %s", s, v4.Addr())
	}
	return fmt.Errorf("%q is an IPv4-mapped IPv6 prefix; write the IPv4 prefix %s", s, v4)
}

// clip shortens a text for an error message.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
