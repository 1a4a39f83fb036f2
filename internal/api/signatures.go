// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

// syntaxLocation marks the detail of a problem that is about an expression.
const syntaxLocation = "expression"

// SignatureRequest is a rule that somebody wants armed, on the wire.
type SignatureRequest struct {
	Expression string     `json:"expression" maxLength:"4000" example:"udp and src port 53 and len > 512" doc:"What packets match, in the language of docs/signatures.md"`
	Target     string     `json:"target,omitempty" maxLength:"100" example:"192.0.2.10" doc:"Destination host or prefix, unless the expression has one"`
	Action     string     `json:"action" enum:"drop,limit,observe"`
	Rate       uint64     `json:"rate,omitempty" doc:"Packets a second that limit lets pass, of all sources together"`
	TTL        string     `json:"ttl,omitempty" example:"10m" maxLength:"40" doc:"Time until it ends, as 30s, 10m, 1h30m or 7d; absent: never"`
	Expires    *time.Time `json:"expires,omitempty" doc:"When it ends, instead of ttl"`
	Ceiling    float64    `json:"ceiling,omitempty" minimum:"0" maximum:"1" doc:"Share of its target's packets that it may drop in a second; above, it observes; absent: 1, all of them"`
	Comment    string     `json:"comment,omitempty" maxLength:"200" doc:"One line"`
	Force      bool       `json:"force,omitempty" doc:"Arm also what has no target, matches all of it, or may match SSH to this host"`
}

// SignaturesDeleted says how many rules were disarmed.
type SignaturesDeleted struct {
	Deleted int `json:"deleted"`
}

type signaturesBody struct {
	Signatures []Signature `json:"signatures" nullable:"false"`
}

// parse reads a request. A mistake in it is an *Error.
func (r SignatureRequest) parse(now time.Time) (NewSignature, error) {
	n := NewSignature{Text: r.Expression, Rate: r.Rate, Ceiling: r.Ceiling, Comment: r.Comment}
	var ok bool
	if n.Action, ok = signature.ParseAction(r.Action); !ok {
		return n, Invalid("action %q is none of drop, limit and observe", clip(r.Action))
	}
	if n.Ceiling == 0 {
		n.Ceiling = signature.FullCeiling
	}
	var err error
	if n.Rule, err = ParseExpression(r.Expression, r.Target); err != nil {
		return n, err
	}
	if n.TTL, err = timeLeft(r.TTL, r.Expires, now); err == nil {
		err = checkComment(r.Comment)
	}
	if err != nil {
		return n, Invalid("%v", err)
	}
	return n, nil
}

// ParseExpression reads a rule and its target, which may be "". An expression that
// does not fit the fields becomes a filter. A mistake is an *Error.
func ParseExpression(text, target string) (signature.Rule, error) {
	rule, err := signature.Parse(text)
	if unfit, ok := errors.AsType[*signature.NotFieldsError](err); ok {
		rule, err = signature.Rule{Filter: unfit.Text}, nil
	}
	if wrong, ok := errors.AsType[*signature.SyntaxError](err); ok {
		return rule, &Error{
			Status: http.StatusUnprocessableEntity, Detail: wrong.Error(),
			Syntax: &Syntax{Text: wrong.Text, Offset: wrong.Offset, Hint: wrong.Hint},
		}
	}
	if err != nil {
		return rule, Invalid("%v", err)
	}
	if target == "" {
		return rule, nil
	}
	p, err := ParsePrefix(target)
	if err != nil {
		return rule, Invalid("target %v", err)
	}
	if rule.Target.IsValid() && rule.Target != p {
		return rule, Invalid("the expression is about %s and the target is %s: give one of them", rule.Target, p)
	}
	rule.Target = p
	return rule, nil
}

// Caret returns the expression as one line, and under it a line with a caret at the place.
func (s *Syntax) Caret() string {
	return (&signature.SyntaxError{Text: s.Text, Offset: min(max(s.Offset, 0), len(s.Text))}).Caret()
}

func readSyntax(v any) *Syntax {
	var s Syntax
	data, err := json.Marshal(v)
	if err != nil || json.Unmarshal(data, &s) != nil {
		return nil
	}
	return &s
}

type signatureImport struct {
	Force   bool `query:"force" doc:"Arm also what has no target, matches all of it, or may match SSH to this host"`
	RawBody []byte
}

type signatureID struct {
	ID uint64 `path:"id"`
}

func (s *Server) registerSignatures(a huma.API) {
	huma.Register(a, op("signatures", http.MethodGet, "/v1/signatures", "List the signatures with what they have done"),
		func(ctx context.Context, _ *struct{}) (*output[signaturesBody], error) {
			all, err := s.backend.Signatures(ctx)
			return answer(signaturesBody{notNil(all)}, err)
		})
	huma.Register(a, op("add-signature", http.MethodPost, "/v1/signatures", "Arm a signature, or change it if it is armed",
		describe("A mistake in the expression is status 422; errors[0].value says at which byte (offset), and what to write (hint). "+
			"What must not be armed without force, and what the packet path does not take, is status 409.")), s.addSignature)
	huma.Register(a, op("import-signatures", http.MethodPost, "/v1/signatures/import", "Arm the signatures of a file, all or none",
		describe("The body is text: a line a signature, the arguments of `signature add`, quoted as in a shell."), importBody), s.importSignatures)
	huma.Register(a, op("delete-signature", http.MethodDelete, "/v1/signatures/{id}", "Disarm a signature"), s.deleteSignature)
	huma.Register(a, op("flush-signatures", http.MethodDelete, "/v1/signatures", "Disarm every signature"),
		func(ctx context.Context, _ *struct{}) (*output[SignaturesDeleted], error) {
			n, err := s.backend.FlushSignatures(ctx)
			return answer(SignaturesDeleted{n}, err)
		})
}

func (s *Server) addSignature(ctx context.Context, in *struct{ Body SignatureRequest }) (*output[Signature], error) {
	rule, err := in.Body.parse(s.now())
	if err != nil {
		return nil, problem(err)
	}
	armed, err := s.backend.AddSignatures(ctx, []NewSignature{rule}, in.Body.Force)
	if err == nil && len(armed) != 1 {
		err = fmt.Errorf("%d signatures were armed instead of one", len(armed))
	}
	if err != nil {
		return nil, problem(err)
	}
	return &output[Signature]{armed[0]}, nil
}

func (s *Server) importSignatures(ctx context.Context, in *signatureImport) (*output[signaturesBody], error) {
	rules, lines, err := parseSignatures(in.RawBody, s.now())
	if err != nil {
		return nil, problem(err)
	}
	armed, err := s.backend.AddSignatures(ctx, rules, in.Force)
	if e, ok := errors.AsType[*Error](err); ok && e.Item > 0 && e.Item <= len(lines) {
		err = &Error{Status: e.Status, Detail: atLine(lines[e.Item-1]) + e.Detail}
	}
	return answer(signaturesBody{notNil(armed)}, err)
}

func (s *Server) deleteSignature(ctx context.Context, in *signatureID) (*output[SignaturesDeleted], error) {
	missing, err := s.backend.DeleteSignatures(ctx, []uint64{in.ID})
	if err == nil && len(missing) > 0 {
		err = Errorf(http.StatusNotFound, "there is no signature %d", in.ID)
	}
	return answer(SignaturesDeleted{1}, err)
}
