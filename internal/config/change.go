// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"reflect"
)

// Changed returns the key paths in which two configurations differ: those that
// can be applied to a running engine, and those that take a restart.
func Changed(before, after Config) (live, restart []string) {
	a, b := reflect.ValueOf(before), reflect.ValueOf(after)
	for _, k := range keys(a.Type(), "", false) {
		if k.section() || same(valueAt(a, k.path), valueAt(b, k.path)) {
			continue
		}
		if k.live {
			live = append(live, k.path)
		} else {
			restart = append(restart, k.path)
		}
	}
	return live, restart
}

// same compares values; a missing list is an empty one.
func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// Notices returns what is worth telling about a valid configuration: old words,
// entries that contradict each other.
func (c Config) Notices() []string {
	notices := append([]string(nil), c.Outdated...)
	allowed := make(map[any]bool, len(c.Lists.Allow))
	for _, e := range c.Lists.Allow {
		allowed[e.Prefix] = true
	}
	for i, e := range c.Lists.Block {
		if allowed[e.Prefix] {
			notices = append(notices, fmt.Sprintf("lists.block[%d]: %s is on lists.allow too, and allow wins", i, e.Prefix))
		}
	}
	return notices
}
