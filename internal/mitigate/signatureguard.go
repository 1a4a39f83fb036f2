// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

const (
	protocolTCP = 6
	portSSH     = 22
	leastPort   = 1024 // that a client of SSH is behind, unless it is made otherwise

	flagSYN, flagACK, flagPSH, flagECECWR = 0x02, 0x10, 0x08, 0xc0
	bareHeader                            = 5 // TCP data offset without options
)

// signatureObjection says why a rule needs an operator's --force, "" if it does not.
func (g guard) signatureObjection(s signature.Armed) string {
	switch r := s.Rule; {
	case !r.Bounded():
		return "the rule has no target: name the attacked address or prefix with --target"
	case !r.Selective():
		return fmt.Sprintf("the rule matches every packet to %s: say what tells the attack's packets apart", short(r.Target))
	case s.Action != signature.Observe && g.isOurs(s) && mayMatchSSH(r):
		return fmt.Sprintf("the rule also matches SSH (TCP port %d) to %s, and may lock you out: name the protocol or port that is attacked", portSSH, short(r.Target))
	}
	return ""
}

// isOurs tells whether the target holds an address of this host. Where the host's
// addresses are not known (protect.auto is off), every target may.
func (g guard) isOurs(s signature.Armed) bool {
	own := slices.DeleteFunc(slices.Clone(g.all), func(p Protected) bool { return !p.Own })
	return len(own) == 0 || slices.ContainsFunc(own, func(p Protected) bool { return p.Prefix.Overlaps(s.Rule.Target) })
}

// mayMatchSSH tells whether a rule may match what a client of SSH sends. Only
// what the protocol rules out for certain counts as no: source addresses, lengths,
// TTLs and windows do not, and payload is ciphertext, which can be anything.
func mayMatchSSH(r signature.Rule) bool {
	if r.Filter != "" {
		return !isNotTCP(r.Filter)
	}
	f := &r.Fields
	for _, field := range []signature.Field{signature.ICMPType, signature.ICMPCode, signature.Inner} {
		if f[field] != nil {
			return false
		}
	}
	return accepts(f[signature.Protocol], protocolTCP, protocolTCP) &&
		accepts(f[signature.DestPort], portSSH, portSSH) &&
		accepts(f[signature.SourcePort], leastPort, 65535) &&
		accepts(f[signature.Fragment], signature.FragmentNone, signature.FragmentNone) &&
		mayBeSegment(f[signature.TCPFlags], f[signature.DataOffset])
}

// mayBeSegment tells whether flags and data offset are those of a SYN with options,
// which every real one has, or of a segment of a connection.
func mayBeSegment(flags, offset signature.Set) bool {
	syn := accepts(flags, flagSYN, flagSYN) || accepts(flags, flagSYN|flagECECWR, flagSYN|flagECECWR)
	data := accepts(flags, flagACK, flagACK) || accepts(flags, flagACK|flagPSH, flagACK|flagPSH)
	return data || syn && accepts(offset, bareHeader+1, 15)
}

// accepts tells whether a set accepts any value from lo to hi.
func accepts(set signature.Set, lo, hi uint16) bool {
	return set == nil || slices.ContainsFunc(set, func(r signature.Range) bool { return r.Lo <= hi && lo <= r.Hi })
}

// isNotTCP tells whether a tcpdump expression that does not fit the fields can be
// seen to leave TCP alone: a plain conjunction that begins with another protocol.
func isNotTCP(filter string) bool {
	words := strings.Fields(strings.ToLower(filter))
	if len(words) == 0 || strings.ContainsAny(filter, "()|!") || slices.Contains(words, "or") || slices.Contains(words, "not") {
		return false
	}
	first, _, _ := strings.Cut(words[0], "[")
	return slices.Contains([]string{"udp", "icmp", "icmp6", "sctp", "esp", "ah", "igmp", "pim"}, first)
}
