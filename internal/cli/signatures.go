// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/api"
)

const signatureLong = `Signatures are rules on header fields and payload bytes of packets to one target. All
64 are evaluated at once; a packet that one drops ends with the reason signature.
docs/signatures.md describes the language. Sources on the allow list and in the
protected set are not asked.`

func (a *app) signatureCommand() *cobra.Command {
	c := &cobra.Command{Use: "signature", Aliases: []string{"sig"}, Short: "Drop or limit what packets look like", Long: signatureLong}
	c.AddCommand(a.signatureAddCommand(), a.signatureDelCommand(), a.signatureListCommand(),
		a.signatureFlushCommand(), a.signatureImportCommand(), a.signatureExportCommand())
	return c
}

// signatureFlags are the flags of add.
type signatureFlags struct {
	r                     api.SignatureRequest
	rate                  uint64
	ceiling, ttl, expires string
}

func (f *signatureFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.r.Target, "target", "", "destination host or prefix that is attacked")
	c.Flags().StringVar(&f.r.Action, "action", "", "what happens to packets that match: drop, limit or observe")
	c.Flags().Uint64Var(&f.rate, "rate", 0, "packets a second that limit lets pass, of all sources together")
	c.Flags().StringVar(&f.ttl, "ttl", "", "time until the rule ends, as 30s, 10m, 1h30m or 7d (default never)")
	c.Flags().StringVar(&f.expires, "expires", "", "when the rule ends, instead of --ttl, as 2030-01-31T15:04:05Z")
	c.Flags().StringVar(&f.ceiling, "ceiling", "100%", "share of its target's packets that it may drop in a second; above, it observes")
	c.Flags().StringVar(&f.r.Comment, "comment", "", "why the rule is there")
	c.Flags().BoolVar(&f.r.Force, "force", false, "arm also what has no target, matches all of it, or may match SSH to this host")
}

func (f *signatureFlags) request(cmd *cobra.Command, args []string) (r api.SignatureRequest, err error) {
	r = f.r
	r.Expression, r.Rate = strings.Join(args, " "), f.rate
	if _, err := api.ParseExpression(r.Expression, r.Target); err != nil {
		return r, withCaret(err)
	}
	if r.Ceiling, err = api.ParseCeiling(f.ceiling); err != nil {
		return r, err
	}
	if cmd.Flags().Changed("ttl") {
		if _, err := api.ParseTTL(f.ttl); err != nil {
			return r, err
		}
		r.TTL = f.ttl
	}
	if cmd.Flags().Changed("expires") {
		t, err := time.Parse(time.RFC3339, f.expires)
		if err != nil {
			return r, fmt.Errorf("--expires %q is not a time; write 2030-01-31T15:04:05Z", f.expires)
		}
		r.Expires = &t
	}
	switch r.Action {
	case "drop", "limit", "observe":
		return r, nil
	case "":
		return r, errors.New("say what happens to packets that match: --action drop, limit or observe")
	}
	return r, fmt.Errorf("--action %q is none of drop, limit and observe", r.Action)
}

func (a *app) signatureAddCommand() *cobra.Command {
	var f signatureFlags
	c := a.jsonFlag(&cobra.Command{
		Use:   "add EXPRESSION",
		Short: "Arm a rule, or change one that is armed",
		Long: `Arm a rule: packets to the target that match the expression are dropped, limited to a
rate, or only counted. The expression is tcpdump's, as far as it asks for header
fields (docs/signatures.md). One that does not fit the fields runs as a program of
its own, which costs more; at most 4 can. The same rule again changes action, rate,
ceiling, expiry and comment of the one that is armed.

Refused without --force: a rule without a target, one that matches every packet to
its target, and one that would drop or limit SSH (TCP port 22) to this host. Try a
rule with --action observe first, or on a capture with "replay --signature".`,
		Example: `  sentinel-x signature add 'udp and src port 53 and len > 512' --target 192.0.2.10 --action drop --ttl 10m
  sentinel-x signature add 'tcp[tcpflags] = tcp-syn and tcp[12] & 0xf0 = 0x50' --target 192.0.2.0/24 --action drop --ceiling 90%
  sentinel-x signature add 'udp dst port 27015' --target 192.0.2.10 --action limit --rate 5000 --comment "ticket 4711"`,
		Args:              args(1, -1),
		ValidArgsFunction: noComplete,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := f.request(cmd, args)
			if err != nil {
				return usageError{err}
			}
			s, err := a.client().AddSignature(cmd.Context(), r)
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { writeArmed(w, s, a.now()) })
		},
	})
	f.register(c)
	// The flag exists: this cannot fail.
	_ = c.RegisterFlagCompletionFunc("action", cobra.FixedCompletions([]string{"drop", "limit", "observe"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// withCaret shows where in an expression a mistake is.
func withCaret(err error) error {
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Syntax == nil {
		return err
	}
	return fmt.Errorf("%w\n  %s", err, strings.ReplaceAll(e.Syntax.Caret(), "\n", "\n  "))
}

func writeArmed(w io.Writer, s api.Signature, now time.Time) {
	fmt.Fprintf(w, "signature %d: %s, %s", s.ID, actionOf(s), expiryOf(s.Expires, now))
	if s.State == api.StateObserving && s.Action != "observe" {
		fmt.Fprint(w, "; dry run: it only observes")
	}
	fmt.Fprintln(w)
	if s.Filter {
		fmt.Fprintln(w, "it runs as a program of its own, as it does not fit the fields:", s.Note)
	}
}

func actionOf(s api.Signature) string {
	if s.Rate == 0 {
		return s.Action
	}
	return s.Action + " " + short(float64(s.Rate)) + "/s"
}

func expiryOf(expires *time.Time, now time.Time) string {
	if expires == nil {
		return "never ends"
	}
	return "ends in " + age(max(expires.Sub(now), 0).Round(time.Second))
}

func (a *app) signatureDelCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "del ID...",
		Aliases: []string{"delete", "remove", "rm"},
		Short:   "Disarm rules",
		Long: `Disarm rules by the IDs that "signature list" shows. The command fails if there is no
rule with one of them; the others are disarmed all the same.`,
		Example:           "  sentinel-x signature del 3 7",
		Args:              args(1, -1),
		ValidArgsFunction: a.completeSignatures,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids := make([]uint64, 0, len(args))
			for _, arg := range args {
				id, err := strconv.ParseUint(arg, 10, 64)
				if err != nil {
					return usagef("%q is not the ID of a signature; `signature list` shows them", arg)
				}
				ids = append(ids, id)
			}
			return a.deleteSignatures(cmd, ids)
		},
	})
}

func (a *app) deleteSignatures(cmd *cobra.Command, ids []uint64) error {
	var gone api.SignaturesDeleted
	var missing []error
	for _, id := range ids {
		err := a.client().DeleteSignature(cmd.Context(), id)
		if e, ok := errors.AsType[*api.Error](err); ok && e.Status == http.StatusNotFound {
			missing = append(missing, err)
			continue
		}
		if err != nil {
			return err
		}
		gone.Deleted++
	}
	return errors.Join(append([]error{a.printDisarmed(gone)}, missing...)...)
}

func (a *app) printDisarmed(d api.SignaturesDeleted) error {
	return a.print(d, func(w io.Writer) { fmt.Fprintf(w, "disarmed %s\n", plural(d.Deleted, "signature", "signatures")) })
}

// completeSignatures offers the IDs of the rules, each with its expression.
func (a *app) completeSignatures(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	rules, err := a.client().Signatures(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	words := make([]string, 0, len(rules))
	for _, s := range rules {
		words = append(words, cobra.CompletionWithDesc(strconv.FormatUint(s.ID, 10), s.Expression))
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) signatureListCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "list",
		Short: "List the rules and what they have done",
		Long: `List the rules, each with its expression on a line below. MATCHED counts the packets
since the engine armed the rule, DROPPED those it dropped, WOULD those it would have
dropped but for observe, dry run or its ceiling.`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rules, err := a.client().Signatures(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(rules, func(w io.Writer) { writeSignatures(w, rules, a.now()) })
		},
	})
}

// writeSignatures writes a table whose rows are followed by what would make them
// too wide for a terminal: expression, comment, and what is odd.
func writeSignatures(w io.Writer, rules []api.Signature, now time.Time) {
	if len(rules) == 0 {
		fmt.Fprintln(w, "no signatures")
		return
	}
	t := newTable(">ID", "ACTION", "TARGET", ">MATCHED", ">DROPPED", ">WOULD", "LAST SEEN", "EXPIRES")
	for _, s := range rules {
		seen, expires, target := "never", "never", "any"
		if s.LastSeen != nil {
			seen = age(max(now.Sub(*s.LastSeen), 0).Round(time.Second)) + " ago"
		}
		if s.Expires != nil {
			expires = "in " + age(max(s.Expires.Sub(now), 0).Round(time.Second))
		}
		if p, err := api.ParsePrefix(s.Target); err == nil {
			target = prefix(p)
		}
		t.row(strconv.FormatUint(s.ID, 10), actionOf(s), target,
			short(float64(s.Matched)), short(float64(s.Dropped)), short(float64(s.WouldDrop)), seen, expires)
	}
	var b strings.Builder
	t.write(&b)
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	fmt.Fprintln(w, lines[0])
	for i, s := range rules {
		fmt.Fprintln(w, lines[i+1])
		for _, more := range belowRow(s) {
			fmt.Fprintln(w, "    "+more)
		}
	}
}

func belowRow(s api.Signature) []string {
	expression := s.Expression
	if s.Comment != "" {
		expression += "  # " + s.Comment
	}
	lines := []string{expression}
	switch s.State {
	case api.StateOverCeiling:
		lines = append(lines, fmt.Sprintf("! ceiling of %v %% reached: above it, packets pass (%s so far)", 100*s.Ceiling, short(float64(s.OverCeiling))))
	case api.StateObserving:
		if s.Action != "observe" {
			lines = append(lines, "! dry run: it only observes")
		}
	case api.StateRefused:
		lines = append(lines, "! not in force: "+s.Note)
	}
	return lines
}

func (a *app) signatureFlushCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "flush",
		Short: "Disarm every rule",
		Args:  args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := a.client().FlushSignatures(cmd.Context())
			if err != nil {
				return err
			}
			return a.printDisarmed(api.SignaturesDeleted{Deleted: n})
		},
	})
}

const signatureFormat = `a line a rule, the arguments
of "signature add" quoted as in a shell; lines that begin with # are comments`

func (a *app) signatureImportCommand() *cobra.Command {
	var force bool
	c := a.jsonFlag(&cobra.Command{
		Use:   "import FILE",
		Short: "Arm the rules of a file",
		Long: `Arm the rules of a file, or of standard input if FILE is "-": ` + signatureFormat + `.
If a line is refused, nothing is armed.`,
		Example: "  sentinel-x signature import rules.txt",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, name := a.in, "standard input"
			if args[0] != "-" {
				opened, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer opened.Close()
				file, name = opened, args[0]
			}
			rules, err := a.client().ImportSignatures(cmd.Context(), file, force)
			if _, refused := errors.AsType[*api.Error](err); refused {
				return withCaret(fmt.Errorf("%s: %w", name, err))
			}
			if err != nil {
				return err
			}
			return a.print(rules, func(w io.Writer) { fmt.Fprintf(w, "armed %s\n", plural(len(rules), "signature", "signatures")) })
		},
	})
	c.Flags().BoolVar(&force, "force", false, "arm also what has no target, matches all of it, or may match SSH to this host")
	return c
}

func (a *app) signatureExportCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "export [FILE]",
		Short:   "Write the rules as a file that import reads",
		Long:    "Write the rules to a file, or to standard output without one: " + signatureFormat + ".",
		Example: "  sentinel-x signature export rules.txt",
		Args:    args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rules, err := a.client().Signatures(cmd.Context())
			if err != nil {
				return err
			}
			return a.into(args, func(a *app) error { return a.exportSignatures(rules) })
		},
	})
}

func (a *app) exportSignatures(rules []api.Signature) error {
	if a.json {
		return a.print(rules, nil)
	}
	if err := api.WriteSignatures(a.out, rules); err != nil {
		return fmt.Errorf("write the signatures: %w", err)
	}
	return nil
}
