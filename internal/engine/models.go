// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/sentinel-x/sentinel-x/internal/config"
	"github.com/sentinel-x/sentinel-x/internal/detect"
	"github.com/sentinel-x/sentinel-x/internal/model"
)

// treesFile is the name of the trees in detect.model_dir.
const treesFile = "trees.json"

// builtInName is the origin of the trees that come with the program.
const builtInName = "built in"

// liveModel is what detection uses, or would use.
type liveModel struct {
	name    string       // file, or builtInName
	raw     *model.Trees // as in the file
	trees   *detect.Trees
	damaged error // what is wrong with newer generations
}

// read takes trees that detection takes.
func (m *liveModel) read(r io.Reader) (err error) {
	if m.raw, err = model.ReadTrees(r); err == nil {
		m.trees, err = detect.NewTrees(m.raw)
	}
	return err
}

// openLive reads the newest generation that detection can use; without any, the trees that
// come with the program. A directory that is not there holds none, and is not made.
func openLive(dir string) (m liveModel, err error) {
	g, _, err := generations(dir)
	if err != nil {
		return m, err
	}
	if g == nil {
		return builtIn()
	}
	number, damaged, err := g.Load(m.read)
	if errors.Is(err, fs.ErrNotExist) && damaged == nil {
		return builtIn()
	}
	m.name, m.damaged = g.Path(number), damaged
	return m, err
}

func builtIn() (m liveModel, err error) {
	m.name = builtInName
	if m.raw, err = detect.DefaultTrees(); err == nil {
		m.trees, err = detect.NewTrees(m.raw)
	}
	return m, err
}

// ModelInfo describes a file of trees.
type ModelInfo struct {
	Origin     string            `json:"origin"` // file, or builtInName
	Objective  string            `json:"objective"`
	Features   []string          `json:"features"`
	SchemaHash string            `json:"schema_hash"` // of the features
	Classes    []string          `json:"classes"`
	Trees      int               `json:"trees"`
	Nodes      int               `json:"nodes"`
	MaxDepth   int               `json:"max_depth"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// ModelCheck is what VerifyModel found.
type ModelCheck struct {
	File  string     `json:"file"`
	OK    bool       `json:"ok"` // detection takes it
	Error string     `json:"error,omitempty"`
	Model *ModelInfo `json:"model,omitempty"` // nil: the file is no model
	// Wanted are the features that detection has; absent if they match.
	Wanted []string `json:"wanted_features,omitempty"`
}

// ModelState is what is in a model directory.
type ModelState struct {
	Dir         string            `json:"dir"`         // empty: none is configured
	Live        *ModelInfo        `json:"live"`        // null: no generation can be used, so there are no trees
	Generations []ModelGeneration `json:"generations"` // the newest first
}

// ModelGeneration is one of the last versions of the trees.
type ModelGeneration struct {
	Number int    `json:"number"`
	File   string `json:"file"`
	Live   bool   `json:"live"`
	Error  string `json:"error,omitempty"` // why it cannot be used
}

// ModelChange says which generation is live after an import or a rollback.
type ModelChange struct {
	Number int       `json:"number"`
	Model  ModelInfo `json:"model"`
}

// VerifyModel reads a file of trees as the daemon would. The error says what is
// wrong with it; where the features do not match, it names both lists.
func VerifyModel(path string) (ModelCheck, error) {
	_, check, err := verifyModel(path)
	return check, err
}

// verifyModel returns the trees as well, if the file has any.
func verifyModel(path string) (*model.Trees, ModelCheck, error) {
	check := ModelCheck{File: path}
	trees, err := ReadModel(path)
	if trees != nil {
		info := describeTrees(path, trees)
		check.Model = &info
	}
	if _, ok := errors.AsType[*model.MismatchError](err); ok {
		check.Wanted = detect.Names()
		err = fmt.Errorf("%w\nthe model's %d features: %s\nthe %d features of detection: %s", err, trees.Features(),
			strings.Join(trees.Schema(), ", "), detect.NumFeatures(), strings.Join(detect.Names(), ", "))
	}
	if check.OK = err == nil; !check.OK {
		check.Error = err.Error()
	}
	return trees, check, err
}

// ReadModel returns the trees of a file, and an error as well if they can be read but
// detection does not take them.
func ReadModel(path string) (*model.Trees, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	defer f.Close()
	trees, err := model.ReadTrees(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err = detect.NewTrees(trees); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return trees, err
}

func describeTrees(origin string, t *model.Trees) ModelInfo {
	info := ModelInfo{
		Origin: origin, Objective: t.Objective().String(), Features: t.Schema(), SchemaHash: t.Schema().Hash(),
		Trees: t.Len(), Nodes: t.Nodes(), MaxDepth: t.MaxDepth(), Attributes: t.Attributes(),
	}
	switch named := t.Attributes()[detect.ClassesAttribute]; {
	case named != "":
		info.Classes = strings.Split(named, ",")
	case t.Outputs() == 1:
		info.Classes = []string{"benign", "attack"}
	default:
		info.Classes = detect.ClassNames()[:min(t.Outputs(), len(detect.ClassNames()))]
	}
	return info
}

// ShowModels describes the trees that the daemon would use, and the generations
// that it could go back to.
func ShowModels(c config.Detect) (ModelState, error) {
	s := ModelState{Dir: c.ModelDir, Generations: []ModelGeneration{}}
	g, numbers, err := generations(c.ModelDir)
	if err != nil {
		return s, err
	}
	for _, n := range numbers {
		trees, err := ReadModel(g.Path(n))
		gen := ModelGeneration{Number: n, File: g.Path(n)}
		switch {
		case err != nil:
			gen.Error = err.Error()
		case s.Live == nil:
			gen.Live = true
			info := describeTrees(gen.File, trees)
			s.Live = &info
		}
		s.Generations = append(s.Generations, gen)
	}
	if len(numbers) > 0 {
		return s, nil
	}
	trees, err := detect.DefaultTrees()
	if err != nil {
		return s, err
	}
	info := describeTrees(builtInName, trees)
	s.Live = &info
	return s, nil
}

// generations lists what is in a model directory, which need not exist.
func generations(dir string) (*model.Generations, []int, error) {
	if dir == "" {
		return nil, nil, nil
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	g, err := model.OpenGenerations(dir, treesFile)
	if err != nil {
		return nil, nil, err
	}
	numbers, err := g.Numbers()
	return g, numbers, err
}

// ImportModel makes a file of trees the live generation of a directory, if
// detection takes it. The daemon uses it from its next start on.
func ImportModel(dir, path string) (ModelChange, error) {
	trees, _, err := verifyModel(path)
	if err != nil {
		return ModelChange{}, err
	}
	return SaveModel(dir, trees)
}

// SaveModel makes trees that detection takes the live generation of a directory, as ImportModel does.
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

// LiveModel returns the trees that the daemon would use with a model directory, and
// which file they are from, or builtInName.
func LiveModel(dir string) (*model.Trees, string, error) {
	m, err := openLive(dir)
	return m.raw, m.name, err
}

// RollbackModel withdraws the live generation of a directory for the one before
// it that detection takes. The daemon uses it from its next start on.
func RollbackModel(dir string) (ModelChange, error) {
	g, _, err := generations(dir)
	if err != nil {
		return ModelChange{}, err
	}
	if g == nil {
		return ModelChange{}, fmt.Errorf("roll back the model: there is no directory %s", dir)
	}
	var m liveModel
	n, err := g.Rollback(m.read)
	if err != nil {
		return ModelChange{}, err
	}
	return ModelChange{Number: n, Model: describeTrees(g.Path(n), m.raw)}, nil
}
