// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"bytes"
	"compress/gzip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestTemplatesOfTheProgram(t *testing.T) {
	list := Templates()
	flows := map[Class]int{}
	for i := range list {
		t := &list[i]
		flows[t.Class]++
	}
	for _, p := range Profiles {
		for class := range p.Shares {
			if flows[class] < 5 {
				t.Errorf("profile %s: only %d templates of class %s", p.Name, flows[class], class)
			}
		}
		if len(p.routes()) == 0 {
			t.Errorf("profile %s: nothing arrives", p.Name)
		}
	}
	if len(embedded) > 1536<<10 {
		t.Errorf("the template file has %d bytes", len(embedded))
	}
	var b bytes.Buffer
	if err := WriteTemplates(&b, list); err != nil {
		t.Fatal(err)
	}
	again, err := ReadTemplates(&b)
	if err != nil || !reflect.DeepEqual(list, again) {
		t.Errorf("written and read again, the templates differ: %v", err)
	}
}

// oneTemplate has a packet either way.
func oneTemplate() Template {
	return Template{
		Name: "x", Class: ClassWeb, Protocol: protoTCP, ClientPort: 40000, ServerPort: 80, Weight: 1.5,
		Steps: []Step{
			{Length: 60, TTL: 64, DF: true, Flags: flagSYN, DataOffset: 10, Window: 64240},
			{Gap: time.Millisecond, Reverse: true, Length: 60, TTL: 60, Flags: flagSYN | flagACK, DataOffset: 10, Window: 65535},
			{Gap: time.Second, Length: 140, TTL: 64, Flags: flagACK | flagPSH, DataOffset: 8, Window: 501, Head: []byte("GET / HT")},
		},
	}
}

func TestReadTemplatesRefuses(t *testing.T) {
	write := func(change func(*Template)) []byte {
		one := oneTemplate()
		change(&one)
		var b bytes.Buffer
		if err := WriteTemplates(&b, []Template{one}); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	good := write(func(*Template) {})
	if _, err := ReadTemplates(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	var other bytes.Buffer
	z := gzip.NewWriter(&other)
	if _, err := z.Write([]byte("something else that is long enough")); err != nil {
		t.Fatal(err)
	}
	z.Close()
	for name, file := range map[string][]byte{
		"gzip":          []byte("not compressed"),
		"version":       other.Bytes(),
		"protocol 47":   write(func(t *Template) { t.Protocol = 47 }),
		"without":       write(func(t *Template) { t.Steps = nil }),
		"more than":     write(func(t *Template) { t.Steps[0].Length = 1501 }),
		"no room":       write(func(t *Template) { t.Steps[2].Length = 55 }),
		"no room ":      write(func(t *Template) { t.Steps[0].DataOffset = 4 }),
		"more than 102": write(func(t *Template) { t.Steps = make([]Step, 2000) }),
		"more than 32":  write(func(t *Template) { t.Steps[2].Head = make([]byte, 40) }),
		"EOF":           good[:len(good)-12],
	} {
		if _, err := ReadTemplates(bytes.NewReader(file)); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the reader takes can be composed, and is written and read back the same.
func FuzzReadTemplates(f *testing.F) {
	for _, head := range [][]byte{nil, {1, 2, 3, 4}} {
		one := oneTemplate()
		one.Steps[2].Head = head
		var b bytes.Buffer
		if err := WriteTemplates(&b, []Template{one}); err != nil {
			f.Fatal(err)
		}
		z, err := gzip.NewReader(&b)
		if err != nil {
			f.Fatal(err)
		}
		var plain bytes.Buffer
		if _, err := plain.ReadFrom(z); err != nil {
			f.Fatal(err)
		}
		f.Add(plain.Bytes())
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		var file bytes.Buffer
		z := gzip.NewWriter(&file)
		if _, err := z.Write(plain); err != nil {
			t.Fatal(err)
		}
		z.Close()
		list, err := ReadTemplates(&file)
		if err != nil {
			return
		}
		for i := range list[:min(len(list), 20)] {
			for _, reverse := range []bool{false, true} {
				r := newRoute(&list[i], reverse)
				if r == nil {
					continue
				}
				c := &crowd{rng: newRNG(1, "fuzz"), tide: newTide(Poisson, 1), surge: &Surge{Hold: time.Second}, people: newPeople(Population{}, 1)}
				c.targets[0] = []address{{lo: 0xc6336407}}
				r.weight = 1
				c.routes = []*route{r}
				c.begin(100)
				n := 0
				for p := range All(Until(c, time.Hour)) {
					if err := checkFrame(p.Frame); err != nil {
						t.Fatalf("%v: % x", err, p.Frame)
					}
					if n++; n > 200 {
						break
					}
				}
			}
		}
		var b bytes.Buffer
		if err := WriteTemplates(&b, list); err != nil {
			t.Fatal(err)
		}
		if again, err := ReadTemplates(&b); err != nil || !reflect.DeepEqual(list, again) {
			t.Fatalf("read back: %v", err)
		}
	})
}
