// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
	"github.com/google/go-cmp/cmp"
	"github.com/muesli/termenv"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := "testdata/" + name
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), run with -update to accept:\n%s", file, diff)
	}
}

// attack is a course of 30 seconds with a flood from second 10.
func attack() (all []Snapshot) {
	for i := range 30 {
		s := Snapshot{
			Elapsed: time.Duration(i) * time.Second, Phase: "normal traffic", Seen: 2300, Passed: 2300,
			Clients: &Clients{Count: 50, Success: 1, P50: 800 * time.Microsecond, P99: 12 * time.Millisecond},
			Log:     []string{"50 clients ask a web server"},
		}
		if i >= 10 {
			flood := float64(min(i-9, 8)) * 155_000
			s.Phase = "a flood of UDP from one source; the meter stops it"
			s.Seen, s.Dropped = s.Seen+flood, flood
			s.Reasons = []Reason{{"limit", flood, uint64(i-9) * 1_000_000}, {"blocklist", 120, 1200}, {"extension_headers", 0, 7}}
			s.Clients.Success = 0.9962
			s.Log = append(s.Log, "the flood begins: 1.2M packets/s from 10.66.0.66")
		}
		all = append(all, s)
	}
	return all
}

// screen returns what is seen after some messages, without colours.
func screen(width, height int, messages ...tea.Msg) (model, string) {
	r := lipgloss.NewRenderer(io.Discard)
	r.SetColorProfile(termenv.Ascii)
	var m tea.Model = newModel("demo on sx-victim, native", r)
	m, _ = m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	for _, msg := range messages {
		m, _ = m.Update(msg)
	}
	return m.(model), m.View()
}

func messages(all []Snapshot) (out []tea.Msg) {
	for _, s := range all {
		out = append(out, s)
	}
	return out
}

func TestView(t *testing.T) {
	course := attack()
	for _, tc := range []struct {
		name          string
		width, height int
		messages      []tea.Msg
	}{
		{"before", 80, 24, nil},
		{"normal", 80, 24, messages(course[:8])},
		{"attack", 80, 24, messages(course)},
		{"wide", 200, 50, messages(course)},
		{"small", 60, 14, messages(course)},
		{"tiny", 20, 3, messages(course)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, got := screen(tc.width, tc.height, tc.messages...)
			golden(t, tc.name+".txt", got+"\n")
			lines := strings.Split(got, "\n")
			if len(lines) > tc.height {
				t.Errorf("%d lines on a screen of %d", len(lines), tc.height)
			}
			for _, line := range lines {
				if w := lipgloss.Width(line); w > max(tc.width, minWidth) {
					t.Errorf("line of %d cells: %q", w, line)
				}
			}
		})
	}
}

func TestKeysThatQuit(t *testing.T) {
	for _, key := range []tea.KeyMsg{{Type: tea.KeyRunes, Runes: []rune("q")}, {Type: tea.KeyCtrlC}} {
		if m, _ := screen(80, 24, key); !m.quit {
			t.Errorf("%v does not quit", key)
		}
	}
	if m, _ := screen(80, 24, tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("x")}); m.quit {
		t.Error("x quits")
	}
}

func channel(all []Snapshot) <-chan Snapshot {
	c := make(chan Snapshot, len(all))
	for _, s := range all {
		c <- s
	}
	close(c)
	return c
}

func TestPlainLinesWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	if err := Show(t.Context(), strings.NewReader(""), &out, "demo on sx-victim, native", channel(attack())); err != nil {
		t.Fatal(err)
	}
	golden(t, "plain.txt", out.String())
	if strings.ContainsRune(out.String(), '\x1b') {
		t.Error("escape codes although nobody can see them")
	}
}

func TestPlainEndsWithContextAndOnWriteErrors(t *testing.T) {
	why := errors.New("the lab is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := Show(ctx, nil, io.Discard, "x", make(chan Snapshot)); !errors.Is(err, why) {
		t.Errorf("Show = %v", err)
	}
	r, w := io.Pipe()
	r.CloseWithError(errors.New("disk full"))
	if err := Show(t.Context(), nil, w, "x", channel(attack())); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("Show = %v", err)
	}
}

func TestScreenEnds(t *testing.T) {
	t.Run("with the last snapshot", func(t *testing.T) {
		in, _ := io.Pipe()
		var out bytes.Buffer
		if err := showScreen(t.Context(), in, &out, "x", channel(attack())); err != nil {
			t.Errorf("showScreen = %v", err)
		}
		if !strings.Contains(out.String(), "\x1b[?1049l") {
			t.Error("the alternate screen is not left")
		}
	})
	t.Run("with q", func(t *testing.T) {
		in, keys := io.Pipe()
		go fmt.Fprint(keys, "q")
		if err := showScreen(t.Context(), in, io.Discard, "x", make(chan Snapshot)); !errors.Is(err, ErrQuit) {
			t.Errorf("showScreen = %v", err)
		}
	})
	t.Run("with the context", func(t *testing.T) {
		in, _ := io.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := showScreen(ctx, in, io.Discard, "x", make(chan Snapshot)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("showScreen = %v", err)
		}
	})
}
