// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/engine"
)

// runFlags are the flags of run. Those that were given override the file.
type runFlags struct {
	config                                 string
	interfaces                             []string
	mode, pinPath, stateDir, rateLimit     string
	modelDir, logFile, logLevel, logFormat string
	onExit                                 string
	dryRun, replace, pin, noPin            bool
	statsInterval, window                  time.Duration
	threshold                              float64
	verifierLog                            bool
}

const runLong = `Filter on one or more interfaces until SIGINT or SIGTERM, then detach and print what
happened. Flags override the configuration file; SIGHUP and "sentinel-x reload" read
the file again and apply it whole or not at all.

It takes root, or the capabilities BPF, NET_ADMIN and PERFMON. If the process dies,
an unpinned program goes with it; a pinned one keeps filtering until the next start
takes over, or "sentinel-x detach" removes it.`

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run",
		Short: "Filter on one or more interfaces",
		Long:  runLong,
		Example: `  sentinel-x run --interface eth0
  sentinel-x run -i eth0,eth1 --rate-limit 10k --dry-run
  sentinel-x run --config /etc/sentinel-x/sentinel-x.yaml`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.run(cmd, &f) },
	}
	f.register(c)
	return c
}

func (f *runFlags) register(c *cobra.Command) {
	s, d := c.Flags(), config.Default()
	s.SortFlags = false
	s.StringSliceVarP(&f.interfaces, "interface", "i", nil, "interfaces to filter on")
	s.StringVar(&f.config, "config", "", "configuration file")
	s.StringVar(&f.mode, "mode", string(d.Mode), "how to attach: auto, native, generic, offload")
	s.BoolVar(&f.dryRun, "dry-run", false, "judge and count, but drop nothing")
	s.BoolVar(&f.replace, "replace", false, "replace another XDP program on the interface")
	s.StringVar(&f.rateLimit, "rate-limit", "0", "packets a second that one source may send, as 5000 or 5k; 0: no limit")
	s.BoolVar(&f.pin, "pin", d.Pin.Enabled, "pin program and maps, so that they outlive the process")
	s.BoolVar(&f.noPin, "no-pin", false, "pin nothing: if the process dies, nothing is filtered")
	s.StringVar(&f.pinPath, "pin-path", d.Pin.Path, "directory of the pins")
	s.StringVar(&f.onExit, "on-exit", string(d.OnExit), "what a clean stop does with the program: detach, keep")
	s.StringVar(&f.stateDir, "state-dir", d.StateDir, "directory of the journal that keeps list entries")
	s.DurationVar(&f.statsInterval, "stats-interval", d.StatsInterval.Duration, "time between summary lines in the log; 0s: none")
	s.StringVar(&f.logFile, "log-file", "", "file to log to (default standard error)")
	s.StringVar(&f.logLevel, "log-level", string(d.Log.Level), "debug, info, warn, error")
	s.StringVar(&f.logFormat, "log-format", string(d.Log.Format), "text, json")
	s.BoolVar(&f.verifierLog, "verifier-log", false, "if the kernel refuses the program, print all it says")
	s.DurationVar(&f.window, "window", d.Detect.Window.Duration, "how long the detectors look before they alarm")
	s.Float64Var(&f.threshold, "threshold", d.Detect.Threshold, "probability of an attack above which the trees are sure")
	s.StringVar(&f.modelDir, "model-dir", "", "directory of the models")
	// The names these flags had in the Python prototype.
	s.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if now, ok := map[string]string{"dev": "interface", "pin-maps": "pin"}[name]; ok {
			name = now
		}
		return pflag.NormalizedName(name)
	})
	for flag, words := range map[string][]string{
		"mode": {"auto", "native", "generic", "offload"}, "on-exit": {"detach", "keep"},
		"log-level": {"debug", "info", "warn", "error"}, "log-format": {"text", "json"},
	} {
		completeWords(c, flag, words)
	}
	completeInterfaces(c)
}

// completeInterfaces offers the interfaces of this machine for --interface.
func completeInterfaces(c *cobra.Command) {
	err := c.RegisterFlagCompletionFunc("interface", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		all, err := net.Interfaces()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, i := range all {
			if i.Flags&net.FlagLoopback == 0 {
				names = append(names, i.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag is registered by the caller
	}
}

// apply puts the flags that were given over a configuration, and checks the whole.
func (f *runFlags) apply(flags *pflag.FlagSet, socket string, cfg config.Config) (config.Config, error) {
	given := flags.Changed
	mode, notice, modeErr := config.ParseMode(f.mode)
	limit, limitErr := config.ParseCount(f.rateLimit)
	for flag, err := range map[string]error{"mode": modeErr, "rate-limit": limitErr} {
		if err != nil {
			return cfg, usagef("--%s: %w", flag, err)
		}
	}
	if given("pin") && given("no-pin") {
		return cfg, usagef("--pin and --no-pin contradict each other; give one")
	}
	set := map[string]func(){
		"interface":      func() { cfg.Interfaces = f.interfaces },
		"mode":           func() { cfg.Mode = mode },
		"dry-run":        func() { cfg.DryRun = f.dryRun },
		"replace":        func() { cfg.Replace = f.replace },
		"rate-limit":     func() { cfg.Limits.PerSource.All.Packets = limit },
		"pin":            func() { cfg.Pin.Enabled = f.pin },
		"no-pin":         func() { cfg.Pin.Enabled = !f.noPin },
		"pin-path":       func() { cfg.Pin.Path = f.pinPath },
		"on-exit":        func() { cfg.OnExit = config.OnExit(f.onExit) },
		"state-dir":      func() { cfg.StateDir = f.stateDir },
		"socket":         func() { cfg.Socket = socket },
		"stats-interval": func() { cfg.StatsInterval.Duration = f.statsInterval },
		"log-file":       func() { cfg.Log.File = f.logFile },
		"log-level":      func() { cfg.Log.Level = config.LogLevel(f.logLevel) },
		"log-format":     func() { cfg.Log.Format = config.LogFormat(f.logFormat) },
		"window":         func() { cfg.Detect.Window.Duration = f.window },
		"threshold":      func() { cfg.Detect.Threshold = f.threshold },
		"model-dir":      func() { cfg.Detect.ModelDir = f.modelDir },
	}
	for flag, do := range set {
		if given(flag) {
			do()
		}
	}
	if given("mode") && notice != "" {
		cfg.Outdated = append(cfg.Outdated, "--mode: "+notice)
	}
	if len(cfg.Interfaces) == 0 {
		return cfg, usagef("no interface to filter on: give --interface, or interfaces in the configuration file")
	}
	return cfg, cfg.Validate()
}

// load reads the configuration file, if there is one, and applies the flags.
func (f *runFlags) load(flags *pflag.FlagSet, socket string) (config.Config, error) {
	cfg, err := loadConfig(f.config)
	if err != nil {
		return cfg, err
	}
	return f.apply(flags, socket, cfg)
}

// loadConfig reads a file; without one it returns the defaults.
func loadConfig(file string) (config.Config, error) {
	if file == "" {
		return config.Default(), nil
	}
	return config.Load(file)
}

func (a *app) run(cmd *cobra.Command, f *runFlags) (err error) {
	load := func() (config.Config, error) { return f.load(cmd.Flags(), a.socket) }
	cfg, err := load()
	if err != nil {
		return err
	}
	log, level, closeLog, err := newLog(cfg.Log, a.err)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	for _, notice := range cfg.Notices() {
		log.Warn(notice)
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	return engine.Run(cmd.Context(), cfg, engine.Options{
		Log: log, LogLevel: level, Version: version(),
		ConfigPath: f.config, LoadConfig: load, Reload: reloads(cmd.Context(), hup),
		VerifierLog: f.verifierLog, Summary: a.out,
	})
}

// reloads turns signals into requests to reload. Signals that come while one is
// pending are one.
func reloads(ctx context.Context, hup <-chan os.Signal) <-chan struct{} {
	out := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}

// newLog returns the log that a configuration asks for, its level, and what
// closes it at the end.
func newLog(c config.Log, w io.Writer) (log *slog.Logger, level *slog.LevelVar, closeLog func() error, err error) {
	closeLog = func() error { return nil }
	level = &slog.LevelVar{}
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, nil, nil, fmt.Errorf("log.level: %w", err)
	}
	if c.File != "" {
		file := &lumberjack.Logger{Filename: c.File, MaxSize: int(c.MaxSizeMB), MaxBackups: int(c.MaxFiles)}
		// Opens the file now, while somebody reads the error.
		if _, err := file.Write(nil); err != nil {
			return nil, nil, nil, fmt.Errorf("open the log file: %w; choose another with --log-file", err)
		}
		w, closeLog = file, file.Close
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), level, closeLog, nil
	}
	return slog.New(slog.NewTextHandler(w, o)), level, closeLog, nil
}
