// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/engine"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
	"github.com/sentinel-x/sentinel-x/internal/train"
)

// How many rounds are added to a base, and grown from nothing.
const (
	roundsMore = 10
	roundsAnew = 60
)

type trainFlags struct {
	model          modelFlags
	windows, pcaps []string
	targets        []string
	labels         bool
	out, base      string
	seed           uint32
	rounds, scenes int
}

// trainReport is what `train --json` prints.
type trainReport struct {
	From   []string `json:"from"`
	Base   string   `json:"base"`
	Live   string   `json:"live"`
	Passed bool     `json:"passed"`
	*train.Outcome
	File     string              `json:"file,omitempty"`     // that the trees were written to
	Imported *engine.ModelChange `json:"imported,omitempty"` // into the model directory
	Notes    []string            `json:"notes,omitempty"`
}

func (a *app) trainCommand() *cobra.Command {
	var f trainFlags
	c := f.model.add(a.jsonFlag(&cobra.Command{
		Use:   "train",
		Short: "Train the trees on your own traffic",
		Long: `Train the trees on windows of your own network, and on composed attacks, crowds and
calm traffic besides, so that what they know is not lost. Windows come from files of
"baseline capture" (--windows), from captures (--pcap), and from the incidents that you
have labelled (--labels). Of a capture without a label only the calm windows count;
FILE=attack, FILE=benign or FILE=KIND (docs/detection.md has the kinds) says what it
shows where it is above what is normal, and only that counts; of a capture too short to
tell what is normal, under a minute, everything does.

A quarter of your windows, whole minutes, captures and incidents, is kept for testing.
The candidate passes if it finds no less and raises no more false alarms than the live
trees, on those windows and on the built-in suite of composed scenes. Only then it
becomes the newest generation in the model directory; -o writes it all the same. There
is no flag to import one that does not pass: "model import" does that. The same windows
and seed give the same trees. It takes a minute or two.`,
		Example: `  sentinel-x train --windows calm.windows --model-dir /var/lib/sentinel-x/models
  sentinel-x train --windows calm.windows --pcap flood.pcap=udp_flood --pcap sale.pcap=benign -o trees.json
  sentinel-x train --labels --config /etc/sentinel-x/sentinel-x.yaml`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.train(cmd.Context(), &f) },
	}))
	c.Flags().StringSliceVar(&f.windows, "windows", nil, "files of windows")
	c.Flags().StringArrayVar(&f.pcaps, "pcap", nil, "capture, with its label: FILE, FILE=attack, FILE=benign or FILE=KIND; may be given again")
	c.Flags().StringSliceVar(&f.targets, "target", nil, "with --pcap: hosts or prefixes to watch (default where most packets go)")
	c.Flags().BoolVar(&f.labels, "labels", false, "the windows of labelled incidents that run keeps in the model directory")
	c.Flags().StringVarP(&f.out, "output", "o", "", "file to write the trees to")
	c.Flags().StringVar(&f.base, "base", "live", "trees to go on from: live (those of the model directory), default (those of the program), none, or a file")
	c.Flags().Uint32Var(&f.seed, "seed", 1, "of all that is drawn")
	c.Flags().IntVar(&f.rounds, "rounds", 0, fmt.Sprintf("trees to add for each class (default %d, without a base %d)", roundsMore, roundsAnew))
	c.Flags().IntVar(&f.scenes, "scenes", 1, "how many times composed scenes are drawn to learn from besides; 0: none")
	return c
}

func (a *app) train(ctx context.Context, f *trainFlags) error {
	if len(f.windows)+len(f.pcaps) == 0 && !f.labels {
		return usagef("nothing to learn from: give --windows, --pcap or --labels")
	}
	if f.rounds < 0 || f.scenes < 0 || f.scenes > 100 {
		return usagef("--rounds and --scenes are not negative, and there are at most 100 draws of scenes")
	}
	c, err := f.model.load()
	if err != nil {
		return err
	}
	o := train.RetrainOptions{Seed: uint64(f.seed), Rounds: f.rounds, Draws: f.scenes, Progress: a.say}
	var r trainReport
	if o.Live, r.Live, err = engine.LiveModel(c.ModelDir); err != nil {
		return err
	}
	if err := f.chooseBase(&o, &r); err != nil {
		return err
	}
	if err := a.gather(ctx, f, c.ModelDir, &o, &r); err != nil {
		return err
	}
	if r.Outcome, err = train.Retrain(ctx, o); err != nil {
		return err
	}
	r.Passed = r.Outcome.Passed()
	return a.deliver(f, c.ModelDir, &r)
}

func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.err, "sentinel-x: "+format+"\n", args...)
}

// chooseBase reads --base, and sets the rounds if they are not given.
func (f *trainFlags) chooseBase(o *train.RetrainOptions, r *trainReport) (err error) {
	switch f.base {
	case "live":
		o.Base, r.Base = o.Live, r.Live
	case "default":
		o.Base, r.Base, err = engine.LiveModel("")
	case "none":
		r.Base = "none"
	default:
		r.Base = f.base
		o.Base, err = engine.ReadModel(f.base)
	}
	switch {
	case f.rounds > 0:
	case f.base == "none":
		o.Rounds = roundsAnew
	default:
		o.Rounds = roundsMore
	}
	return err
}

// gather reads all windows.
func (a *app) gather(ctx context.Context, f *trainFlags, dir string, o *train.RetrainOptions, r *trainReport) error {
	cfg, err := loadConfig(f.model.config)
	if err != nil {
		return err
	}
	files := f.windows
	if f.labels {
		files = append(files, filepath.Join(cmp.Or(dir, cfg.StateDir), train.LabelledFile))
	}
	if o.Windows, err = train.ReadWindows(files...); err != nil {
		return err
	}
	r.From = append(r.From, files...)
	targets, err := prefixes("target", f.targets)
	if err != nil {
		return err
	}
	for _, text := range f.pcaps {
		file, label := captureLabel(text)
		a.say("reading %s", file)
		rows, s, err := engine.WindowsOf(ctx, engine.Capture{
			ReplayOptions: engine.ReplayOptions{File: file, Config: cfg, Targets: targets}, Label: label,
		})
		if err != nil {
			return err
		}
		o.Windows = append(o.Windows, rows...)
		r.From = append(r.From, text)
		for _, note := range s.Notes {
			r.Notes = append(r.Notes, file+": "+note)
		}
	}
	return nil
}

// captureLabel splits FILE=LABEL. What is behind the last = is a label if it is one.
func captureLabel(text string) (file, label string) {
	i := strings.LastIndexByte(text, '=')
	if i < 0 {
		return text, ""
	}
	label = text[i+1:]
	if _, kind := traffic.ParseKind(label); !kind && label != "attack" {
		return text, ""
	}
	return text[:i], label
}

// deliver writes the candidate to where it is wanted, and reports.
func (a *app) deliver(f *trainFlags, dir string, r *trainReport) error {
	if f.out != "" {
		if err := replaceFile(f.out, r.Trees.WriteJSON); err != nil {
			return fmt.Errorf("write the trees: %w", err)
		}
		r.File = f.out
	}
	if dir != "" && r.Passed {
		change, err := engine.SaveModel(dir, r.Trees)
		if err != nil {
			return err
		}
		r.Imported = &change
	}
	if err := a.print(r, func(w io.Writer) { writeTraining(w, r) }); err != nil || r.Passed {
		return err
	}
	return silentError{}
}

func writeTraining(w io.Writer, r *trainReport) {
	fmt.Fprintf(w, "from:   %s\nbase:   %s\nlive:   %s\n\n", strings.Join(r.From, ", "), r.Base, r.Live)
	t := newTable("WINDOWS", ">CALM", ">BENIGN", ">ATTACK", ">GROUPS", ">COMPOSED")
	n := func(n int) string { return grouped(uint64(n)) }
	l, k := r.Learnt, r.Tested
	t.row("learnt from", n(l.Calm), n(l.Benign), n(l.Attack), n(l.Groups), n(r.Composed))
	t.row("tested on", n(k.Calm), n(k.Benign), n(k.Attack), n(k.Groups), "–")
	t.write(w)
	if r.Unused > 0 {
		fmt.Fprintf(w, "not used: %s without a label\n", n(r.Unused))
	}
	fmt.Fprintln(w)
	t = newTable("", ">LIVE TREES", ">CANDIDATE")
	b, c := r.Before, r.After
	of := func(found, all int) string { return n(found) + " of " + n(all) }
	t.row("log-loss of your windows", fmt.Sprintf("%.4f", b.LogLoss), fmt.Sprintf("%.4f", c.LogLoss))
	t.row("your attack windows found", of(b.Found, k.Attack), of(c.Found, k.Attack))
	t.row("false alarms on your calm and benign windows", of(b.False, k.Calm+k.Benign), of(c.False, k.Calm+k.Benign))
	t.row("attacks of the suite found", of(b.Suite, b.SuiteAttacks), of(c.Suite, c.SuiteAttacks))
	t.row("false alarms in the suite", n(b.SuiteFalse), n(c.SuiteFalse))
	t.write(w)
	fmt.Fprintln(w)
	for _, note := range r.Notes {
		fmt.Fprintln(w, note)
	}
	if k.Groups == 0 {
		fmt.Fprintln(w, "your windows are of one minute or incident: none could be kept for testing")
	}
	writeTrained(w, r)
}

func writeTrained(w io.Writer, r *trainReport) {
	if r.Passed {
		fmt.Fprintln(w, "the candidate passed")
	} else {
		fmt.Fprintf(w, "the candidate did not pass: it is worse than the live trees in\n  %s\n", strings.Join(r.Objections, "\n  "))
	}
	if r.File != "" {
		fmt.Fprintf(w, "written to %s\n", r.File)
	}
	switch {
	case r.Imported != nil:
		fmt.Fprintf(w, "generation %d is live from the next start of run\n", r.Imported.Number)
	case !r.Passed && r.File == "":
		fmt.Fprintln(w, "nothing was written; with -o it is, and \"model import\" takes it if you know better")
	case r.File == "":
		fmt.Fprintln(w, "nothing was written: name a file with -o, or a directory with --model-dir")
	}
}
