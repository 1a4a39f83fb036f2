// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// A page holds up to pageEntries entries of a list in their order: a million single
// ones would take a gigabyte of memory and seconds to write. Its key is the place of
// the first, as placeOf has it. Its value is the CRC-32C of key and rest, big endian,
// then for each entry
//
//	place    5 or 17 bytes, after a byte 4 or 6
//	flags    1 byte: pageSame, or pageForced and pageEnds as they apply
//	created, expires (with pageEnds)   varint of the Unix time's seconds, uvarint of nanoseconds
//	origin, comment                    uvarint of the length, bytes
//
// where pageSame stands for all of it but the place: it is as in the entry before.
const (
	pageEntries = 512
	manyAltered = 1024 // fewer entries are written one by one

	pageForced = 1
	pageEnds   = 2
	pageSame   = 4

	pageSum = 4 // bytes of the CRC
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errPage    = errors.New("is cut short or was changed")
)

func pagesOf(list traffic.List) []byte { return []byte(list.String() + " pages") }

// appendPlace appends a prefix such that bytes and prefixes have the same order.
func appendPlace(b []byte, p netip.Prefix) []byte {
	if p.Addr().Is4() {
		a := p.Addr().As4()
		b = append(append(b, 4), a[:]...)
	} else {
		a := p.Addr().As16()
		b = append(append(b, 6), a[:]...)
	}
	return append(b, byte(p.Bits()))
}

// writePages writes a list as pages in place of all that the journal has of it.
func writePages(tx *bolt.Tx, c *change) error {
	if err := tx.DeleteBucket(bucketOf(c.list)); err != nil {
		return err
	}
	if tx.Bucket(pagesOf(c.list)) != nil {
		if err := tx.DeleteBucket(pagesOf(c.list)); err != nil {
			return err
		}
	}
	if _, err := tx.CreateBucket(bucketOf(c.list)); err != nil {
		return err
	}
	pages, err := tx.CreateBucket(pagesOf(c.list))
	if err != nil {
		return err
	}
	pages.FillPercent = 1 // they come in order, and stay as they are
	if err := fillPages(pages, c); err != nil {
		return err
	}
	return tx.Bucket(metaBucket).Put(schemaKey, []byte(schemaPages))
}

func fillPages(pages *bolt.Bucket, c *change) error {
	var key, page []byte
	var last *wish
	n := 0
	flush := func() error {
		if n == 0 {
			return nil
		}
		binary.BigEndian.PutUint32(page, checksum(key, page[pageSum:]))
		n = 0
		return pages.Put(key, page)
	}
	for _, s := range c.remaining() {
		p, w := s.prefix, s.after.own
		if w == nil {
			continue
		}
		if n == pageEntries {
			if err := flush(); err != nil {
				return err
			}
		}
		if n == 0 { // the bucket keeps both slices until the transaction ends
			key, page, last = appendPlace(nil, p), make([]byte, pageSum, 16*pageEntries), nil
		}
		page = appendWish(appendPlace(page, p), w, last)
		last = w
		n++
	}
	return flush()
}

func checksum(key, rest []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, rest)
}

func appendWish(b []byte, w, last *wish) []byte {
	if last != nil && (w == last || w.equal(*last)) {
		return append(b, pageSame)
	}
	var flags byte
	if w.forced {
		flags |= pageForced
	}
	if !w.expires.IsZero() {
		flags |= pageEnds
	}
	b = appendTime(append(b, flags), w.created)
	if flags&pageEnds != 0 {
		b = appendTime(b, w.expires)
	}
	for _, text := range [...]string{w.origin, w.comment} {
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	return b
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.AppendUvarint(binary.AppendVarint(b, t.Unix()), uint64(t.Nanosecond()))
}

// readPage passes on the entries of a page. Those with equal wishes share one.
func readPage(key, value []byte, each func(netip.Prefix, *wish)) error {
	if len(value) < pageSum || binary.BigEndian.Uint32(value) != checksum(key, value[pageSum:]) {
		return fmt.Errorf("page %x %w", key, errPage)
	}
	r := pageReader{rest: value[pageSum:]}
	var last *wish
	for len(r.rest) > 0 {
		p := r.place()
		last = r.wish(last)
		if r.bad || last == nil || checkPrefix(p) != nil {
			return fmt.Errorf("page %x %w", key, errPage)
		}
		each(p, last)
	}
	return nil
}

// pageReader takes a page apart; bad once there is less than should be.
type pageReader struct {
	rest []byte
	bad  bool
}

func (r *pageReader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.bad = true
		return make([]byte, min(n, 16))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *pageReader) place() netip.Prefix {
	var a netip.Addr
	if r.bytes(1)[0] == 4 {
		a = netip.AddrFrom4([4]byte(r.bytes(4)))
	} else {
		a = netip.AddrFrom16([16]byte(r.bytes(16)))
	}
	return netip.PrefixFrom(a, int(r.bytes(1)[0]))
}

func (r *pageReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	r.bad = r.bad || n <= 0
	r.bytes(uint64(max(n, 0)))
	return v
}

func (r *pageReader) time() time.Time {
	sec, n := binary.Varint(r.rest)
	r.bad = r.bad || n <= 0
	r.bytes(uint64(max(n, 0)))
	return time.Unix(sec, int64(r.uvarint())).UTC()
}

func (r *pageReader) wish(last *wish) *wish {
	flags := r.bytes(1)[0]
	if flags == pageSame {
		return last
	}
	w := &wish{forced: flags&pageForced != 0, created: r.time()}
	if flags&pageEnds != 0 {
		w.expires = r.time()
	}
	w.origin = string(r.bytes(r.uvarint()))
	w.comment = string(r.bytes(r.uvarint()))
	return w
}

// onPage reports whether a prefix stands on one of the pages; nil: there are none.
func onPage(pages *bolt.Bucket, p netip.Prefix) (found bool, err error) {
	if pages == nil {
		return false, nil
	}
	place := appendPlace(nil, p)
	c := pages.Cursor()
	key, value := c.Seek(place)
	switch {
	case key == nil: // behind the first place of the last page
		key, value = c.Last()
	case !bytes.Equal(key, place): // this is the page behind
		key, value = c.Prev()
	}
	if key == nil {
		return false, nil
	}
	err = readPage(key, value, func(q netip.Prefix, _ *wish) { found = found || p == q })
	return found, err
}
