// SPDX-License-Identifier: Apache-2.0

package mitigate

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

// signatureBucket holds the armed rules: their ID, big endian, as key, a
// signatureRecord as JSON. Its sequence is the highest ID ever given. A journal
// of a version without signatures lacks it until the first rule is armed.
var signatureBucket = []byte("signatures")

// signatureRecord is the value of a journalled rule. The rule is kept as canonical
// text: what a later version's fields mean cannot be mistaken then.
type signatureRecord struct {
	Text    string     `json:"text"`
	Rule    string     `json:"rule"` // without the filter
	Filter  string     `json:"filter,omitempty"`
	Action  string     `json:"action"`
	Rate    uint64     `json:"rate,omitempty"`
	Ceiling float64    `json:"ceiling"`
	Expires *time.Time `json:"expires,omitempty"`
	Created time.Time  `json:"created"`
	Origin  string     `json:"origin"`
	Comment string     `json:"comment,omitempty"`
}

func recordOf(s signature.Armed) signatureRecord {
	r := signatureRecord{
		Text: s.Text, Action: s.Action.String(), Rate: s.Rate, Ceiling: s.Ceiling,
		Created: s.Created, Origin: s.Origin, Comment: s.Comment, Filter: s.Rule.Filter,
	}
	plain := s.Rule
	plain.Filter = ""
	r.Rule = plain.String()
	if !s.Expires.IsZero() {
		r.Expires = &s.Expires
	}
	return r
}

// armed reads a record back.
func (r signatureRecord) armed(id uint64) (signature.Armed, error) {
	action, ok := signature.ParseAction(r.Action)
	if !ok {
		return signature.Armed{}, fmt.Errorf("action %q", r.Action)
	}
	rule, err := signature.Parse(r.Rule)
	if err != nil {
		return signature.Armed{}, err
	}
	rule.Filter = r.Filter
	s := signature.Armed{
		ID: id, Text: r.Text, Rule: rule, Action: action, Rate: r.Rate, Ceiling: r.Ceiling,
		Created: r.Created, Origin: r.Origin, Comment: r.Comment,
	}
	if r.Expires != nil {
		s.Expires = *r.Expires
	}
	return s, nil
}

// readSignatures returns the journalled rules in the order of their IDs, and the highest ID ever given.
func (j *journal) readSignatures() (armed []signature.Armed, last uint64, err error) {
	err = j.careful(func() error {
		return j.db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket(signatureBucket)
			if b == nil {
				return nil
			}
			last = b.Sequence()
			return b.ForEach(func(k, v []byte) error {
				s, err := decodeSignature(k, v)
				if err != nil {
					return j.unusable(fmt.Errorf("damaged: %w", err))
				}
				armed = append(armed, s)
				return nil
			})
		})
	})
	for _, s := range armed {
		last = max(last, s.ID)
	}
	return armed, last, err
}

func decodeSignature(k, v []byte) (signature.Armed, error) {
	if len(k) != 8 {
		return signature.Armed{}, fmt.Errorf("signature key %x", k)
	}
	id := binary.BigEndian.Uint64(k)
	var r signatureRecord
	if err := json.Unmarshal(v, &r); err != nil {
		return signature.Armed{}, fmt.Errorf("signature %d: %w", id, err)
	}
	s, err := r.armed(id)
	if err == nil {
		err = s.Rule.Validate()
	}
	if err != nil {
		return signature.Armed{}, fmt.Errorf("signature %d: %w", id, err)
	}
	return s, nil
}

// writeSignatures stores, in one transaction, the set that takes the place of all
// that are there, and the highest ID. It returns when the file is synced.
func (j *journal) writeSignatures(next []signature.Armed, last uint64) error {
	err := j.careful(func() error {
		return j.db.Update(func(tx *bolt.Tx) error {
			if tx.Bucket(signatureBucket) != nil {
				if err := tx.DeleteBucket(signatureBucket); err != nil {
					return err
				}
			}
			b, err := tx.CreateBucket(signatureBucket)
			if err != nil {
				return err
			}
			for _, s := range next {
				value, err := json.Marshal(recordOf(s))
				if err != nil {
					return err
				}
				if err := b.Put(binary.BigEndian.AppendUint64(nil, s.ID), value); err != nil {
					return err
				}
			}
			return b.SetSequence(last)
		})
	})
	if err != nil {
		return fmt.Errorf("write the journal %s: %w", j.path, err)
	}
	return nil
}
