// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Colours that stay apart for the colour-blind, too (Okabe and Ito).
var (
	white     = color.RGBA{255, 255, 255, 255}
	ink       = color.RGBA{33, 37, 41, 255}
	pale      = color.RGBA{108, 117, 125, 255}
	grid      = color.RGBA{222, 226, 230, 255}
	blue      = color.RGBA{0, 114, 178, 255}
	sky       = color.RGBA{86, 180, 233, 255}
	vermilion = color.RGBA{213, 94, 0, 255}
	orange    = color.RGBA{230, 159, 0, 255}
	grey      = color.RGBA{173, 181, 189, 255}
)

// chart is a title over panels side by side, each of them with axes of its own.
type chart struct {
	title, subtitle string
	legend          []legendEntry
	height          float64 // of the panels
	panels          []panel
}

type legendEntry struct {
	text   string
	paint  color.RGBA
	hollow bool
}

type panel interface {
	width() float64
	draw(c canvas, x, y, height float64)
}

const (
	chartMargin  = 24
	chartHead    = 92 // title, subtitle, legend
	chartFoot    = 20
	titleSize    = 18
	textSize     = 13
	smallSize    = 12
	panelHead    = 26 // the panel's own title
	panelFoot    = 40 // ticks and the axis' name
	rowLabel     = 170
	rowNote      = 8
	lineAxis     = 52
	maximumTicks = 7
)

// plotFormats are the endings that --plot takes.
var plotFormats = []string{".svg", ".png"}

// checkPlot refuses a file name before anything is measured.
func checkPlot(file string) error {
	if file == "" {
		return nil
	}
	if slices.Contains(plotFormats, strings.ToLower(filepath.Ext(file))) {
		return nil
	}
	return usagef("--plot %s: the name must end in .svg or .png", file)
}

// save writes a chart into a file, as the ending of its name says; "" is none.
func (c chart) save(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	if err := c.write(f, strings.ToLower(filepath.Ext(file))); err != nil {
		f.Close()
		return fmt.Errorf("write the plot %s: %w", file, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	return nil
}

func (c chart) write(w io.Writer, format string) error {
	width := float64(chartMargin)
	for _, p := range c.panels {
		width += p.width() + chartMargin
	}
	height := chartHead + c.height + chartFoot
	var on canvas = &svgCanvas{width: width, height: height}
	if format == ".png" {
		var err error
		if on, err = newPNGCanvas(width, height); err != nil {
			return err
		}
	}
	c.draw(on, width, height)
	return on.encode(w)
}

func (c chart) draw(on canvas, width, height float64) {
	on.rect(0, 0, width, height, white)
	on.text(chartMargin, 32, c.title, titleSize, -1, ink)
	on.text(chartMargin, 52, c.subtitle, smallSize, -1, pale)
	x := float64(chartMargin)
	for _, l := range c.legend {
		drawMark(on, x+5, 72, 5, l.paint, l.hollow)
		on.text(x+16, 76, l.text, smallSize, -1, ink)
		x += 36 + 5.9*float64(len([]rune(l.text)))
	}
	x = chartMargin
	for _, p := range c.panels {
		p.draw(on, x, chartHead, c.height)
		x += p.width() + chartMargin
	}
}

func drawMark(on canvas, x, y, radius float64, paint color.RGBA, hollow bool) {
	on.dot(x, y, radius, paint)
	if hollow {
		on.dot(x, y, radius*0.5, white)
	}
}

// scale maps values to a length.
type scale struct {
	low, high float64
	log       bool
	from, to  float64 // where low and high are
}

func (s scale) at(v float64) float64 {
	v = min(max(v, s.low), s.high)
	share := (v - s.low) / (s.high - s.low)
	if s.log {
		share = math.Log(v/s.low) / math.Log(s.high/s.low)
	}
	return s.from + share*(s.to-s.from)
}

// newScale covers values with round ends.
func newScale(values []float64, log bool, from, to float64) scale {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if log && v <= 0 {
			continue
		}
		low, high = min(low, v), max(high, v)
	}
	if math.IsInf(low, 1) {
		low, high = 1, 10
	}
	s := scale{log: log, from: from, to: to}
	if log {
		s.high = niceStep(high)
		s.low = min(1/niceStep(1/low), s.high/10)
		return s
	}
	step := niceStep(max(high, 1e-9) / (maximumTicks - 1))
	s.high = step * math.Ceil(high/step)
	if s.high <= 0 {
		s.high = 1
	}
	return s
}

// niceStep is the smallest of 1, 2, 5, 10, … that is not below x.
func niceStep(x float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, factor := range []float64{1, 2, 5} {
		if factor*power >= x*0.999 {
			return factor * power
		}
	}
	return 10 * power
}

func (s scale) ticks() (values []float64) {
	if !s.log {
		step := niceStep(s.high / (maximumTicks - 1))
		for v := 0.0; v <= s.high*1.001; v += step {
			values = append(values, v)
		}
		return values
	}
	factors := []float64{1, 2, 5}
	if s.high/s.low > 300 {
		factors = factors[:1]
	}
	for power := math.Pow(10, math.Floor(math.Log10(s.low))); power <= s.high*1.001; power *= 10 {
		for _, factor := range factors {
			if v := factor * power; v >= s.low*0.999 && v <= s.high*1.001 {
				values = append(values, v)
			}
		}
	}
	return values
}

// rowPanel is rows of a bar and marks along one horizontal axis.
type rowPanel struct {
	title, axis string
	log         bool
	noLabels    bool // the panel to the left has the same rows
	rows        []chartRow
	limit       float64 // a line across all rows; 0: none
	noteWidth   float64
}

type chartRow struct {
	label string
	bar   float64 // 0: none
	paint color.RGBA
	low   float64 // of a line across the bar's end; both 0: none
	high  float64
	marks []chartMark
	note  string // behind the bar
}

type chartMark struct {
	value float64
	paint color.RGBA
}

const rowLength = 320 // of the axis

func (p rowPanel) label() float64 {
	if p.noLabels {
		return 0
	}
	return rowLabel
}

func (p rowPanel) width() float64 { return p.label() + rowLength + p.noteWidth }

func (p rowPanel) draw(on canvas, x, y, height float64) {
	var values []float64
	for _, r := range p.rows {
		values = append(values, r.bar, r.high)
		for _, m := range r.marks {
			values = append(values, m.value)
		}
	}
	left, top, bottom := x+p.label(), y+panelHead, y+height-panelFoot
	s := newScale(append(values, p.limit), p.log, left, left+rowLength)
	on.text(left, y+12, p.title, textSize, -1, ink)
	for _, v := range s.ticks() {
		on.line(s.at(v), top, s.at(v), bottom, 1, grid)
		on.text(s.at(v), bottom+16, short(v), smallSize, 0, pale)
	}
	on.text(left+rowLength/2, bottom+34, p.axis, smallSize, 0, pale)
	step := (bottom - top) / float64(max(1, len(p.rows)))
	for i, r := range p.rows {
		p.drawRow(on, x, top+step*(float64(i)+0.5), step*0.62, s, r)
	}
	if p.limit > 0 {
		on.line(s.at(p.limit), top, s.at(p.limit), bottom, 1.5, vermilion)
	}
}

func (p rowPanel) drawRow(on canvas, x, middle, thickness float64, s scale, r chartRow) {
	if !p.noLabels {
		on.text(x+rowLabel-8, middle+4, r.label, textSize, 1, ink)
	}
	end := s.from
	if r.bar > 0 {
		end = s.at(r.bar)
		on.rect(s.from, middle-thickness/2, end-s.from, thickness, r.paint)
	}
	if r.high > r.low {
		on.line(s.at(r.low), middle, s.at(r.high), middle, 1.5, ink)
		end = max(end, s.at(r.high))
	}
	if n := len(r.marks); n > 1 {
		on.line(s.at(r.marks[0].value), middle, s.at(r.marks[n-1].value), middle, 1.5, grey)
	}
	for _, m := range r.marks {
		on.dot(s.at(m.value), middle, 4.5, m.paint)
		end = max(end, s.at(m.value)+4)
	}
	on.text(end+rowNote, middle+4, r.note, smallSize, -1, ink)
}

// linePanel is lines over a logarithmic horizontal axis; the vertical one is
// logarithmic, too.
type linePanel struct {
	title, axis string
	lines       []chartLine
	values      []float64 // that the vertical axis must hold, so that panels have the same
}

type chartLine struct {
	paint  color.RGBA
	hollow bool
	points [][2]float64
}

const lineLength = 320

func (p linePanel) width() float64 { return lineAxis + lineLength }

func (p linePanel) draw(on canvas, x, y, height float64) {
	left, top, bottom := x+lineAxis, y+panelHead, y+height-panelFoot
	var across []float64
	for _, l := range p.lines {
		for _, point := range l.points {
			across = append(across, point[0])
		}
	}
	h, v := newScale(across, true, left+8, left+lineLength-8), newScale(p.values, true, bottom, top)
	on.text(left, y+12, p.title, textSize, -1, ink)
	for _, value := range v.ticks() {
		on.line(left, v.at(value), left+lineLength, v.at(value), 1, grid)
		on.text(left-8, v.at(value)+4, short(value)+" ns", smallSize, 1, pale)
	}
	for _, value := range h.ticks() {
		on.line(h.at(value), top, h.at(value), bottom, 1, grid)
		on.text(h.at(value), bottom+16, short(value), smallSize, 0, pale)
	}
	on.text(left+lineLength/2, bottom+34, p.axis, smallSize, 0, pale)
	for _, l := range p.lines {
		for i, point := range l.points {
			if i > 0 {
				before := l.points[i-1]
				on.line(h.at(before[0]), v.at(before[1]), h.at(point[0]), v.at(point[1]), 2, l.paint)
			}
		}
		for _, point := range l.points {
			drawMark(on, h.at(point[0]), v.at(point[1]), 4.5, l.paint, l.hollow)
		}
	}
}
