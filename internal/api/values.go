// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Duration is a time.Duration that is a string on the wire, as 1.5s or 1h30m.
type Duration struct{ time.Duration }

// String returns the duration as time.Duration does, without zero parts.
func (d Duration) String() string {
	s := d.Duration.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes the duration as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write 30s, 10m or 1h30m", text)
	}
	d.Duration = v
	return nil
}

// Schema describes the type to OpenAPI.
func (Duration) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Examples: []any{"1m30s"}}
}

const maxTTL = 10 * 365 * 24 * time.Hour

// ParseTTL reads the time until an entry expires: what time.ParseDuration
// reads, or whole days as 7d. It is more than zero and at most ten years.
func ParseTTL(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, daysErr := strconv.ParseUint(days, 10, 16)
		d, err = time.Duration(n)*24*time.Hour, daysErr
	}
	if err != nil {
		return 0, fmt.Errorf("ttl %q is not a duration; write 30s, 10m, 1h30m or 7d", s)
	}
	if d <= 0 {
		return 0, fmt.Errorf("ttl %q is over already; give a duration above zero, or none for an entry that stays", s)
	}
	if d > maxTTL {
		return 0, fmt.Errorf("ttl %q is more than ten years; give none for an entry that stays", s)
	}
	return d, nil
}

// ParseCeiling reads a share above zero: 90%, or 0.9; the whole is 100% or 1.
func ParseCeiling(s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v > 0 && v <= 1) {
		return 0, fmt.Errorf("ceiling %q is not a share above 0 and up to 100%%; write 90%% or 0.9", clip(s))
	}
	return v, nil
}

// ParsePrefix reads a host or a CIDR prefix. A host becomes a /32 or /128. It
// refuses what could mean two things, and says what to write instead: host bits
// behind the prefix, IPv4-mapped IPv6, zones.
func ParsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		addr, addrErr := netip.ParseAddr(s)
		if addrErr != nil {
			return netip.Prefix{}, fmt.Errorf("%q is not an address or CIDR prefix; write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32", s)
		}
		p = netip.PrefixFrom(addr.WithZone(""), addr.BitLen())
		if addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q has a zone; write %s", s, p.Addr())
		}
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, mappedError(s, p)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has host bits set; write %s, or %s for the one address", s, p.Masked(), p.Addr())
	}
	return p, nil
}

func mappedError(s string, p netip.Prefix) error {
	if p.Bits() < 96 {
		return fmt.Errorf("%q covers IPv4-mapped IPv6 addresses, which no packet carries; write the IPv4 prefix that is meant", s)
	}
	v4 := netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96).Masked()
	if v4.IsSingleIP() {
		return fmt.Errorf("%q is an IPv4-mapped IPv6 address; write %s", s, v4.Addr())
	}
	return fmt.Errorf("%q is an IPv4-mapped IPv6 prefix; write %s", s, v4)
}

func checkComment(s string) error {
	if len(s) > MaxComment {
		return fmt.Errorf("comment of %d bytes is longer than %d", len(s), MaxComment)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return errors.New("comment has control characters or is not UTF-8")
		}
	}
	return nil
}
