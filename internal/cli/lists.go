// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/api"
	"github.com/sentinel-x/sentinel-x/internal/atomicfile"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// listWords is what the commands of one list are called and say.
type listWords struct {
	list        traffic.List
	short, long string
	done        string // what adding an entry did, as "blocked"
}

var blockList = listWords{traffic.ListBlock, "Block sources", `The block list: packets from these sources are dropped, with the reason blocklist.
Entries of the allow list and the protected set win over it, whatever the prefix lengths.`, "blocked"}

var allowList = listWords{traffic.ListAllow, "Let sources pass", `The allow list: packets from these sources pass whatever the block list and the
policies say, with the reason allowlist. The rate limits, times limits.allowed_factor, still hold.`, "allowed"}

var protectedList = listWords{traffic.ListProtected, "Show the protected set", `The protected set: the host's own addresses, its gateways and resolvers, the peer of
the SSH session the engine was started from, and protect.addresses of the
configuration. A block that covers one of them is refused without --force.`, ""}

func (a *app) listCommand(l listWords) *cobra.Command {
	c := &cobra.Command{Use: l.list.String(), Short: l.short, Long: l.long}
	c.AddCommand(a.listListCommand(l))
	if l.list != traffic.ListProtected {
		c.AddCommand(a.listAddCommand(l), a.listDelCommand(l), a.listImportCommand(l), a.listExportCommand(l), a.listFlushCommand(l))
	}
	return c
}

// addFlags are the flags of add and import.
type addFlags struct {
	ttl, comment string
	o            api.AddOptions
}

func (f *addFlags) register(c *cobra.Command, l listWords) {
	if l.list == traffic.ListBlock {
		c.Flags().BoolVar(&f.o.Force, "force", false, "block also what covers a protected address")
	}
	c.Flags().BoolVar(&f.o.Skip, "skip-bad", false, "leave out entries that are refused, instead of refusing all")
}

func (a *app) listAddCommand(l listWords) *cobra.Command {
	var f addFlags
	c := a.jsonFlag(&cobra.Command{
		Use:   "add PREFIX...",
		Short: "Add hosts or prefixes, or change them",
		Long: `Add hosts or prefixes to the list. One that is there already gets the new expiry and
comment. If one is refused, none is added, unless --skip-bad is given.`,
		Example: fmt.Sprintf(`  sentinel-x %[1]s add 198.51.100.7
  sentinel-x %[1]s add 203.0.113.0/24 2001:db8:bad::/48 --ttl 1h --comment "ticket 4711"`, l.list),
		Args:              args(1, -1),
		ValidArgsFunction: noComplete,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.listAdd(cmd, l, f, args) },
	})
	c.Flags().StringVar(&f.ttl, "ttl", "", "time until the entries expire, as 30s, 10m, 1h30m or 7d (default never)")
	c.Flags().StringVar(&f.comment, "comment", "", "why the entries are there")
	f.register(c, l)
	return c
}

func (a *app) listAdd(cmd *cobra.Command, l listWords, f addFlags, args []string) error {
	var ttl time.Duration
	if cmd.Flags().Changed("ttl") {
		var err error
		if ttl, err = api.ParseTTL(f.ttl); err != nil {
			return usageError{err}
		}
	}
	entries := make([]api.NewEntry, 0, len(args))
	var bad []api.Refused
	for _, arg := range args {
		p, err := api.ParsePrefix(arg)
		switch {
		case err == nil:
			entries = append(entries, api.NewEntry{Prefix: p, TTL: ttl, Comment: f.comment})
		case f.o.Skip:
			bad = append(bad, api.Refused{Prefix: arg, Reason: err.Error()})
		default:
			return usageError{err}
		}
	}
	result := api.AddResult{Refused: []api.Refused{}}
	if len(entries) > 0 {
		var err error
		if result, err = a.client().AddEntries(cmd.Context(), l.list, entries, f.o); err != nil {
			return err
		}
	}
	result.Refused = append(bad, result.Refused...)
	return a.printAdded(l, result)
}

// printAdded says what was added. Entries that were skipped are listed, and do
// not make the command fail: --skip-bad asked for it.
func (a *app) printAdded(l listWords, r api.AddResult) error {
	for _, bad := range r.Refused {
		where := ""
		if bad.Line > 0 {
			where = fmt.Sprintf("line %d: ", bad.Line)
		}
		fmt.Fprintf(a.err, "sentinel-x: skipped: %s%s\n", where, bad.Reason)
	}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s", l.done, plural(r.Added, "new entry", "new entries"))
		for _, part := range []struct {
			n    int
			what string
		}{{r.Changed, "changed"}, {r.Removed, "removed"}, {len(r.Refused), "skipped"}} {
			if part.n > 0 {
				fmt.Fprintf(w, ", %s %s", grouped(uint64(part.n)), part.what)
			}
		}
		fmt.Fprintln(w)
	})
}

func (a *app) listDelCommand(l listWords) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "del PREFIX...",
		Aliases: []string{"delete", "remove", "rm"},
		Short:   "Remove hosts or prefixes",
		Long: `Remove entries from the list, written exactly as the list has them. The command
fails if one is not there; the others are removed all the same.`,
		Example:           fmt.Sprintf("  sentinel-x %s del 198.51.100.7 203.0.113.0/24", l.list),
		Args:              args(1, -1),
		ValidArgsFunction: a.completeEntries(l.list),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefixes := make([]netip.Prefix, 0, len(args))
			for _, arg := range args {
				p, err := api.ParsePrefix(arg)
				if err != nil {
					return usageError{err}
				}
				prefixes = append(prefixes, p)
			}
			r, err := a.client().DeleteEntries(cmd.Context(), l.list, prefixes)
			if err != nil {
				return err
			}
			return errors.Join(a.printDeleted(r), a.missing(cmd, l, r.Missing))
		},
	})
}

func (a *app) printDeleted(r api.DeleteResult) error {
	return a.print(r, func(w io.Writer) { fmt.Fprintf(w, "removed %s\n", plural(r.Deleted, "entry", "entries")) })
}

// missing says which prefixes were not on the list, and which entry covers them.
func (a *app) missing(cmd *cobra.Command, l listWords, missing []netip.Prefix) error {
	var all []error
	for _, p := range missing {
		covering, err := a.client().Entries(cmd.Context(), l.list, p.Addr())
		if err == nil && len(covering) > 0 {
			all = append(all, fmt.Errorf("%s is not on the %s list, but %s is", prefix(p), l.list, prefix(covering[0].Prefix)))
		} else {
			all = append(all, fmt.Errorf("%s is not on the %s list", prefix(p), l.list))
		}
	}
	return errors.Join(all...)
}

// completeEntries offers what is on a list, as far as the engine answers.
func (a *app) completeEntries(list traffic.List) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		entries, err := a.client().Entries(cmd.Context(), list, netip.Addr{})
		if err != nil || len(entries) > 1000 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		words := make([]string, 0, len(entries))
		for _, e := range entries {
			words = append(words, prefix(e.Prefix))
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

const hitsLong = `List the entries, or those that cover an address: who wants them (ORIGIN), why
(COMMENT), and what they have done. HITS are the packets that ended on an entry since
the engine started, LAST when the last of them was seen. Both are estimates from
sampled events, which ~ says; without them (events.per_second: 0) there are none.`

func (a *app) listListCommand(l listWords) *cobra.Command {
	c := a.jsonFlag(&cobra.Command{
		Use:   "list [ADDRESS]",
		Short: "List the entries, or those that cover an address",
		Example: fmt.Sprintf(`  sentinel-x %[1]s list
  sentinel-x %[1]s list 198.51.100.7`, l.list),
		Args:              args(0, 1),
		ValidArgsFunction: noComplete,
		RunE: func(cmd *cobra.Command, args []string) error {
			var containing netip.Addr
			if len(args) == 1 {
				var err error
				if containing, err = netip.ParseAddr(args[0]); err != nil {
					return usagef("%q is not an address; write 192.0.2.7 or 2001:db8::7", args[0])
				}
			}
			entries, err := a.client().Entries(cmd.Context(), l.list, containing)
			if err != nil {
				return err
			}
			if a.json {
				return a.print(entries, nil)
			}
			return a.write(func(w io.Writer) { writeEntries(w, entries, a.now(), l.list != traffic.ListProtected) })
		},
	})
	if l.list != traffic.ListProtected {
		c.Long = hitsLong
	}
	return c
}

func writeEntries(w io.Writer, entries []api.Entry, now time.Time, withHits bool) {
	t := newTable("PREFIX", "EXPIRES", "ORIGIN", "COMMENT")
	if withHits {
		t = newTable("PREFIX", "EXPIRES", ">HITS", "LAST", "ORIGIN", "COMMENT")
	}
	for _, e := range entries {
		expires := "never"
		if e.Expires != nil {
			expires = "in " + age(max(e.Expires.Sub(now), 0).Round(time.Second))
		}
		origin := e.Origin
		if e.Forced {
			origin += ", forced"
		}
		if hits, last := hitsOf(e, now); withHits {
			t.row(prefix(e.Prefix), expires, hits, last, origin, e.Comment)
		} else {
			t.row(prefix(e.Prefix), expires, origin, e.Comment)
		}
	}
	if len(entries) == 0 {
		fmt.Fprintln(w, "no entries")
	}
	t.write(w)
}

// hitsOf writes what an entry has done; ~ marks an estimate.
func hitsOf(e api.Entry, now time.Time) (hits, last string) {
	if e.Hits == 0 {
		return "-", "-"
	}
	hits, last = short(float64(e.Hits)), "-"
	if e.HitsSampled {
		hits = "~" + hits
	}
	if e.LastHit != nil {
		last = age(max(now.Sub(*e.LastHit), 0).Round(time.Second)) + " ago"
	}
	return hits, last
}

const listFormat = `one host or prefix a line, then as wanted ttl=DURATION or expires=TIME
(RFC 3339), then as wanted # and a comment`

func (a *app) listImportCommand(l listWords) *cobra.Command {
	var f addFlags
	c := a.jsonFlag(&cobra.Command{
		Use:   "import FILE",
		Short: "Add the entries of a file",
		Long: `Add the entries of a file, or of standard input if FILE is "-": ` + listFormat + `.
If a line is refused, nothing is added, unless --skip-bad is given.`,
		Example: fmt.Sprintf(`  sentinel-x %[1]s import drop.txt
  curl -fsS https://example.com/drop.txt | sentinel-x %[1]s import --replace --skip-bad -`, l.list),
		Args: args(1, 1),
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
			r, err := a.client().Import(cmd.Context(), l.list, file, f.o)
			if _, refused := errors.AsType[*api.Error](err); refused {
				return fmt.Errorf("%s: %w", name, err)
			}
			if err != nil {
				return err
			}
			return a.printAdded(l, r)
		},
	})
	f.register(c, l)
	c.Flags().BoolVar(&f.o.Replace, "replace", false, "put these in the place of what operators added before, in one step")
	return c
}

func (a *app) listExportCommand(l listWords) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "export [FILE]",
		Short:   "Write the entries as a file that import reads",
		Long:    "Write the entries to a file, or to standard output without one: " + listFormat + ".",
		Example: fmt.Sprintf("  sentinel-x %[1]s export %[1]s.txt", l.list),
		Args:    args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			entries, err := a.client().Entries(cmd.Context(), l.list, netip.Addr{})
			if err != nil {
				return err
			}
			return a.into(args, func(a *app) error { return a.export(entries) })
		},
	})
}

func (a *app) export(entries []api.Entry) error {
	if a.json {
		return a.print(entries, nil)
	}
	if err := api.WriteList(a.out, entries); err != nil {
		return fmt.Errorf("write the list: %w", err)
	}
	return nil
}

// into has write's output go to the file that args names, or to standard output without one.
func (a *app) into(args []string, write func(*app) error) error {
	if len(args) == 0 {
		return write(a)
	}
	return replaceFile(args[0], func(w io.Writer) error {
		b := *a
		b.out = w
		return write(&b)
	})
}

// replaceFile writes a file whole or not at all. What is no regular file, as
// /dev/stdout or a pipe, is written as it is.
func replaceFile(name string, write func(io.Writer) error) error {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	return atomicfile.Write(name, 0o644, write)
}

func (a *app) listFlushCommand(l listWords) *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "flush",
		Short: "Remove every entry",
		Args:  args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.client().FlushEntries(cmd.Context(), l.list)
			if err != nil {
				return err
			}
			return a.printDeleted(r)
		},
	})
}
