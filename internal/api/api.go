// SPDX-License-Identifier: Apache-2.0

// Package api is the way in and out of a running engine: HTTP with JSON over a
// UNIX socket. It holds the types on the wire, the server, and the one Go
// client that the command line uses. What the verbs do is up to the Backend
// that the engine provides; this package only sees to it that a Backend gets
// well-formed requests, and that a client gets an answer or one sentence.
//
// On the wire, names are snake_case, reasons and outcomes are words, times are
// RFC 3339, durations are strings as time.ParseDuration reads them, and errors
// are application/problem+json (RFC 9457). docs/openapi.json describes it all;
// a test keeps it current.
package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

//go:generate go test -run=^TestOpenAPIIsCurrent$ . -update

// Backend does what the API offers. Its methods are called concurrently. An
// *Error reaches the client as it is; any other error becomes a status 500
// with the error's text.
type Backend interface {
	// Status describes the whole engine at this moment.
	Status(ctx context.Context) (Status, error)
	// Counters reads the packet path's counters.
	Counters(ctx context.Context) (Counters, error)
	// Entries returns the entries of a list in the order of their prefixes, or,
	// if containing is valid, only those that cover this address. The server
	// does not change the slice.
	Entries(ctx context.Context, list traffic.List, containing netip.Addr) ([]traffic.Entry, error)
	// AddEntries adds all entries, or changes those that are there. If some are
	// refused and o.Skip is not set, none is added, and they are in the result
	// or in an *Error. list is never traffic.ListProtected.
	AddEntries(ctx context.Context, list traffic.List, entries []NewEntry, o AddOptions) (AddResult, error)
	// DeleteEntries removes exactly these prefixes, and says which of them were
	// not there. list is never traffic.ListProtected.
	DeleteEntries(ctx context.Context, list traffic.List, prefixes []netip.Prefix) (DeleteResult, error)
	// FlushEntries removes every entry of a list. list is never traffic.ListProtected.
	FlushEntries(ctx context.Context, list traffic.List) (DeleteResult, error)
	// Signatures returns the rules in the order of their IDs.
	Signatures(ctx context.Context) ([]Signature, error)
	// AddSignatures arms all rules, or none, and returns them as they are armed. A
	// rule that is armed already is changed. An *Error about one of them names its Item.
	AddSignatures(ctx context.Context, rules []NewSignature, force bool) ([]Signature, error)
	// DeleteSignatures disarms the rules with these IDs, and returns the IDs that no rule has.
	DeleteSignatures(ctx context.Context, ids []uint64) (missing []uint64, err error)
	// FlushSignatures disarms every rule and says how many there were.
	FlushSignatures(ctx context.Context) (int, error)
	// Incidents returns the attacks that were found and pass the filter, the newest first.
	Incidents(ctx context.Context, f IncidentFilter) ([]Incident, error)
	// Incident returns one of them; an ID that none has is an *Error with status 404.
	Incident(ctx context.Context, id string) (Incident, error)
	// LabelIncident keeps LabelAttack or LabelBenign with an incident, and returns it.
	LabelIncident(ctx context.Context, id, label string) (Incident, error)
	// WindowSchema names the features of the windows that are published; detection
	// that is off is an *Error with status 409.
	WindowSchema(ctx context.Context) (WindowSchema, error)
	// Bypass says whether the bypass switch is on.
	Bypass(ctx context.Context) (bool, error)
	// SetBypass turns the bypass switch on or off.
	SetBypass(ctx context.Context, on bool) error
	// Reload reads the configuration file again, and applies it whole or not at all.
	Reload(ctx context.Context) (ReloadResult, error)
	// Config returns the configuration that is running, as YAML.
	Config(ctx context.Context) (ConfigText, error)
}

// NewEntry is an entry that somebody wants on a list.
type NewEntry struct {
	Prefix  netip.Prefix  // masked, without zone, never IPv4-mapped IPv6
	TTL     time.Duration // until it expires; 0: never
	Comment string        // one line, at most MaxComment bytes
}

// AddOptions say how entries are added.
type AddOptions struct {
	Force   bool // block list: also what covers a protected address
	Skip    bool // leave out entries that are refused, instead of refusing all
	Replace bool // the entries replace what operators put on the list before, in one step
}

// NewSignature is a rule that somebody wants armed.
type NewSignature struct {
	Text    string         // as it was written
	Rule    signature.Rule // target included
	Action  signature.Action
	Rate    uint64        // of signature.Limit
	Ceiling float64       // 0 < c ≤ 1
	TTL     time.Duration // until it ends; 0: never
	Comment string        // one line, at most MaxComment bytes
}

// MaxComment is the longest comment of an entry, in bytes.
const MaxComment = 200

// Error is a request that was refused: the client gets its status and its
// sentence, and Client returns it as it was.
type Error struct {
	Status  int       // an HTTP status from 400 to 599
	Detail  string    // one sentence for people: what is wrong, and what to do
	Refused []Refused // the entries it is about, if it is about entries
	Item    int       // which of several signatures it is about, from 1; 0: the request as a whole
	Syntax  *Syntax   // where in an expression, if it is about one
}

// Syntax is a place in an expression.
type Syntax struct {
	Line   int    `json:"line,omitempty"` // of an imported file
	Text   string `json:"text"`           // the expression
	Offset int    `json:"offset"`         // byte in it, 0 to its length
	Hint   string `json:"hint,omitempty"` // what to write instead
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Detail }

// Errorf returns an *Error with a status and a sentence.
func Errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Detail: fmt.Sprintf(format, args...)}
}

// Invalid returns an error for a request that makes no sense (status 422).
func Invalid(format string, args ...any) *Error {
	return Errorf(http.StatusUnprocessableEntity, format, args...)
}

// Conflict returns an error for a request that makes sense but that the state
// of the engine forbids (status 409).
func Conflict(format string, args ...any) *Error {
	return Errorf(http.StatusConflict, format, args...)
}
