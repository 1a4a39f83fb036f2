// SPDX-License-Identifier: Apache-2.0

package detect

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-x/sentinel-x/internal/model"
	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// otherHost is a second target of a bank.
var otherHost = traffic.HostTarget(netip.MustParseAddr("192.0.2.77"))

// randomVector is calm for far 0.
func randomVector(r *rand.Rand, far float64) Vector {
	v := make(Vector, NumFeatures())
	for i := range v {
		v[i] = float32(far + 0.2*r.NormFloat64())
	}
	return v
}

// schooled returns a bank of which the first targets have armed learners, and the time.
func schooled(t testing.TB, p model.LearnerParams, most int, targets ...traffic.Target) (*Bank, time.Time) {
	t.Helper()
	bank, err := NewBank(most, p)
	if err != nil {
		t.Fatal(err)
	}
	r, at := rand.New(rand.NewPCG(7, 7)), epoch
	observe := func(ticks int) {
		for range ticks {
			at = at.Add(traffic.Tick)
			for _, target := range targets {
				bank.Observe(target, model.Window{At: at, Row: randomVector(r, 0), Calm: true, Source: r.Uint32(), Share: 0.05})
			}
		}
	}
	observe(2700)
	for range targets {
		target, shadow := bank.Due(at)
		if shadow == nil {
			t.Fatal("no training is due")
		}
		c, err := shadow.Train(func(*model.Candidate) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		bank.Take(target, c)
	}
	observe(2700)
	if all, armed := bank.Learners(); all != len(targets) || armed != len(targets) {
		t.Fatalf("%d learners, %d armed", all, armed)
	}
	return bank, at
}

func bankText(t testing.TB, b *Bank) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := b.Snapshot().Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// smallLearners are learners that a fuzzer gets through.
var smallLearners = model.LearnerParams{
	Rows: 64, Calm: model.CalmParams{Windows: 32},
	Forest: model.ForestParams{Trees: 2, Sample: 4}, HalfSpace: model.HalfSpaceParams{Trees: 1, Depth: 2, Window: 10},
}

// TestBankOutlivesARestart: who was armed is armed and says the same; who had no
// model yet is not in the file, and a target that was first seen later does not push out those of before.
func TestBankOutlivesARestart(t *testing.T) {
	bank, at := schooled(t, model.LearnerParams{}, 3, victim, victims)
	bank.Observe(otherHost, model.Window{At: at, Row: make(Vector, NumFeatures()), Calm: true})
	data := bankText(t, bank)
	again, err := NewBank(2, model.LearnerParams{})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Read(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if all, armed := again.Learners(); all != 2 || armed != 2 {
		t.Fatalf("%d learners, %d armed", all, armed)
	}
	r := rand.New(rand.NewPCG(8, 8))
	for i := range 200 {
		v := randomVector(r, float64(i%2)*3)
		for _, target := range []traffic.Target{victim, victims} {
			if a, b := bank.Forest().Score(target, v), again.Forest().Score(target, v); a != b || a.objects() != (i%2 == 1) {
				t.Fatalf("%s: forest %+v, read again %+v", target, a, b)
			}
			if a, b := bank.Online().Score(target, v), again.Online().Score(target, v); a != b || !a.Armed {
				t.Fatalf("%s: online %+v, read again %+v", target, a, b)
			}
		}
	}
	later := at.Add(48 * time.Hour)
	again.Observe(otherHost, model.Window{At: later, Row: make(Vector, NumFeatures()), Calm: true})
	if again.own[otherHost] != nil || again.own[victim] == nil || again.own[victims] == nil {
		t.Error("the time that the program was down counted as silence")
	}
	t.Logf("a learner has %d bytes in the file", len(data)/2)
	few, err := NewBank(1, model.LearnerParams{})
	if err != nil {
		t.Fatal(err)
	}
	if err := few.Read(bytes.NewReader(data)); err != nil || len(few.own) != 1 || few.own[victim] == nil {
		t.Errorf("a smaller bank has %d, %v", len(few.own), err)
	}
}

// sealed puts the checksum behind.
func sealed(body []byte) []byte {
	return binary.LittleEndian.AppendUint32(body, crc32.ChecksumIEEE(body))
}

// bankFile is a file with one learner of any text.
func bankFile(target string, text []byte) []byte {
	var packed bytes.Buffer
	z, _ := flate.NewWriter(&packed, flate.BestSpeed)
	_, _ = z.Write(text)
	_ = z.Close()
	b := append([]byte(learnersMagic), 1, 0, 0, 0, byte(len(target)))
	b = binary.LittleEndian.AppendUint32(append(b, target...), uint32(packed.Len()))
	return sealed(append(b, packed.Bytes()...))
}

// TestBankRefusesFiles: what is wrong is said, and the bank stays as it is.
func TestBankRefusesFiles(t *testing.T) {
	bank, _ := schooled(t, smallLearners, 2, victim, victims)
	good := bankText(t, bank)
	body := good[:len(good)-4]
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	twice := append([]byte(learnersMagic), 2, 0, 0, 0)
	one := body[len(learnersMagic)+4:]
	one = one[:1+int(one[0])+4+int(binary.LittleEndian.Uint32(one[1+int(one[0]):]))]
	twice = append(append(twice, one...), one...)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":           {nil, "no file of learners"},
		"cut":             {good[:len(good)-9], "checksum"},
		"cut to its name": {[]byte(learnersMagic), "no file of learners"},
		"flipped":         {flipped, "checksum"},
		"foreign version": {append([]byte("sentinel-x learners 2\n"), good[len(learnersMagic):]...), "another version"},
		"baselines":       {append([]byte(baselineMagic), good...), "no file of learners"},
		"huge":            {append(bytes.Clone(good), make([]byte, maxLearnersFile)...), "more than"},
		"many":            {sealed(append([]byte(learnersMagic), 255, 255, 255, 255)), "announces 4294967295"},
		"more":            {sealed(append(bytes.Clone(body), 0)), "1 bytes follow"},
		"fewer":           {sealed(append([]byte(learnersMagic), 1, 0, 0, 0)), "learner 1 of 1: EOF"},
		"twice":           {sealed(twice), "has one already"},
		"target":          {bankFile("nowhere", nil), `"nowhere" is no address`},
		"length":          {sealed(append(append([]byte(learnersMagic), 1, 0, 0, 0, 9), "interface\xff\xff\xff\xff"...)), "4294967295 bytes are announced"},
		"no flate":        {sealed(append(append([]byte(learnersMagic), 1, 0, 0, 0, 9), "interface\x01\x00\x00\x00\xff"...)), "unpack"},
		"no learner":      {bankFile("interface", []byte("{}")), "interface: read learner: the file's format"},
		"a bomb":          {bankFile("interface", make([]byte, maxLearnerBytes+1)), "unpacks to more than"},
	} {
		into, err := NewBank(2, smallLearners)
		if err != nil {
			t.Fatal(err)
		}
		into.Observe(otherHost, model.Window{At: epoch, Row: make(Vector, NumFeatures()), Calm: true})
		if err := into.Read(bytes.NewReader(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if all, _ := into.Learners(); all != 1 || into.own[otherHost] == nil {
			t.Errorf("%s: the bank has changed", name)
		}
	}
}

func FuzzReadBank(f *testing.F) {
	bank, _ := schooled(f, smallLearners, 1, victim)
	good := bankText(f, bank)
	f.Add(good[:len(good)-4])
	f.Add(bankFile("interface", []byte("{}")))
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := NewBank(2, smallLearners)
		if err != nil {
			t.Fatal(err)
		}
		if b.Read(bytes.NewReader(sealed(body))) != nil {
			return
		}
		v := make(Vector, NumFeatures())
		for target := range b.own {
			b.Observe(target, model.Window{At: epoch, Row: v, Calm: true})
			if s := b.Forest().Score(target, v); s.Value < 0 || s.Value > 1 {
				t.Errorf("score %v", s)
			}
		}
		_ = bankText(t, b)
	})
}

// TestBankMemory holds what docs/detection.md says a learner takes: it has to go
// into the daemon's memory as many times as BankTargets.
func TestBankMemory(t *testing.T) {
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := heap()
	bank, at := schooled(t, model.LearnerParams{}, 2, victim, victims)
	each := (heap() - before) / 2 / (1 << 20)
	snapshot := bank.Snapshot()
	copied := (heap()-before)/2/(1<<20) - each
	t.Logf("a learner takes %.2f MiB, its snapshot %.2f MiB", each, copied)
	if each > 1.75 || copied > 0.35 {
		t.Errorf("a learner takes %.2f MiB, its snapshot %.2f MiB", each, copied)
	}
	if s := bank.Forest().Score(victim, randomVector(rand.New(rand.NewPCG(1, 1)), 0)); math.IsNaN(s.Value) || at.IsZero() || len(snapshot.list) != 2 {
		t.Errorf("%+v", s)
	}
}
