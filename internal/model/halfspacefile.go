// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"io"
)

const (
	halfSpaceFormat  = "sentinel-x/halfspace"
	halfSpaceVersion = 1
	maxHalfSpaceFile = 16 << 20
)

// halfSpaceFile is what is written: the nodes of all trees, one tree after the
// other, breadth first.
type halfSpaceFile struct {
	fileHeader
	Trees     int       `json:"trees"`
	Depth     int       `json:"depth"`
	Window    int       `json:"window"`
	Seed      uint64    `json:"seed"`
	Fill      []float32 `json:"fill"`
	Filled    float64   `json:"filled"`
	Ready     bool      `json:"ready"`
	Feature   []int     `json:"feature"`
	Cut       []float32 `json:"cut"`
	Reference []float32 `json:"reference"`
	Latest    []float32 `json:"latest"`
}

// Write writes trees and masses as ReadHalfSpace reads them. It needs a schema.
func (h *HalfSpace) Write(w io.Writer) error {
	if h.p.Schema == nil {
		return fmt.Errorf("write half-space trees: %w", errNoSchema)
	}
	if err := writeModelFile(w, maxHalfSpaceFile, h.file()); err != nil {
		return fmt.Errorf("write half-space trees: %w", err)
	}
	return nil
}

func (h *HalfSpace) file() *halfSpaceFile {
	file := &halfSpaceFile{
		fileHeader: newFileHeader(halfSpaceFormat, halfSpaceVersion, h.p.Schema),
		Trees:      h.p.Trees, Depth: h.p.Depth, Window: h.p.Window, Seed: h.p.Seed,
		Fill: h.fill, Filled: h.filled, Ready: h.ready,
	}
	for _, n := range h.nodes {
		file.Feature = append(file.Feature, int(n.feature))
		file.Cut = append(file.Cut, n.cut)
		file.Reference = append(file.Reference, n.reference)
		file.Latest = append(file.Latest, n.latest)
	}
	return file
}

// ReadHalfSpace reads what Write wrote. Trees for other features than want are
// refused, with both lists; nil takes any.
func ReadHalfSpace(r io.Reader, want Schema) (*HalfSpace, error) {
	var file halfSpaceFile
	header := fileHeader{Format: halfSpaceFormat, Version: halfSpaceVersion, Features: want}
	if err := readModelFile(r, maxHalfSpaceFile, header, &file); err != nil {
		return nil, fmt.Errorf("read half-space trees: %w", err)
	}
	h, err := file.halfSpace()
	if err != nil {
		return nil, fmt.Errorf("read half-space trees: %w", err)
	}
	return h, nil
}

func (file *halfSpaceFile) halfSpace() (*HalfSpace, error) {
	if err := file.check(); err != nil {
		return nil, err
	}
	h := &HalfSpace{
		p:      HalfSpaceParams{Trees: file.Trees, Depth: file.Depth, Window: file.Window, Seed: file.Seed, Schema: file.Features},
		fill:   file.Fill,
		nodes:  make([]halfSpaceNode, len(file.Cut)),
		filled: file.Filled,
		ready:  file.Ready,
	}
	for i := range h.nodes {
		h.nodes[i] = halfSpaceNode{file.Cut[i], uint8(file.Feature[i]), file.Reference[i], file.Latest[i]}
	}
	return h, nil
}

func (file *halfSpaceFile) check() error {
	p := HalfSpaceParams{Trees: file.Trees, Depth: file.Depth, Window: file.Window, Schema: file.Features}
	if err := p.check(len(file.Fill)); err != nil {
		return err
	}
	nodes := file.Trees * nodesOf(file.Depth)
	for name, n := range map[string]int{
		"features": len(file.Feature), "cuts": len(file.Cut),
		"reference masses": len(file.Reference), "latest masses": len(file.Latest),
	} {
		if n != nodes {
			return fmt.Errorf("%d %s for %d nodes", n, name, nodes)
		}
	}
	if !allFinite(file.Fill) || !allFinite(file.Cut) {
		return errors.New("a median or cut is not a finite number")
	}
	if !(file.Filled >= 0 && file.Filled < float64(file.Window)) {
		return fmt.Errorf("%g vectors in a window of %d", file.Filled, file.Window)
	}
	for i := range nodes {
		if f := file.Feature[i]; f < 0 || f >= len(file.Fill) {
			return fmt.Errorf("node %d: feature %d is none of %d", i, f, len(file.Fill))
		}
		for _, mass := range [2]float32{file.Reference[i], file.Latest[i]} {
			// A little more than a window: thousands of float32 were added up.
			if !(mass >= 0 && mass <= 1.01*float32(file.Window)) {
				return fmt.Errorf("node %d: a mass of %g in a window of %d", i, mass, file.Window)
			}
		}
	}
	return nil
}
