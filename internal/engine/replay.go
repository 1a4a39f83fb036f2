// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/capture"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/dataplane"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/signature"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// ReplayOptions says what is replayed, and under which rules.
type ReplayOptions struct {
	File         string        // pcap or pcapng
	Config       config.Config // its lists, limits, policies, tunnels and dry_run apply
	Block, Allow []netip.Prefix
	Signatures   []signature.Armed // armed in this order; only Text, Rule and Action count
	Verdicts     io.Writer         // CSV, a line a packet: index,time_s,verdict,reason; nil: none
	Targets      []netip.Prefix    // watched for attacks; none: Config.Protect.Targets, else where most packets go
	NoDetect     bool              // do not watch; Config.Detect.Enabled does not count
	VerifierLog  bool

	windows func(time.Time, []traffic.Window) // sees those of each tick; nil: nobody does
	seen    func(*detect.Seen)                // sees each as it was judged; nil: nobody does
}

// ReplayResult is what the packet path made of a capture.
type ReplayResult struct {
	File      string            `json:"file"`
	Packets   uint64            `json:"packets"`
	Bytes     uint64            `json:"bytes"`      // on the wire, as the capture says
	Duration  float64           `json:"duration_s"` // from the first packet to the last, in the capture's time
	Passed    uint64            `json:"passed"`     // packets
	Dropped   uint64            `json:"dropped"`
	WouldDrop uint64            `json:"would_drop,omitempty"` // passed only because of dry_run; part of Passed
	Reasons   map[string]uint64 `json:"reasons"`              // packets by reason, those that occurred

	Signatures []ReplaySignature `json:"signatures,omitempty"` // in the order of the options

	Detection *ReplayDetection `json:"detection,omitempty"` // nil: not watched
	Incidents []ReplayIncident `json:"incidents,omitzero"`  // by the time they were detected
}

// ReplaySignature is what a rule did to a capture. A packet that a rule drops is
// not shown to the rules behind it.
type ReplaySignature struct {
	Expression string `json:"expression"`
	Action     string `json:"action"`
	Matched    uint64 `json:"matched"` // packets
	Bytes      uint64 `json:"bytes"`
	Dropped    uint64 `json:"dropped"`
	WouldDrop  uint64 `json:"would_drop"`
}

// Replay runs every packet of a capture through the real XDP program, in the
// capture's own time. Nothing is attached. An unreadable or cut capture is an
// error that says where; what was read before it is in the result.
func Replay(ctx context.Context, o ReplayOptions) (ReplayResult, error) {
	c, err := capture.Open(o.File)
	if err != nil {
		return ReplayResult{}, err
	}
	defer c.Close()
	po := PlaneOptions(o.Config)
	po.VerifierLog = o.VerifierLog
	po.MaxTargets = 0
	if !o.NoDetect {
		po.MaxTargets = int(o.Config.Detect.MaxTargets)
	}
	tester, err := dataplane.NewTester(po)
	if err != nil {
		return ReplayResult{}, err
	}
	defer tester.Close()
	if err := putReplayLists(tester, o); err != nil {
		return ReplayResult{}, err
	}
	rules, err := armReplay(tester, o.Signatures)
	if err != nil {
		return ReplayResult{}, err
	}
	var watch *watcher
	if !o.NoDetect {
		if watch, err = newWatcher(ctx, tester, o); err != nil {
			return ReplayResult{}, err
		}
	}
	r := replay{watch: watch, tester: tester, capture: c, result: ReplayResult{File: o.File, Reasons: map[string]uint64{}}}
	if o.Verdicts != nil {
		r.csv = bufio.NewWriterSize(o.Verdicts, 1<<16)
		fmt.Fprintln(r.csv, "index,time_s,verdict,reason")
	}
	err = r.run(ctx)
	if r.csv != nil {
		err = errors.Join(err, r.csv.Flush())
	}
	err = errors.Join(err, r.addSignatures(rules))
	if watch != nil {
		err = errors.Join(err, watch.finish(&r.result, r.first))
	}
	return r.finish(), err
}

// armReplay numbers the rules from 1 and puts them in force.
func armReplay(t *dataplane.Tester, rules []signature.Armed) ([]signature.Armed, error) {
	armed := slices.Clone(rules)
	for i := range armed {
		armed[i].ID, armed[i].Ceiling = uint64(i+1), signature.FullCeiling
	}
	if len(armed) == 0 {
		return nil, nil
	}
	return armed, t.SetSignatures(armed)
}

func putReplayLists(t *dataplane.Tester, o ReplayOptions) error {
	for list, l := range map[traffic.List]struct {
		given []netip.Prefix
		file  []config.ListEntry
	}{
		traffic.ListBlock: {o.Block, o.Config.Lists.Block},
		traffic.ListAllow: {o.Allow, o.Config.Lists.Allow},
	} {
		entries := listEntries(l.file)
		for _, prefix := range l.given {
			entries = append(entries, traffic.Entry{Prefix: prefix})
		}
		if err := t.Replace(list, entries); err != nil {
			return fmt.Errorf("%v list: %w", list, err)
		}
	}
	var protected []traffic.Entry
	for _, prefix := range o.Config.Protect.Addresses {
		protected = append(protected, traffic.Entry{Prefix: prefix})
	}
	return t.Replace(traffic.ListProtected, protected)
}

// replay is one run over a capture.
type replay struct {
	tester      *dataplane.Tester
	watch       *watcher // nil: nothing is watched
	capture     *capture.File
	csv         *bufio.Writer
	result      ReplayResult
	first, last time.Time
	reasons     [traffic.NumReasons]uint64
	line        []byte
}

func (r *replay) run(ctx context.Context) error {
	for n := uint64(0); ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return fmt.Errorf("replay stopped after %d packets: %w", n, ctx.Err())
		}
		p, err := r.capture.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r.watch != nil {
			if err := r.watch.before(p.Time); err != nil {
				return err
			}
		}
		v, err := r.judge(p.Frame, p.Time)
		if err != nil {
			return fmt.Errorf("%s: packet %d: %w", r.result.File, n+1, err)
		}
		if err := r.count(n, v, &p); err != nil {
			return err
		}
	}
}

// judge runs a frame. One too short for a test run (the kernel wants an Ethernet
// header) has no readable source: it is what the program calls it.
func (r *replay) judge(frame []byte, at time.Time) (dataplane.Verdict, error) {
	v, err := r.tester.Run(frame, time.Duration(at.UnixNano()))
	if errors.Is(err, dataplane.ErrFrame) && len(frame) < 14 {
		return r.tester.RunShort(frame), nil
	}
	return v, err
}

func (r *replay) count(n uint64, v dataplane.Verdict, p *capture.Packet) error {
	if n == 0 {
		r.first = p.Time
	}
	r.last = p.Time
	r.result.Packets++
	r.result.Bytes += uint64(p.Length)
	r.reasons[v.Reason]++
	verdict := "pass"
	switch v.Outcome {
	case traffic.Dropped:
		verdict = "drop"
		r.result.Dropped++
	case traffic.WouldDrop:
		r.result.WouldDrop++
		fallthrough
	default:
		r.result.Passed++
	}
	if r.csv == nil {
		return nil
	}
	l := strconv.AppendUint(r.line[:0], n, 10)
	l = append(l, ',')
	l = strconv.AppendFloat(l, p.Time.Sub(r.first).Seconds(), 'f', 9, 64)
	l = append(l, ',')
	l = append(append(l, verdict...), ',')
	l = append(append(l, v.Reason.String()...), '\n')
	r.line = l
	if _, err := r.csv.Write(l); err != nil {
		return fmt.Errorf("write verdicts: %w", err)
	}
	return nil
}

func (r *replay) addSignatures(rules []signature.Armed) error {
	if len(rules) == 0 {
		return nil
	}
	stats, err := r.tester.SignatureStats()
	if err != nil {
		return err
	}
	for _, s := range rules {
		st := stats[s.ID]
		r.result.Signatures = append(r.result.Signatures, ReplaySignature{
			Expression: s.Text, Action: s.Action.String(),
			Matched: st.Matched, Bytes: st.Bytes, Dropped: st.Dropped, WouldDrop: st.WouldDrop,
		})
	}
	return nil
}

func (r *replay) finish() ReplayResult {
	if d := r.last.Sub(r.first); d > 0 {
		r.result.Duration = d.Seconds()
	}
	for reason, n := range r.reasons {
		if n > 0 {
			r.result.Reasons[traffic.Reason(reason).String()] = n
		}
	}
	return r.result
}
