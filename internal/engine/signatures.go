// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/mitigate"
	"github.com/sentinel-x/sentinel-x/internal/signature"
)

// lately is how long a rule counts as over its ceiling after the last packet that it let pass for it.
const lately = 10 * time.Second

// overCeiling is what is remembered of a rule's ceiling from tick to tick.
type overCeiling struct {
	packets uint64    // let pass so far
	last    time.Time // zero: never
}

// Signatures implements api.Backend.
func (e *Engine) Signatures(context.Context) ([]api.Signature, error) {
	return e.describe(e.ledger.Signatures())
}

// describe adds to rules what they have done and how they are.
func (e *Engine) describe(rules []signature.Armed) ([]api.Signature, error) {
	stats, err := e.plane.SignatureStats()
	if err != nil {
		return nil, err
	}
	unarmed := e.ledger.Unarmed()
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]api.Signature, 0, len(rules))
	for _, rule := range rules {
		s := api.SignatureOf(rule, stats[rule.ID])
		why, refused := unarmed[rule.ID]
		switch over := e.ceilings[rule.ID]; {
		case refused:
			s.State, s.Note = api.StateRefused, why
		case e.cfg.DryRun, rule.Action == signature.Observe:
			s.State = api.StateObserving
		case over.isRecent(now):
			s.State = api.StateOverCeiling
		default:
			s.State = api.StateArmed
		}
		all = append(all, s)
	}
	return all, nil
}

func (o overCeiling) isRecent(now time.Time) bool {
	return !o.last.IsZero() && now.Sub(o.last) < lately
}

// signatureCounts sums the rules up. The caller holds mu.
func (e *Engine) signatureCounts() api.SignatureCounts {
	refused := len(e.ledger.Unarmed())
	c := api.SignatureCounts{Armed: len(e.ledger.Signatures()) - refused, Refused: refused, Capacity: signature.Slots}
	now := time.Now()
	for _, over := range e.ceilings {
		if over.isRecent(now) {
			c.OverCeiling++
		}
	}
	return c
}

// AddSignatures implements api.Backend.
func (e *Engine) AddSignatures(_ context.Context, wanted []api.NewSignature, force bool) ([]api.Signature, error) {
	now := time.Now()
	rules := make([]signature.Armed, 0, len(wanted))
	for _, w := range wanted {
		s := signature.Armed{
			Text: w.Text, Rule: w.Rule, Action: w.Action, Rate: w.Rate, Ceiling: w.Ceiling,
			Origin: mitigate.OriginOperator, Comment: w.Comment,
		}
		if w.TTL != 0 {
			s.Expires = now.Add(w.TTL)
		}
		rules = append(rules, s)
	}
	armed, err := e.ledger.AddSignatures(rules, mitigate.AddOptions{Force: force})
	if refused, ok := errors.AsType[*mitigate.RefusedError](err); ok {
		return nil, &api.Error{Status: http.StatusConflict, Detail: refused.Error(), Item: refused.Item}
	}
	if err != nil {
		return nil, err
	}
	for _, s := range armed {
		e.log.Info("signature armed", "id", s.ID, "expression", s.Text, "target", s.Rule.Target, "action", s.Action.String(), "force", force)
	}
	return e.describe(armed)
}

// DeleteSignatures implements api.Backend.
func (e *Engine) DeleteSignatures(_ context.Context, ids []uint64) ([]uint64, error) {
	removed, missing, err := e.ledger.DeleteSignatures(ids)
	if err != nil {
		return nil, err
	}
	for _, s := range removed {
		e.log.Info("signature disarmed", "id", s.ID, "expression", s.Text)
	}
	return missing, nil
}

// FlushSignatures implements api.Backend.
func (e *Engine) FlushSignatures(context.Context) (int, error) {
	n, err := e.ledger.FlushSignatures()
	if err != nil {
		return 0, err
	}
	e.log.Info("signatures flushed", "disarmed", n)
	return n, nil
}

// watchCeilings notes which rules let packets pass because they had dropped their
// share, and says so once each time that begins.
func (e *Engine) watchCeilings(now time.Time) {
	stats, err := e.plane.SignatureStats()
	if err != nil {
		e.log.Error("read signatures", "error", err)
		return
	}
	rules := e.ledger.Signatures()
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.ceilings
	e.ceilings = map[uint64]overCeiling{}
	for _, s := range rules {
		over := before[s.ID]
		if n := stats[s.ID].OverCeiling; n > over.packets {
			if !over.isRecent(now) {
				e.log.Warn("ceiling reached: it observes", "signature", s.ID, "expression", s.Text, "target", s.Rule.Target, "ceiling", s.Ceiling)
			}
			over = overCeiling{n, now}
		}
		if over.packets > 0 {
			e.ceilings[s.ID] = over
		}
	}
}
