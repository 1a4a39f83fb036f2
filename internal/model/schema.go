// SPDX-License-Identifier: Apache-2.0

package model

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a model may call its features.
const (
	maxFeatures    = 4096
	maxFeatureName = 200 // bytes
)

// Schema is the ordered list of a model's feature names: column i of a row is
// feature Schema[i].
type Schema []string

// Hash identifies the list and its order: 64 hexadecimal digits, the SHA-256 of
// the names, each followed by a zero byte.
func (s Schema) Hash() string {
	sum := sha256.New()
	for _, name := range s {
		sum.Write([]byte(name))
		sum.Write([]byte{0})
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Check says whether the names can be written into a model file and told apart.
func (s Schema) Check() error {
	if len(s) > maxFeatures {
		return fmt.Errorf("%d features, at most %d are allowed", len(s), maxFeatures)
	}
	seen := make(map[string]int, len(s))
	for i, name := range s {
		if err := checkFeatureName(name); err != nil {
			return fmt.Errorf("feature %d: %w", i, err)
		}
		if first, twice := seen[name]; twice {
			return fmt.Errorf("feature %d: %q is feature %d already", i, name, first)
		}
		seen[name] = i
	}
	return nil
}

// checkFeatureName keeps to what XGBoost accepts too: it refuses [ ] and <.
func checkFeatureName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxFeatureName:
		return fmt.Errorf("the name has %d bytes, at most %d are allowed", len(name), maxFeatureName)
	case !utf8.ValidString(name):
		return fmt.Errorf("the name %q is not UTF-8", name)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) || strings.ContainsRune(`[]<"\`, r) {
			return fmt.Errorf("the name %q contains %q", name, r)
		}
	}
	return nil
}

// MismatchError says how the features of a model differ from those offered to it.
type MismatchError struct {
	Missing []string // the model needs them, they are not offered
	Unknown []string // offered, but the model does not know them
	Order   []string // in both lists, at another place: "name (3, expected at 1)"
}

func (e *MismatchError) Error() string {
	var parts []string
	for _, part := range []struct {
		what  string
		names []string
	}{
		{"missing", e.Missing}, {"unknown to the model", e.Unknown}, {"in another order", e.Order},
	} {
		if len(part.names) > 0 {
			parts = append(parts, part.what+": "+strings.Join(part.names, ", "))
		}
	}
	return "features do not match the model: " + strings.Join(parts, "; ")
}

// Match returns a *MismatchError unless features is the same list as s.
func (s Schema) Match(features []string) error {
	if slices.Equal(s, features) {
		return nil
	}
	e := &MismatchError{Missing: without(s, features), Unknown: without(features, s)}
	if len(e.Missing) == 0 && len(e.Unknown) == 0 {
		e.Order = displaced(s, features)
	}
	return e
}

// without returns the names of list that other lacks.
func without(list, other []string) (names []string) {
	for _, name := range list {
		if !slices.Contains(other, name) {
			names = append(names, name)
		}
	}
	return names
}

func displaced(want, have []string) (names []string) {
	for i, name := range have {
		if at := slices.Index(want, name); at != i {
			names = append(names, fmt.Sprintf("%s (at %d, expected at %d)", name, i, at))
		}
	}
	return names
}
