// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"sync"

	"github.com/sentinel-x/sentinel-x/internal/model"
)

// defaultModel is written by `make models`.
//
//go:embed models/default.ubj.gz
var defaultModel []byte

// DefaultTrees returns the trees that come with the program; docs/model-card.md says from what they are
// made. They are read once and shared.
var DefaultTrees = sync.OnceValues(func() (*model.Trees, error) {
	packed, err := gzip.NewReader(bytes.NewReader(defaultModel))
	if err != nil {
		return nil, fmt.Errorf("unpack the default model: %w", err)
	}
	data, err := io.ReadAll(packed)
	if err != nil {
		return nil, fmt.Errorf("unpack the default model: %w", err)
	}
	trees, err := model.ParseTrees(data)
	if err != nil {
		return nil, fmt.Errorf("read the default model: %w", err)
	}
	return trees, nil
})
