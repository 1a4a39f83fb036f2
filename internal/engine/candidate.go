// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"io"

	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
)

// LiveModel returns the trees that the daemon would use with a model directory, and
// which file they are from, or builtInName.
func LiveModel(dir string) (*model.Trees, string, error) {
	g, numbers, err := generations(dir)
	if err != nil {
		return nil, "", err
	}
	if len(numbers) == 0 {
		trees, err := detect.DefaultTrees()
		return trees, builtInName, err
	}
	var trees *model.Trees
	n, _, err := g.Load(func(r io.Reader) (err error) {
		if trees, err = model.ReadTrees(r); err == nil {
			_, err = detect.NewTrees(trees)
		}
		return err
	})
	return trees, g.Path(n), err
}

// ReadModel returns the trees of a file that detection takes.
func ReadModel(path string) (*model.Trees, error) { return readModel(path) }

// SaveModel makes trees the live generation of a directory, as ImportModel does.
func SaveModel(dir string, trees *model.Trees) (ModelChange, error) {
	g, err := model.OpenGenerations(dir, treesFile)
	if err != nil {
		return ModelChange{}, err
	}
	n, err := g.Save(trees.WriteJSON)
	if err != nil {
		return ModelChange{}, err
	}
	return ModelChange{Number: n, Model: describeTrees(g.Path(n), trees)}, nil
}
