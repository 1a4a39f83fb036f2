// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/signature"
)

type replayFlags struct {
	config, verdicts string
	block, allow     []string
	signatures       []string
	targets          []string
	action           string
	noDetect         bool
	verifierLog      bool
}

func (a *app) replayCommand() *cobra.Command {
	var f replayFlags
	c := a.jsonFlag(&cobra.Command{
		Use:   "replay FILE",
		Short: "Judge every packet of a capture",
		Long: `Run every packet of a capture (pcap or pcapng) through the real XDP program, in the
capture's own time, and say what would have become of it. Nothing is attached to an
interface. The lists, limits and policies are those of --config, --block and --allow,
the signatures those of --signature.
Packets that the capture holds only the beginning of (snap length) are judged as they
are there, so most count as truncated; the bytes reported are those on the wire.

The capture is watched for attacks too, with the detectors and models of run: what was
found, when it began and when it was seen, of what kind, and why. The targets are those
of --target, else protect.targets of --config, else the destinations that most packets
go to. Timestamps that step back or jump are bridged, and the answer says so. In a
capture of under a minute no target has a baseline: then only absolute signs count.

It takes root, or the capabilities BPF, NET_ADMIN and PERFMON.`,
		Example: `  sentinel-x replay attack.pcap --block 198.51.100.0/24,2001:db8:bad::/48
  sentinel-x replay attack.pcapng --config sentinel-x.yaml --json
  sentinel-x replay attack.pcap --signature 'udp and src port 53' --signature 'frag later' --action observe
  sentinel-x replay attack.pcap --target 192.0.2.10
  sentinel-x replay attack.pcap --verdicts verdicts.csv --no-detect`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.replay(cmd, args[0], f) },
	})
	c.Flags().StringVar(&f.config, "config", "", "configuration file with lists, limits and policies")
	c.Flags().StringSliceVar(&f.block, "block", nil, "hosts or prefixes to block")
	c.Flags().StringSliceVar(&f.allow, "allow", nil, "hosts or prefixes to allow")
	c.Flags().StringArrayVar(&f.signatures, "signature", nil, "expression of a rule to arm; may be given again")
	c.Flags().StringSliceVar(&f.targets, "target", nil, "destination hosts or prefixes to watch for attacks; the rules are about the one, if there is one (default where most packets go, rules about any)")
	c.Flags().BoolVar(&f.noDetect, "no-detect", false, "do not watch for attacks")
	c.Flags().StringVar(&f.action, "action", "drop", "what the rules do: drop or observe")
	c.Flags().StringVar(&f.verdicts, "verdicts", "", "write index,time_s,verdict,reason of every packet to this CSV file")
	c.Flags().BoolVar(&f.verifierLog, "verifier-log", false, "if the kernel refuses the program, print all it says")
	// The flag exists: this cannot fail.
	_ = c.RegisterFlagCompletionFunc("action", cobra.FixedCompletions([]string{"drop", "observe"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) replay(cmd *cobra.Command, file string, f replayFlags) error {
	o := engine.ReplayOptions{File: file, VerifierLog: f.verifierLog, NoDetect: f.noDetect}
	var err error
	if o.Block, err = prefixes("block", f.block); err != nil {
		return err
	}
	if o.Allow, err = prefixes("allow", f.allow); err != nil {
		return err
	}
	if o.Targets, err = prefixes("target", f.targets); err != nil {
		return err
	}
	if o.Signatures, err = f.rules(); err != nil {
		return err
	}
	if o.Config, err = loadConfig(f.config); err != nil {
		return err
	}
	a.notices(o.Config)
	var result engine.ReplayResult
	run := func() (err error) {
		result, err = engine.Replay(cmd.Context(), o)
		return err
	}
	if f.verdicts == "" {
		err = run()
	} else {
		err = replaceFile(f.verdicts, func(w io.Writer) error { o.Verdicts = w; return run() })
	}
	if err != nil {
		return err
	}
	return a.print(result, func(w io.Writer) { writeReplay(w, result, o.Config) })
}

// rules reads --signature, --target and --action.
func (f replayFlags) rules() ([]signature.Armed, error) {
	action, ok := signature.ParseAction(f.action)
	if !ok || action == signature.Limit {
		return nil, usagef("--action %q is neither drop nor observe", f.action)
	}
	target := ""
	switch {
	case len(f.targets) == 1:
		target = f.targets[0]
	case len(f.targets) > 1 && len(f.signatures) > 0:
		return nil, usagef("--signature is about one --target or any, not %d", len(f.targets))
	}
	var rules []signature.Armed
	for _, text := range f.signatures {
		rule, err := api.ParseExpression(text, target)
		if err != nil {
			return nil, usageError{withCaret(err)}
		}
		rules = append(rules, signature.Armed{Text: text, Rule: rule, Action: action})
	}
	return rules, nil
}

// prefixes reads the values of a flag.
func prefixes(flag string, texts []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		p, err := config.ParsePrefix(text)
		if err != nil {
			return nil, usagef("--%s: %w", flag, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func writeReplay(w io.Writer, r engine.ReplayResult, cfg config.Config) {
	fmt.Fprintf(w, "%s: %s packets, %s, %.3f s\n\n", r.File, grouped(r.Packets), size(r.Bytes), r.Duration)
	t := newTable("OUTCOME", ">PACKETS", ">SHARE")
	t.row("passed", grouped(r.Passed), percent(r.Passed, r.Packets))
	t.row("dropped", grouped(r.Dropped), percent(r.Dropped, r.Packets))
	if cfg.DryRun {
		t.row("would drop", grouped(r.WouldDrop), percent(r.WouldDrop, r.Packets))
	}
	t.write(w)
	fmt.Fprintln(w)
	t = newTable("REASON", ">PACKETS", ">SHARE")
	names := make([]string, 0, len(r.Reasons))
	for name := range r.Reasons {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Reasons[b], r.Reasons[a]), cmp.Compare(a, b))
	})
	for _, name := range names {
		t.row(name, grouped(r.Reasons[name]), percent(r.Reasons[name], r.Packets))
	}
	t.write(w)
	writeReplaySignatures(w, r)
	writeReplayDetection(w, r)
}

func writeReplaySignatures(w io.Writer, r engine.ReplayResult) {
	if len(r.Signatures) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := newTable(">MATCHED", ">SHARE", ">DROPPED", "SIGNATURE")
	for _, s := range r.Signatures {
		t.row(grouped(s.Matched), percent(s.Matched, r.Packets), grouped(s.Dropped), s.Expression)
	}
	t.write(w)
}
