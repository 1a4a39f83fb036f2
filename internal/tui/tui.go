// SPDX-License-Identifier: Apache-2.0

// Package tui shows a running engine in a terminal: rates with their recent
// course, drops by reason, how clients fare, and what has happened. Where the
// output is no terminal it writes plain lines instead.
package tui

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
	"golang.org/x/term"
)

// Snapshot is what is shown at one moment.
type Snapshot struct {
	Elapsed time.Duration // since the start
	Phase   string        // what goes on, in a few words; empty: not shown
	Seen    float64       // packets a second
	Passed  float64
	Dropped float64
	Reasons []Reason // drops by reason, in the order to show them
	Clients *Clients // nil: there are none to measure
	Log     []string // every line so far, oldest first
}

// Reason is one reason for drops.
type Reason struct {
	Name    string
	Rate    float64 // packets a second now
	Packets uint64  // since the start
}

// Clients is how real clients fare, measured by them.
type Clients struct {
	Count    int
	Success  float64 // share of requests answered in time, 0 to 1
	P50, P99 time.Duration
}

// ErrQuit means that the user asked to end, with q or Ctrl-C.
var ErrQuit = errors.New("ended by the user")

// plainInterval is how often plain lines give the figures.
const plainInterval = 5 * time.Second

// Show draws the snapshots that come, until the channel is closed (nil), ctx ends
// (its error), or the user quits (ErrQuit). The terminal is then as it was before.
func Show(ctx context.Context, in io.Reader, out io.Writer, title string, snapshots <-chan Snapshot) error {
	if !isTerminal(in) || !isTerminal(out) {
		return showPlain(ctx, out, title, snapshots)
	}
	return showScreen(ctx, in, out, title, snapshots)
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

func showScreen(ctx context.Context, in io.Reader, out io.Writer, title string, snapshots <-chan Snapshot) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := newModel(title, lipgloss.NewRenderer(out))
	// Signals end ctx; the caller turns them into that.
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out),
		tea.WithAltScreen(), tea.WithoutSignalHandler())
	go func() {
		for s := range snapshots {
			p.Send(s)
		}
		p.Send(endMsg{})
	}()
	last, err := p.Run()
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if end, ok := last.(model); ok && end.quit {
		return ErrQuit
	}
	return nil
}
