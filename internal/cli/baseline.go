// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/sentinel-x/sentinel-x/internal/engine"
)

// progressTime is between two lines that tell of a capture.
const progressTime = 10 * time.Second

type captureFlags struct {
	out, pcap, config string
	targets           []string
	duration          time.Duration
	all               bool
}

func (a *app) baselineCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "baseline",
		Short: "Capture what is normal for your targets, to train with",
	}
	c.AddCommand(a.baselineCaptureCommand())
	return c
}

func (a *app) baselineCaptureCommand() *cobra.Command {
	var f captureFlags
	c := a.jsonFlag(&cobra.Command{
		Use:   "capture -o FILE",
		Short: "Write the calm windows of the targets to a file",
		Long: `Write what the running engine's detectors see of its targets to a file for "train": one
window a second of each target with traffic, and every one that is above what is normal
and yet calm to the detectors. A window is left out if the target has no baseline yet, a
detector objects to it, or one does within the next ten seconds. Ctrl-C ends it early
and keeps what there is.

With --pcap the windows are those of a capture, in its own time; no engine is needed,
but root, or the capabilities BPF, NET_ADMIN and PERFMON.`,
		Example: `  sentinel-x baseline capture --duration 1h -o calm.windows
  sentinel-x baseline capture --target 192.0.2.0/24 -o calm.windows
  sentinel-x baseline capture --pcap monday.pcap -o calm.windows`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.captureBaseline(cmd.Context(), &f) },
	})
	c.Flags().StringVarP(&f.out, "output", "o", "", "file of windows to write")
	c.Flags().DurationVar(&f.duration, "duration", 10*time.Minute, "for how long to watch the engine")
	c.Flags().StringSliceVar(&f.targets, "target", nil, "only targets within this host or prefix; with --pcap hosts or prefixes to watch (default where most packets go)")
	c.Flags().StringVar(&f.pcap, "pcap", "", "capture to take the windows from")
	c.Flags().StringVar(&f.config, "config", "", "with --pcap: configuration file")
	c.Flags().BoolVar(&f.all, "all", false, "also windows that are not calm, labelled attack in an incident, else unknown")
	return c
}

func (a *app) captureBaseline(ctx context.Context, f *captureFlags) error {
	targets, err := prefixes("target", f.targets)
	switch {
	case err != nil:
		return err
	case f.out == "":
		return usagef("no file to write: name one with -o")
	case f.pcap == "" && f.duration < time.Second:
		return usagef("--duration %v is under a second", f.duration)
	case f.pcap == "" && len(targets) > 1:
		return usagef("--target is one host or prefix, not %d", len(targets))
	case f.pcap == "" && f.config != "":
		return usagef("--config is of no use without --pcap: the engine has its own")
	}
	var s engine.CollectSummary
	err = replaceFile(f.out, func(w io.Writer) (err error) {
		s, err = a.collect(ctx, f, targets, w)
		return err
	})
	if err != nil {
		return err
	}
	if err := a.print(s, func(w io.Writer) { writeCollected(w, &s, f.out) }); err != nil || s.Broken == "" {
		return err
	}
	return errors.New(s.Broken)
}

func (a *app) collect(ctx context.Context, f *captureFlags, targets []netip.Prefix, w io.Writer) (engine.CollectSummary, error) {
	o := engine.CollectOptions{All: f.all, Duration: f.duration, Progress: a.captureProgress(f.duration)}
	if f.pcap == "" {
		if len(targets) == 1 {
			o.Target = targets[0]
		}
		return engine.CollectFromDaemon(ctx, a.client(), o, w)
	}
	cfg, err := loadConfig(f.config)
	if err != nil {
		return engine.CollectSummary{}, err
	}
	capture := engine.Capture{ReplayOptions: engine.ReplayOptions{File: f.pcap, Config: cfg, Targets: targets}}
	return engine.CollectFromCapture(ctx, capture, o, w)
}

// captureProgress tells now and then how far a capture is.
func (a *app) captureProgress(whole time.Duration) func(engine.CollectSummary) {
	next := progressTime
	return func(s engine.CollectSummary) {
		at := time.Duration(s.Seconds * float64(time.Second))
		if at < next {
			return
		}
		next = at.Truncate(progressTime) + progressTime
		fmt.Fprintf(a.err, "sentinel-x: %v of %v: %s windows of %d targets, %d left out\n",
			at.Round(time.Second), whole, grouped(uint64(s.Windows)), s.Targets, s.Suspicious+s.NoBaseline)
	}
}

func writeCollected(w io.Writer, s *engine.CollectSummary, out string) {
	fmt.Fprintf(w, "%s: %s windows of %s in %.0f s\n", out, grouped(uint64(s.Windows)), plural(s.Targets, "target", "targets"), s.Seconds)
	if n := len(s.Labels); n > 1 {
		for _, label := range []string{"calm", "attack", "unknown"} {
			fmt.Fprintf(w, "  %s: %s\n", label, grouped(uint64(s.Labels[label])))
		}
	}
	fmt.Fprintf(w, "left out: %s suspicious, %s without a baseline\n", grouped(uint64(s.Suspicious)), grouped(uint64(s.NoBaseline)))
	if s.Lost > 0 {
		fmt.Fprintf(w, "lost: %s, because this command was too slow\n", grouped(s.Lost))
	}
	for _, note := range s.Notes {
		fmt.Fprintln(w, note)
	}
}
