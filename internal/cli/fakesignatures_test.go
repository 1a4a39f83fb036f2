// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/signature"
)

// someSignatures are one of each kind and state.
func someSignatures() []api.Signature {
	ends, seen := noon.Add(598*time.Second), noon.Add(-3*time.Second)
	return []api.Signature{
		{
			ID: 1, Expression: "udp and src port 53 and len > 512", Rule: "dst host 192.0.2.10 and udp and src port 53 and len > 512", Target: "192.0.2.10/32",
			Action: "drop", Ceiling: 1, State: api.StateArmed, Expires: &ends, Created: noon, Origin: "operator",
			Matched: 1234567, Bytes: 987654321, Dropped: 1234567, LastSeen: &seen,
		},
		{
			ID: 3, Expression: "udp dst port 27015", Rule: "dst net 2001:db8:1::/48 and udp and dst port 27015", Target: "2001:db8:1::/48",
			Action: "limit", Rate: 5000, Ceiling: 0.9, State: api.StateOverCeiling, Created: noon, Origin: "operator", Comment: "ticket 4711",
			Matched: 20000, Bytes: 2000000, Dropped: 9000, WouldDrop: 1200, OverCeiling: 1200, LastSeen: &noon,
		},
		{
			ID: 12, Expression: "udp port 53", Target: "192.0.2.0/24", Filter: true, Note: "column 5: port asks for both",
			Action: "observe", Ceiling: 1, State: api.StateObserving, Created: noon, Origin: "operator",
		},
	}
}

func (f *fakeEngine) Signatures(context.Context) ([]api.Signature, error) { return f.rules, nil }

func (f *fakeEngine) AddSignatures(_ context.Context, wanted []api.NewSignature, force bool) (armed []api.Signature, err error) {
	for i, w := range wanted {
		if !w.Rule.Target.IsValid() && !force {
			return nil, &api.Error{
				Status: http.StatusConflict, Item: i + 1,
				Detail: "the rule has no target: name the attacked address or prefix with --target, or use --force",
			}
		}
		a := signature.Armed{ID: uint64(13 + i), Text: w.Text, Rule: w.Rule, Action: w.Action, Rate: w.Rate, Ceiling: w.Ceiling, Origin: "operator", Comment: w.Comment, Created: noon}
		if w.TTL > 0 {
			a.Expires = noon.Add(w.TTL)
		}
		s := api.SignatureOf(a, signature.Stats{})
		s.State = api.StateArmed
		armed = append(armed, s)
	}
	f.rules = append(f.rules, armed...)
	return armed, nil
}

func (f *fakeEngine) DeleteSignatures(_ context.Context, ids []uint64) (missing []uint64, err error) {
	for _, id := range ids {
		i := slices.IndexFunc(f.rules, func(s api.Signature) bool { return s.ID == id })
		if i < 0 {
			missing = append(missing, id)
			continue
		}
		f.rules = slices.Delete(f.rules, i, i+1)
	}
	return missing, nil
}

func (f *fakeEngine) FlushSignatures(context.Context) (int, error) {
	n := len(f.rules)
	f.rules = nil
	return n, nil
}
