// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// fileHeader begins every model file of our own format.
type fileHeader struct {
	Format     string `json:"format"`
	Version    int    `json:"version"`
	SchemaHash string `json:"schema_hash"`
	Features   Schema `json:"features"`
}

func newFileHeader(format string, version int, schema Schema) fileHeader {
	return fileHeader{Format: format, Version: version, SchemaHash: schema.Hash(), Features: schema}
}

// readModelFile reads one JSON value of at most limit bytes into file, which must
// embed a fileHeader like want. Of want.Features, nil accepts every schema.
func readModelFile(r io.Reader, limit int64, want fileHeader, file any) error {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if int64(len(text)) > limit {
		return fmt.Errorf("the file has more than %d bytes", limit)
	}
	var have fileHeader
	if err := json.Unmarshal(text, &have); err != nil {
		return fmt.Errorf("the file is damaged: %w", err)
	}
	if err := have.check(want); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(file); err != nil {
		return fmt.Errorf("the file is damaged: %w", err)
	}
	return nil
}

func (h fileHeader) check(want fileHeader) error {
	switch {
	case h.Format != want.Format:
		return fmt.Errorf("the file's format is %.40q, not %q", h.Format, want.Format)
	case h.Version != want.Version:
		return fmt.Errorf("the file has version %d of %s, this program reads version %d", h.Version, want.Format, want.Version)
	case len(h.Features) == 0 || len(h.Features) > MaxForestFeatures:
		return fmt.Errorf("the file names %d features, not 1 to %d", len(h.Features), MaxForestFeatures)
	case h.SchemaHash != h.Features.Hash():
		return fmt.Errorf("the file is damaged: its features have the hash %s, it says %.20q", h.Features.Hash(), h.SchemaHash)
	}
	if err := h.Features.Check(); err != nil || want.Features == nil {
		return err
	}
	return h.Features.Match(want.Features)
}

// writeModelFile writes file as one line of JSON.
func writeModelFile(w io.Writer, limit int, file any) error {
	text, err := json.Marshal(file)
	if err != nil {
		return err
	}
	if len(text) >= limit {
		return fmt.Errorf("the file would have %d bytes, at most %d can be read again", len(text), limit)
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

var errNoSchema = errors.New("it was made without a schema, so nobody could tell its columns")

// allFinite says that none of the values is NaN or infinite.
func allFinite[T float32 | float64](values []T) bool {
	for _, v := range values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return false
		}
	}
	return true
}
