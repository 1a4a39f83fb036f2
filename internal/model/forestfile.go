// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"io"
	"slices"
)

const (
	forestFormat    = "sentinel-x/forest"
	forestVersion   = 1
	maxForestFile   = 8 << 20
	noChild         = -1
	noDepth         = -1
	minForestSample = 2
)

// forestFile is what is written. A tree is four lists with one element a node: the
// root comes first, a child after its parent, the right child after the left one.
type forestFile struct {
	fileHeader
	Sample int              `json:"sample"`
	Fill   []float32        `json:"fill"`
	Trees  []forestFileTree `json:"trees"`
}

type forestFileTree struct {
	Left      []int32   `json:"left"` // -1: a leaf
	Feature   []int32   `json:"feature"`
	Threshold []float32 `json:"threshold"`
	Size      []int32   `json:"size"`
}

// Write writes the forest as ReadForest reads it. It needs a schema.
func (f *Forest) Write(w io.Writer) error {
	if f.schema == nil {
		return fmt.Errorf("write forest: %w", errNoSchema)
	}
	if err := writeModelFile(w, maxForestFile, f.file()); err != nil {
		return fmt.Errorf("write forest: %w", err)
	}
	return nil
}

func (f *Forest) file() *forestFile {
	file := &forestFile{
		fileHeader: newFileHeader(forestFormat, forestVersion, f.schema),
		Sample:     f.sample,
		Fill:       f.fill,
	}
	for i, root := range f.roots {
		end := int32(len(f.nodes))
		if i+1 < len(f.roots) {
			end = f.roots[i+1]
		}
		var t forestFileTree
		for at := root; at < end; at++ {
			n, left, threshold := f.nodes[at], int32(noChild), float32(0)
			if !f.isLeaf(at) {
				left, threshold = n.left-root, n.threshold
			}
			t.Left = append(t.Left, left)
			t.Feature = append(t.Feature, int32(n.feature))
			t.Threshold = append(t.Threshold, threshold)
			t.Size = append(t.Size, int32(n.size))
		}
		file.Trees = append(file.Trees, t)
	}
	return file
}

// ReadForest reads what Write wrote. A forest for other features than want is
// refused, with both lists; nil takes any. Whatever the file contains, it needs
// at most some megabytes, and the forest that is returned scores every vector.
func ReadForest(r io.Reader, want Schema) (*Forest, error) {
	var file forestFile
	header := fileHeader{Format: forestFormat, Version: forestVersion, Features: want}
	if err := readModelFile(r, maxForestFile, header, &file); err != nil {
		return nil, fmt.Errorf("read forest: %w", err)
	}
	f, err := file.forest()
	if err != nil {
		return nil, fmt.Errorf("read forest: %w", err)
	}
	return f, nil
}

func (file *forestFile) forest() (*Forest, error) {
	switch {
	case len(file.Trees) < 1 || len(file.Trees) > MaxForestTrees:
		return nil, fmt.Errorf("%d trees, not 1 to %d", len(file.Trees), MaxForestTrees)
	case file.Sample < minForestSample || file.Sample > MaxForestSample:
		return nil, fmt.Errorf("a sample of %d rows, not %d to %d", file.Sample, minForestSample, MaxForestSample)
	case len(file.Fill) != len(file.Features):
		return nil, fmt.Errorf("%d medians for %d features", len(file.Fill), len(file.Features))
	case !allFinite(file.Fill):
		return nil, fmt.Errorf("a median is not a finite number")
	}
	f := newForest(file.Features, slices.Clone(file.Fill), file.Sample)
	for i := range file.Trees {
		if err := f.add(&file.Trees[i]); err != nil {
			return nil, fmt.Errorf("tree %d: %w", i, err)
		}
	}
	return f, nil
}

// add checks a tree and appends it.
func (f *Forest) add(t *forestFileTree) error {
	nodes := len(t.Left)
	switch {
	case nodes == 0:
		return fmt.Errorf("it has no nodes")
	case len(t.Feature) != nodes || len(t.Threshold) != nodes || len(t.Size) != nodes:
		return fmt.Errorf("its lists have %d, %d, %d and %d elements", nodes, len(t.Feature), len(t.Threshold), len(t.Size))
	case nodes > 2*f.sample-1 || len(f.nodes)+nodes > maxForestNodes:
		return fmt.Errorf("%d nodes are too many", nodes)
	case !allFinite(t.Threshold):
		return fmt.Errorf("a threshold is not a finite number")
	case int(t.Size[0]) != f.sample:
		return fmt.Errorf("it grew from %d rows, the forest from %d", t.Size[0], f.sample)
	}
	depth, err := t.depths(len(f.fill))
	if err != nil {
		return err
	}
	root := int32(len(f.nodes))
	f.roots = append(f.roots, root)
	for i, left := range t.Left {
		f.addLeaf(int(t.Size[i]), depth[i])
		if left != noChild {
			n := &f.nodes[root+int32(i)]
			n.left, n.feature, n.threshold = root+left, uint8(t.Feature[i]), t.Threshold[i]
		}
	}
	return nil
}

// depths returns each node's depth. It finds cycles, nodes with two parents or
// none, and counts that do not add up: every walk from the root ends in a leaf.
func (t *forestFileTree) depths(features int) ([]int, error) {
	depth := make([]int, len(t.Left))
	for i := 1; i < len(depth); i++ {
		depth[i] = noDepth
	}
	for i, left := range t.Left {
		switch {
		case t.Feature[i] < 0 || int(t.Feature[i]) >= features:
			return nil, fmt.Errorf("node %d: feature %d is none of %d", i, t.Feature[i], features)
		case depth[i] == noDepth:
			return nil, fmt.Errorf("node %d has no parent before it", i)
		case left == noChild:
			continue
		case left <= int32(i) && left >= 0:
			return nil, fmt.Errorf("node %d leads back to node %d: a cycle", i, left)
		case left < 0 || int(left)+1 >= len(t.Left):
			return nil, fmt.Errorf("node %d leads to node %d, which is not there", i, left)
		case depth[left] != noDepth || depth[left+1] != noDepth:
			return nil, fmt.Errorf("node %d leads to node %d, which has a parent", i, left)
		case t.Size[left] < 1 || t.Size[left+1] < 1 || int64(t.Size[left])+int64(t.Size[left+1]) != int64(t.Size[i]):
			return nil, fmt.Errorf("node %d: %d and %d rows do not make %d", i, t.Size[left], t.Size[left+1], t.Size[i])
		case depth[i] == maxForestDepth:
			return nil, fmt.Errorf("the children of node %d are deeper than %d", i, maxForestDepth)
		}
		depth[left], depth[left+1] = depth[i]+1, depth[i]+1
	}
	return depth, nil
}
