// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxSocketPath is what sun_path holds besides its final zero.
const maxSocketPath = 107

// Validate checks a configuration that flags or code have changed. The error
// holds one *Error a mistake, with the key path.
func (c Config) Validate() error {
	var errs []error
	for _, e := range c.problems() {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// validate reports what Validate finds, with the positions in the file.
func (r *reader) validate(c Config) {
	for _, e := range c.problems() {
		r.fail(r.locate(e.Path), e.Path, "%s", e.Msg)
	}
}

// locate returns where the key stands, or the nearest section around it.
func (r *reader) locate(path string) position {
	for path != "" {
		if p, ok := r.at[path]; ok {
			return p
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return position{1, 1}
}

// checker collects problems.
type checker struct{ errs []*Error }

func (k *checker) fail(path, format string, args ...any) {
	k.errs = append(k.errs, &Error{Path: path, Msg: fmt.Sprintf(format, args...)})
}

func (c Config) problems() []*Error {
	var k checker
	root := reflect.ValueOf(c)
	for _, key := range keys(root.Type(), "", false) {
		if !key.section() {
			k.tags(key, valueAt(root, key.path))
		}
	}
	k.interfaces(c.Interfaces)
	k.paths(c)
	k.list("lists.block", c.Lists.Block, c.Lists.MaxEntries)
	k.list("lists.allow", c.Lists.Allow, c.Lists.MaxEntries)
	for i, p := range c.Protect.Addresses {
		k.prefix(fmt.Sprintf("protect.addresses[%d]", i), p)
	}
	for i, p := range c.Protect.Targets {
		k.prefix(fmt.Sprintf("protect.targets[%d]", i), p)
	}
	k.single(c)
	return k.errs
}

// valueAt returns the value of a key path that names no list element.
func valueAt(v reflect.Value, path string) reflect.Value {
	for name := range strings.SplitSeq(path, ".") {
		v, _ = fieldByKey(v, name)
	}
	return v
}

// tags checks what the struct tags say of a key.
func (k *checker) tags(key key, v reflect.Value) {
	switch {
	case v.Kind() == reflect.String:
		k.word(key.path, key.enum(), v.String())
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String:
		for i := range v.Len() {
			path := fmt.Sprintf("%s[%d]", key.path, i)
			k.word(path, key.enum(), v.Index(i).String())
			for j := range i {
				if v.Index(j).String() == v.Index(i).String() {
					k.fail(path, "%q is listed already, as %s[%d]", v.Index(i).String(), key.path, j)
					break
				}
			}
		}
	case v.Type() == reflect.TypeFor[Duration]():
		k.duration(key, v.Interface().(Duration))
	case v.CanUint():
		k.number(key, v.Uint())
	case v.CanFloat():
		k.float(key, v.Float())
	}
}

// word checks a text: one of the words, if there are any, and printable.
func (k *checker) word(path string, words []string, s string) {
	if len(words) > 0 && !slices.Contains(words, s) {
		k.fail(path, "%q is not one of %s", s, strings.Join(words, ", "))
		return
	}
	if !printable(s) {
		k.fail(path, "%q holds characters that do not print", s)
	}
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

func (k *checker) duration(key key, d Duration) {
	low, high := tagDuration(key, "min"), tagDuration(key, "max")
	if d.Duration < low || d.Duration > high {
		k.fail(key.path, "%s is not from %s to %s", text(d), text(Duration{low}), text(Duration{high}))
	}
}

func tagDuration(key key, name string) time.Duration {
	d, err := time.ParseDuration(key.field.Tag.Get(name))
	if err != nil {
		panic("config: bad tag " + name + " of " + key.path) // every duration has both, a test sees to it
	}
	return d
}

func (k *checker) number(key key, n uint64) {
	low, high := bounds(key)
	if n < low || n > high {
		k.fail(key.path, "%d is not from %d to %d", n, low, high)
	}
}

// bounds returns the least and greatest value of a key that is a number.
func bounds(key key) (low, high uint64) {
	low, _ = strconv.ParseUint(key.field.Tag.Get("min"), 10, 64)
	high, err := strconv.ParseUint(key.field.Tag.Get("max"), 10, 64)
	if err != nil {
		high = math.MaxUint32
	}
	return low, high
}

func (k *checker) float(key key, f float64) {
	low, _ := strconv.ParseFloat(key.field.Tag.Get("min"), 64)
	high, _ := strconv.ParseFloat(key.field.Tag.Get("max"), 64)
	if !(f >= low && f <= high) { // NaN fails too
		k.fail(key.path, "%v is not from %v to %v", f, low, high)
	}
}

func (k *checker) interfaces(names []string) {
	for i, n := range names {
		bad := n == "" || n == "." || n == ".." || len(n) > 15 || strings.ContainsAny(n, "/: \t")
		if bad {
			k.fail(fmt.Sprintf("interfaces[%d]", i), "%q cannot be an interface name (1 to 15 characters, no slash, colon or space)", n)
		}
	}
}

func (k *checker) paths(c Config) {
	for path, value := range map[string]string{"state_dir": c.StateDir, "socket": c.Socket, "pin.path": c.Pin.Path} {
		if !filepath.IsAbs(value) {
			k.fail(path, "%q is not an absolute path; it must start with /", value)
		}
	}
	if c.Log.File != "" && !filepath.IsAbs(c.Log.File) {
		k.fail("log.file", "%q is not an absolute path; it must start with /, or be empty for standard error", c.Log.File)
	}
	if len(c.Socket) > maxSocketPath {
		k.fail("socket", "path of %d bytes; UNIX sockets allow %d", len(c.Socket), maxSocketPath)
	}
	slices.SortFunc(k.errs, func(a, b *Error) int { return strings.Compare(a.Path, b.Path) })
}

func (k *checker) list(path string, list []ListEntry, most uint32) {
	if len(list) > int(most) {
		k.fail(path, "%d entries, but lists.max_entries is %d", len(list), most)
	}
	first := make(map[netip.Prefix]int, len(list))
	for i, e := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		k.prefix(at, e.Prefix)
		if j, twice := first[e.Prefix]; twice {
			k.fail(at, "%s is listed already, as %s[%d]", e.Prefix, path, j)
		} else {
			first[e.Prefix] = i
		}
		if !printable(e.Comment) {
			k.fail(at+".comment", "%q holds characters that do not print", e.Comment)
		}
	}
}

// prefix checks one that code has set; those read from a file are in order.
func (k *checker) prefix(path string, p netip.Prefix) {
	if !p.IsValid() || p.Addr().Is4In6() || p.Masked() != p {
		k.fail(path, "%s is not a masked IPv4 or IPv6 prefix", p)
	}
}

// single checks keys that have a rule of their own.
func (k *checker) single(c Config) {
	if c.OnExit == ExitKeep && !c.Pin.Enabled {
		k.fail("on_exit", "keep needs pin.enabled: without pins the program goes with the process")
	}
	if d := c.StatsInterval.Duration; d > 0 && d < time.Second {
		k.fail("stats_interval", "%s is shorter than 1s; 0s turns it off", text(c.StatsInterval))
	}
	page := uint32(os.Getpagesize())
	if n := c.Events.RingBytes; n&(n-1) != 0 || n%page != 0 {
		k.fail("events.ring_bytes", "%d is not a power of two and a multiple of the page size %d", n, page)
	}
}

func text(d Duration) string {
	b, _ := d.MarshalText() // never fails
	return string(b)
}
