// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

const (
	schemaSingles = "1" // no pages, as the first versions wrote it
	schemaPages   = "2" // from the first page on
	lockTimeout   = time.Second
)

var (
	metaBucket = []byte("sentinel-x")
	schemaKey  = []byte("schema")
	journaled  = []traffic.List{traffic.ListBlock, traffic.ListAllow}
)

// journal keeps the wishes of operators in a bbolt file. Each list has a bucket
// of single entries, with the binary prefix as key and a record as JSON, and, once
// it was changed as a whole, one of pages (see journalpage.go). A single entry
// counts before that of a page; an empty value takes it off.
type journal struct {
	path string
	db   *bolt.DB
}

// record is the value of a journalled entry.
type record struct {
	Expires *time.Time `json:"expires,omitempty"`
	Created time.Time  `json:"created"`
	Forced  bool       `json:"forced,omitempty"`
	Origin  string     `json:"origin"`
	Comment string     `json:"comment,omitempty"`
}

// openJournal opens or creates the file. One that is no journal, is damaged, or
// is in use stays as it is.
func openJournal(path string) (*journal, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the state directory: %w; set state_dir to a directory that can be written", err)
	}
	j := &journal{path: path}
	err := j.careful(func() (err error) {
		j.db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType})
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("another sentinel-x uses the state directory %s: stop it, or set state_dir to another directory", dir)
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return nil, fmt.Errorf("open the journal: %w; run as root, or set state_dir to a directory that can be written", err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		return nil, j.unusable(err)
	case err != nil:
		return nil, fmt.Errorf("open the journal %s: %w", path, err)
	}
	if err := j.careful(j.prepare); err != nil {
		return nil, closeAfter(err, j)
	}
	return j, nil
}

// prepare checks that the file is ours, or makes it so if it is empty.
func (j *journal) prepare() error {
	empty := false
	err := j.db.View(func(tx *bolt.Tx) error {
		name, _ := tx.Cursor().First()
		empty = name == nil
		if empty {
			return nil
		}
		return j.check(tx)
	})
	if err == nil && empty {
		err = j.db.Update(createBuckets)
	}
	return err
}

func (j *journal) check(tx *bolt.Tx) error {
	if n, err := j.size(); err != nil || n < tx.Size() {
		return j.unusable(cmp.Or(err, errors.New("damaged: its end is missing")))
	}
	meta := tx.Bucket(metaBucket)
	if meta == nil {
		return j.unusable(errors.New("it belongs to another program"))
	}
	if got := string(meta.Get(schemaKey)); got != schemaSingles && got != schemaPages {
		return j.unusable(fmt.Errorf("it has schema %q, this sentinel-x knows %q and %q: it was written by another version", got, schemaSingles, schemaPages))
	}
	for _, list := range journaled {
		if tx.Bucket(bucketOf(list)) == nil {
			return j.unusable(fmt.Errorf("it lacks the %s list", list))
		}
	}
	return nil
}

func createBuckets(tx *bolt.Tx) error {
	meta, err := tx.CreateBucket(metaBucket)
	if err != nil {
		return err
	}
	for _, list := range journaled {
		if _, err := tx.CreateBucket(bucketOf(list)); err != nil {
			return err
		}
	}
	return meta.Put(schemaKey, []byte(schemaSingles))
}

func bucketOf(list traffic.List) []byte { return []byte(list.String()) }

func (j *journal) unusable(why error) error {
	return fmt.Errorf("%s is not a usable journal (%w): move it away to start with empty lists; nothing in it was changed", j.path, why)
}

// careful runs f on a file whose content may be damaged. The library then
// panics, or reads beyond the mapped file, which is a fault.
func (j *journal) careful(f func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(before)
	defer func() {
		if p := recover(); p != nil {
			err = j.unusable(fmt.Errorf("damaged: %v", p))
		}
	}()
	return f()
}

// read passes every record on; nil takes back one that came before.
func (j *journal) read(each func(traffic.List, netip.Prefix, *wish)) error {
	return j.careful(func() error {
		return j.db.View(func(tx *bolt.Tx) error {
			for _, list := range journaled {
				err := readList(tx, list, func(p netip.Prefix, w *wish) { each(list, p, w) })
				if err != nil {
					return j.unusable(fmt.Errorf("damaged: %w", err))
				}
			}
			return nil
		})
	})
}

func readList(tx *bolt.Tx, list traffic.List, each func(netip.Prefix, *wish)) error {
	if pages := tx.Bucket(pagesOf(list)); pages != nil {
		err := pages.ForEach(func(k, v []byte) error { return readPage(k, v, each) })
		if err != nil {
			return err
		}
	}
	return tx.Bucket(bucketOf(list)).ForEach(func(k, v []byte) error {
		p, w, err := decode(k, v)
		if err != nil {
			return err
		}
		each(p, w)
		return nil
	})
}

func (j *journal) size() (int64, error) {
	info, err := os.Stat(j.path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func decode(k, v []byte) (netip.Prefix, *wish, error) {
	var p netip.Prefix
	if err := p.UnmarshalBinary(k); err != nil {
		return p, nil, fmt.Errorf("key %x: %w", k, err)
	}
	if checkPrefix(p) != nil {
		return p, nil, fmt.Errorf("key %x is no prefix", k)
	}
	if len(v) == 0 {
		return p, nil, nil
	}
	var r record
	if err := json.Unmarshal(v, &r); err != nil {
		return p, nil, fmt.Errorf("entry %s: %w", p, err)
	}
	w := &wish{created: r.Created, forced: r.Forced, origin: r.Origin, comment: r.Comment}
	if r.Expires != nil {
		w.expires = *r.Expires
	}
	return p, w, nil
}

// write stores, in one transaction, what the changes alter of the wishes that
// are journalled. It returns when the file is synced.
func (j *journal) write(plan []*change) error {
	var altered [][]step
	n := 0
	for _, c := range plan {
		altered = append(altered, c.altered())
		n += len(altered[len(altered)-1])
	}
	if n == 0 {
		return nil
	}
	err := j.careful(func() error {
		return j.db.Update(func(tx *bolt.Tx) error {
			for i, c := range plan {
				if err := writeList(tx, c, altered[i]); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("write the journal %s: %w", j.path, err)
	}
	return nil
}

// altered returns the steps of which the journal must learn.
func (c *change) altered() []step {
	altered := c.steps
	if slices.ContainsFunc(altered, step.silent) { // mostly there is none
		altered = slices.DeleteFunc(slices.Clone(altered), step.silent)
	}
	return altered
}

// silent reports whether the journal says already what is to be.
func (s step) silent() bool { return s.before.own == s.after.own }

// writeList writes the entries that were altered, or, if they are a good part of
// the list, all of it as pages.
func writeList(tx *bolt.Tx, c *change, altered []step) error {
	if len(altered) >= manyAltered && len(altered) >= len(c.before)/16 {
		return writePages(tx, c)
	}
	b, pages := tx.Bucket(bucketOf(c.list)), tx.Bucket(pagesOf(c.list))
	for _, s := range altered { // in key order, which is much faster for a tree
		if err := writeSingle(b, pages, s.prefix, s.after.own); err != nil {
			return err
		}
	}
	return nil
}

func writeSingle(b, pages *bolt.Bucket, p netip.Prefix, w *wish) error {
	key, err := p.MarshalBinary()
	if err != nil {
		return err
	}
	if w != nil {
		r := record{Created: w.created, Forced: w.forced, Origin: w.origin, Comment: w.comment}
		if !w.expires.IsZero() {
			r.Expires = &w.expires
		}
		value, err := json.Marshal(r)
		if err != nil {
			return err
		}
		return b.Put(key, value)
	}
	paged, err := onPage(pages, p)
	if err != nil {
		return err
	}
	if paged {
		return b.Put(key, nil)
	}
	return b.Delete(key)
}

func (j *journal) close() error {
	if err := j.db.Close(); err != nil {
		return fmt.Errorf("close the journal %s: %w", j.path, err)
	}
	return nil
}

func closeAfter(err error, j *journal) error { return errors.Join(err, j.close()) }
