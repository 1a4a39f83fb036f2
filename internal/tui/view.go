// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
)

const (
	minWidth, maxWidth = 60, 100
	labelWidth         = 20 // of reasons and rates
	valueWidth         = 8
	history            = maxWidth // rates kept for the sparklines
)

// endMsg says that no snapshot will follow.
type endMsg struct{}

// model is the state of the screen.
type model struct {
	title                 string
	style                 styles
	width, height         int
	now                   Snapshot
	seen, passed, dropped []float64 // recent rates, newest last
	served                []float64 // recent shares of requests
	quit                  bool
}

type styles struct {
	title, dim, seen, passed, dropped, warn, heading lipgloss.Style
}

func newModel(title string, r *lipgloss.Renderer) model {
	color := func(light, dark string) lipgloss.Style {
		return r.NewStyle().Foreground(lipgloss.AdaptiveColor{Light: light, Dark: dark})
	}
	return model{title: title, width: 80, height: 24, style: styles{
		title: r.NewStyle().Bold(true), heading: r.NewStyle().Bold(true),
		dim: color("243", "245"), seen: color("25", "75"), passed: color("28", "78"),
		dropped: color("160", "203"), warn: color("130", "214"),
	}}
}

// Init implements tea.Model.
func (m model) Init() tea.Cmd { return nil }

// Update implements tea.Model.
func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.KeyMsg:
		if key := msg.String(); key == "q" || key == "ctrl+c" {
			m.quit = true
			return m, tea.Quit
		}
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case Snapshot:
		m.now = msg
		m.seen = remember(m.seen, msg.Seen)
		m.passed = remember(m.passed, msg.Passed)
		m.dropped = remember(m.dropped, msg.Dropped)
		if msg.Clients != nil {
			m.served = remember(m.served, msg.Clients.Success)
		}
	case endMsg:
		return m, tea.Quit
	}
	return m, nil
}

func remember(rates []float64, rate float64) []float64 {
	rates = append(rates, rate)
	return rates[max(0, len(rates)-history):]
}

// View implements tea.Model.
func (m model) View() string {
	w := min(max(m.width, minWidth), maxWidth)
	top := []string{m.header(w), m.phase(w), ""}
	top = append(top, m.rates(w)...)
	top = append(top, "")
	if m.now.Clients != nil {
		top = append(append(top, m.clients(w)...), "")
	}
	top = append(top, m.reasons(w)...)
	foot := m.style.dim.Render("q quits")
	if room := m.height - len(top) - 3; room > 0 && len(m.now.Log) > 0 {
		top = append(top, "")
		for _, line := range m.now.Log[max(0, len(m.now.Log)-room):] {
			top = append(top, m.style.dim.Render(cut(line, w)))
		}
	}
	for len(top) < m.height-1 {
		top = append(top, "")
	}
	return strings.Join(append(top[:min(len(top), max(m.height-1, 1))], foot), "\n")
}

func (m model) header(w int) string {
	left, right := "Sentinel-X  "+m.title, clock(m.now.Elapsed)
	left = cut(left, w-len(right)-1)
	return m.style.title.Render(left) + strings.Repeat(" ", w-lipgloss.Width(left)-len(right)) + m.style.dim.Render(right)
}

func (m model) phase(w int) string {
	if m.now.Phase == "" {
		return m.style.dim.Render(strings.Repeat("─", w))
	}
	text := cut(m.now.Phase, w-4)
	return m.style.dim.Render("── ") + m.style.heading.Render(text) + m.style.dim.Render(" "+strings.Repeat("─", max(0, w-4-lipgloss.Width(text))))
}

func (m model) rates(w int) []string {
	top := 1.0
	for _, rates := range [][]float64{m.seen, m.passed, m.dropped} {
		for _, r := range rates {
			top = max(top, r)
		}
	}
	line := func(name string, rates []float64, s lipgloss.Style) string {
		now := 0.0
		if len(rates) > 0 {
			now = rates[len(rates)-1]
		}
		return fmt.Sprintf("%-*s%*s  %s", labelWidth, name, valueWidth, short(now), s.Render(sparkline(rates, top, w-labelWidth-valueWidth-2)))
	}
	return []string{
		m.style.heading.Render("packets a second"),
		line("  seen", m.seen, m.style.seen),
		line("  passed", m.passed, m.style.passed),
		line("  dropped", m.dropped, m.style.dropped),
	}
}

func (m model) reasons(w int) []string {
	lines := []string{m.style.heading.Render("dropped, by reason") + m.style.dim.Render("  (a second, in all)")}
	top := 1.0
	for _, r := range m.now.Reasons {
		top = max(top, r.Rate)
	}
	for _, r := range m.now.Reasons {
		bar := bar(r.Rate/top, w-labelWidth-2*valueWidth-3)
		lines = append(lines, fmt.Sprintf("%-*s%*s %*s  %s", labelWidth, "  "+cut(r.Name, labelWidth-3), valueWidth, short(r.Rate),
			valueWidth, short(float64(r.Packets)), m.style.dropped.Render(bar)))
	}
	if len(m.now.Reasons) == 0 {
		lines = append(lines, m.style.dim.Render("  nothing yet"))
	}
	return lines
}

func (m model) clients(w int) []string {
	c := m.now.Clients
	style := m.style.passed
	switch {
	case c.Success < 0.95:
		style = m.style.dropped
	case c.Success < 0.999:
		style = m.style.warn
	}
	lines := []string{
		m.style.heading.Render(fmt.Sprintf("%d clients", c.Count)),
		fmt.Sprintf("%-*s%*s  %s", labelWidth, "  served", valueWidth, fmt.Sprintf("%.2f %%", 100*c.Success),
			style.Render(sparkline(m.served, 1, w-labelWidth-valueWidth-2))),
	}
	if c.P50 > 0 {
		lines = append(lines, fmt.Sprintf("%-*s%*s  (median; p99 %s)", labelWidth, "  latency", valueWidth, milliseconds(c.P50), milliseconds(c.P99)))
	}
	return lines
}

var ticks = []rune("▁▂▃▄▅▆▇█")

// sparkline draws the newest rates, width of them; the full height is top. Zero
// is blank, and the least above zero shows.
func sparkline(rates []float64, top float64, width int) string {
	rates = rates[max(0, len(rates)-width):]
	out := []rune(strings.Repeat(" ", width-len(rates)))
	for _, r := range rates {
		level := int(r / top * float64(len(ticks)))
		if r <= 0 {
			out = append(out, ' ')
			continue
		}
		out = append(out, ticks[min(level, len(ticks)-1)])
	}
	return string(out)
}

var eighths = []rune(" ▏▎▍▌▋▊▉")

// bar draws a share of width, in eighths of a cell.
func bar(share float64, width int) string {
	n := int(share*float64(width*8) + 0.5)
	if share > 0 {
		n = max(n, 1)
	}
	text := strings.Repeat("█", n/8)
	if n%8 > 0 {
		text += string(eighths[n%8])
	}
	return text
}

// cut shortens a line to width cells.
func cut(s string, width int) string {
	if lipgloss.Width(s) <= width {
		return s
	}
	r := []rune(s)
	return string(r[:max(0, min(len(r), width-1))]) + "…"
}

func clock(d time.Duration) string {
	d = d.Round(time.Second)
	return fmt.Sprintf("%02d:%02d", d/time.Minute, d%time.Minute/time.Second)
}

func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 10 {
		return fmt.Sprintf("%.2f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// short writes a number with three digits and a decimal prefix: 1.23M.
func short(n float64) string {
	for _, unit := range []struct {
		factor float64
		suffix string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if n >= unit.factor*0.9995 {
			return digits(n/unit.factor) + unit.suffix
		}
	}
	return fmt.Sprintf("%.0f", n)
}

func digits(n float64) string {
	switch {
	case n >= 99.95:
		return fmt.Sprintf("%.0f", n)
	case n >= 9.995:
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.2f", n)
}
