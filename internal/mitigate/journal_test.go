// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

func openAt(path string) (*Ledger, error) {
	return Open(Options{Path: path, Enforcer: newEnforcer(), MaxEntries: 1000, Now: func() time.Time { return start }})
}

func TestRestart(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("192.0.2.0/24", "why"), entry("198.51.100.0/24", time.Minute), entry("2001:db8::/32", time.Hour))
	mustAdd(t, b, allow, entry("203.0.113.1/32"))
	_, err := b.Add(allow, []traffic.Entry{entry("::/0")}, AddOptions{Force: true})
	mustDo(t, err)
	mustDo(t, b.SetConfig([]traffic.Entry{entry("203.0.113.0/24")}, nil))
	mustDo(t, b.Close())

	b.now = start.Add(time.Minute)
	b.enforcer = newEnforcer()
	b.enforcer.lists[block][netip.MustParsePrefix("10.0.0.0/8")] = verdict{} // left by somebody
	b.open(t)
	mustDo(t, b.Restore())
	wantEntries(t, b, block, "192.0.2.0/24 operator # why", "2001:db8::/32 operator until +1h0m0s")
	wantEntries(t, b, allow, "203.0.113.1/32 operator", "::/0 operator")
	info, err := os.Stat(b.path)
	mustDo(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("journal has mode %v", info.Mode())
	}
}

func TestRestoreRefusesToForget(t *testing.T) {
	b := newBench(t, 100)
	mustAdd(t, b, block, entry("192.0.2.0/24"), entry("198.51.100.0/24"))
	mustDo(t, b.Close())
	b.max = 1
	b.open(t)
	err := b.Restore()
	if err == nil || !strings.Contains(err.Error(), "holds 2 entries of the block list, but lists.max_entries is 1: raise it") {
		t.Errorf("%v", err)
	}
	mustDo(t, b.Close())
	b.max = 2
	b.open(t)
	mustDo(t, b.Restore())
	wantEntries(t, b, block, "192.0.2.0/24 operator", "198.51.100.0/24 operator")
}

func TestJournalInUse(t *testing.T) {
	b := newBench(t, 100)
	_, err := openAt(b.path)
	want := fmt.Sprintf("another sentinel-x uses the state directory %s: stop it, or set state_dir to another directory", filepath.Dir(b.path))
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	mustAdd(t, b, block, entry("192.0.2.0/24"))
	b.check(t)
}

func TestUnwritableStateDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	mustDo(t, os.WriteFile(file, nil, 0o600))
	_, err := openAt(filepath.Join(file, "sub", "journal.db"))
	if !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), "set state_dir to a directory that can be written") {
		t.Errorf("%v", err)
	}
	_, err = openAt("/proc/journal.db")
	if err == nil || !strings.Contains(err.Error(), "open the journal") || !strings.Contains(err.Error(), "/proc/journal.db") {
		t.Errorf("%v", err)
	}
}

// dump returns the bytes of a journal with some entries.
func dump(t *testing.T) []byte {
	t.Helper()
	b := newBench(t, 1000)
	var entries []traffic.Entry
	for i := range 500 {
		entries = append(entries, entry(fmt.Sprintf("203.0.%d.%d/32", i/250, i%250), "some comment"))
	}
	mustAdd(t, b, block, entries...)
	mustDo(t, b.Close())
	data, err := os.ReadFile(b.path)
	mustDo(t, err)
	b.open(t) // for the clean-up
	return data
}

func bolted(t *testing.T, fill func(tx *bolt.Tx) error) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := bolt.Open(path, 0o600, nil)
	mustDo(t, err)
	mustDo(t, db.Update(fill))
	mustDo(t, db.Close())
	data, err := os.ReadFile(path)
	mustDo(t, err)
	return data
}

func put(tx *bolt.Tx, bucket, key, value string) error {
	b, err := tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return err
	}
	return b.Put([]byte(key), []byte(value))
}

// A file that cannot be used is named, the way out is said, and it stays as it is.
func TestUnusableJournal(t *testing.T) {
	good := dump(t)
	listed := func(key, value string) []byte {
		return bolted(t, func(tx *bolt.Tx) error {
			return errors.Join(put(tx, "sentinel-x", "schema", "1"), put(tx, "allow", string([]byte{192, 0, 2, 0, 24}), `{"origin":"operator"}`), put(tx, "block", key, value))
		})
	}
	files := map[string]struct {
		data []byte
		want string
	}{
		"text":               {[]byte("not a database\n"), "invalid database"},
		"long text":          {bytes.Repeat([]byte("not a database\n"), 10000), "invalid database"},
		"zeros":              {make([]byte, 1<<16), "invalid database"},
		"cut":                {good[:len(good)/2], ""},
		"cut behind the top": {good[:8192], ""},
		"another program's":  {bolted(t, func(tx *bolt.Tx) error { return put(tx, "theirs", "a", "b") }), "it belongs to another program"},
		"newer": {
			bolted(t, func(tx *bolt.Tx) error { return put(tx, "sentinel-x", "schema", "3") }),
			`it has schema "3", this sentinel-x knows "1" and "2": it was written by another version`,
		},
		"without lists": {bolted(t, func(tx *bolt.Tx) error { return put(tx, "sentinel-x", "schema", "1") }), "it lacks the block list"},
		"odd key":       {listed("xx", "{}"), "damaged: key 7878"},
		"unmasked key":  {listed(string([]byte{192, 0, 2, 1, 24}), "{}"), "is no prefix"},
		"odd value":     {listed(string([]byte{192, 0, 2, 0, 24}), "{"), "damaged: entry 192.0.2.0/24"},
	}
	for name, f := range files {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.db")
			mustDo(t, os.WriteFile(path, f.data, 0o600))
			l, err := openAt(path)
			if err == nil {
				t.Fatalf("opened, with %d entries", l.Count(block))
			}
			for _, want := range []string{path + " is not a usable journal", f.want, "move it away to start with empty lists"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, f.data) {
				t.Errorf("the file was changed (%v)", err)
			}
		})
	}
}

// Damage anywhere is an error or is harmless, never the end of the process.
func TestDamagedJournal(t *testing.T) {
	good := dump(t)
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for n := range 400 {
		data := bytes.Clone(good)
		if n%2 == 0 {
			data = data[:r.IntN(len(data))]
		}
		for range n % 5 {
			if len(data) > 0 {
				data[r.IntN(len(data))] ^= 1 << r.IntN(8)
			}
		}
		path := filepath.Join(t.TempDir(), "journal.db")
		mustDo(t, os.WriteFile(path, data, 0o600))
		l, err := openAt(path)
		if err != nil {
			refused++
			continue
		}
		if _, err := l.Add(block, []traffic.Entry{entry("192.0.2.0/24")}, AddOptions{}); err == nil {
			l.Entries(block)
		}
		_ = l.Close() // may fail: the file is damaged
	}
	if refused < 100 {
		t.Errorf("only %d of 400 damaged files were refused", refused)
	}
}

func TestEmptyFileBecomesJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	mustDo(t, os.WriteFile(path, nil, 0o600))
	l, err := openAt(path)
	mustDo(t, err)
	mustDo(t, l.Close())
}
