// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"
	"strings"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// canvas is what charts are drawn on. Units are those of an SVG of the chart's size.
type canvas interface {
	rect(x, y, w, h float64, fill color.RGBA)
	line(x1, y1, x2, y2, width float64, stroke color.RGBA)
	dot(x, y, radius float64, fill color.RGBA)
	// text writes with the baseline at y; align -1 begins, 0 centres, 1 ends it at x.
	text(x, y float64, s string, size float64, align int, fill color.RGBA)
	encode(w io.Writer) error
}

// svgCanvas writes SVG 1.1.
type svgCanvas struct {
	width, height float64
	body          strings.Builder
}

func (c *svgCanvas) add(format string, args ...any) { fmt.Fprintf(&c.body, format+"\n", args...) }

func hex(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

func (c *svgCanvas) rect(x, y, w, h float64, fill color.RGBA) {
	c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, x, y, w, h, hex(fill))
}

func (c *svgCanvas) line(x1, y1, x2, y2, width float64, stroke color.RGBA) {
	c.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%.1f" stroke-linecap="round"/>`, x1, y1, x2, y2, hex(stroke), width)
}

func (c *svgCanvas) dot(x, y, radius float64, fill color.RGBA) {
	c.add(`<circle cx="%.1f" cy="%.1f" r="%.1f" fill="%s"/>`, x, y, radius, hex(fill))
}

func (c *svgCanvas) text(x, y float64, s string, size float64, align int, fill color.RGBA) {
	anchor := [...]string{"start", "middle", "end"}[align+1]
	var escaped strings.Builder
	_ = xml.EscapeText(&escaped, []byte(s)) // a strings.Builder never fails
	c.add(`<text x="%.1f" y="%.1f" font-size="%.0f" text-anchor="%s" fill="%s">%s</text>`, x, y, size, anchor, hex(fill), escaped.String())
}

func (c *svgCanvas) encode(w io.Writer) error {
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" font-family="Go, Helvetica, Arial, sans-serif">
%s</svg>
`, c.width, c.height, c.width, c.height, c.body.String())
	return err
}

// pngScale is how many pixels a unit has, for screens with fine ones.
const pngScale = 2

// pngCanvas paints pixels.
type pngCanvas struct {
	image *image.RGBA
	font  *opentype.Font
	err   error // the first of a text
}

func newPNGCanvas(width, height float64) (*pngCanvas, error) {
	f, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return nil, fmt.Errorf("read the font: %w", err)
	}
	return &pngCanvas{image: image.NewRGBA(image.Rect(0, 0, int(width*pngScale), int(height*pngScale))), font: f}, nil
}

// fill paints a polygon.
func (c *pngCanvas) fill(paint color.RGBA, points ...[2]float64) {
	size := c.image.Bounds().Size()
	r := vector.NewRasterizer(size.X, size.Y)
	for i, p := range points {
		x, y := float32(p[0]*pngScale), float32(p[1]*pngScale)
		if i == 0 {
			r.MoveTo(x, y)
		} else {
			r.LineTo(x, y)
		}
	}
	r.ClosePath()
	r.DrawOp = draw.Over
	r.Draw(c.image, c.image.Bounds(), image.NewUniform(paint), image.Point{})
}

func (c *pngCanvas) rect(x, y, w, h float64, fill color.RGBA) {
	c.fill(fill, [2]float64{x, y}, [2]float64{x + w, y}, [2]float64{x + w, y + h}, [2]float64{x, y + h})
}

func (c *pngCanvas) line(x1, y1, x2, y2, width float64, stroke color.RGBA) {
	length := math.Hypot(x2-x1, y2-y1)
	if length == 0 {
		return
	}
	dx, dy := (y2-y1)/length*width/2, (x1-x2)/length*width/2
	c.fill(stroke, [2]float64{x1 + dx, y1 + dy}, [2]float64{x2 + dx, y2 + dy}, [2]float64{x2 - dx, y2 - dy}, [2]float64{x1 - dx, y1 - dy})
}

func (c *pngCanvas) dot(x, y, radius float64, fill color.RGBA) {
	const corners = 32
	points := make([][2]float64, corners)
	for i := range points {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / corners)
		points[i] = [2]float64{x + radius*cos, y + radius*sin}
	}
	c.fill(fill, points...)
}

func (c *pngCanvas) text(x, y float64, s string, size float64, align int, fill color.RGBA) {
	face, err := opentype.NewFace(c.font, &opentype.FaceOptions{Size: size * pngScale, DPI: 72, Hinting: font.HintingNone})
	if err != nil {
		c.err = fmt.Errorf("write %q: %w", s, err)
		return
	}
	d := font.Drawer{Dst: c.image, Src: image.NewUniform(fill), Face: face}
	width := float64(d.MeasureString(s)) / 64
	left := x*pngScale - width*float64(align+1)/2
	d.Dot = fixed.Point26_6{X: fixed.Int26_6(left * 64), Y: fixed.Int26_6(y * pngScale * 64)}
	d.DrawString(s)
}

func (c *pngCanvas) encode(w io.Writer) error {
	if c.err != nil {
		return c.err
	}
	return png.Encode(w, c.image)
}
