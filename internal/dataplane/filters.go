// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cloudflare/cbpfc"

	"github.com/sentinel-x/sentinel-x/internal/dataplane/pcapfilter"
	"github.com/sentinel-x/sentinel-x/internal/signature"
)

// filterPlaces are the functions filter0 … of the packet path whose body a filter can be. There are
// twice as many as filters, so that new ones stand beside those in force.
const filterPlaces = 2 * signature.MaxFilters

// filterSet is the expressions of a loaded program by place; "": none.
type filterSet [filterPlaces]string

// placeFilters finds a place for the filter of every rule, and notes it in slots. The places
// of rules in force keep what they have, so that the program with the new set judges as the old one does
// until the rules change.
func (p *Plane) placeFilters(placed *placedRules, slots *[signature.Slots]armedSlot) (filterSet, error) {
	var next filterSet
	for _, s := range p.armed.slots {
		if s.id != 0 && s.filter != 0 {
			next[s.filter-1] = p.filters[s.filter-1]
		}
	}
	count := 0
	for slot, a := range placed {
		slots[slot].filter = 0
		if a == nil || a.Rule.Filter == "" {
			continue
		}
		if count++; count > signature.MaxFilters {
			return next, fmt.Errorf("signature %d (%s): its expression needs a program of its own, and only %d can have one",
				a.ID, a.Text, signature.MaxFilters)
		}
		slots[slot].filter = uint8(1 + next.place(p.filters, a.Rule.Filter))
	}
	return next, nil
}

// place returns where the expression is, and puts it there: where it is already, or where it was in
// the loaded program, or anywhere.
func (s *filterSet) place(loaded filterSet, expression string) int {
	free := -1
	for i := range s {
		switch {
		case s[i] == expression:
			return i
		case s[i] != "":
		case loaded[i] == expression, free < 0:
			free = i
		}
	}
	s[free] = expression
	return free
}

// without returns whether the set lacks something of the other one.
func (s *filterSet) without(other filterSet) bool {
	for i, expression := range other {
		if expression != "" && s[i] != expression {
			return true
		}
	}
	return false
}

// loadFilters loads the program anew with the filters in it, and puts it in the place of the
// old one on every interface, without a gap. Nothing is done if the loaded one has them.
func (p *Plane) loadFilters(next filterSet) error {
	if !p.filters.without(next) {
		return nil
	}
	spec := p.spec.Copy()
	for i, expression := range next {
		if expression == "" {
			continue
		}
		if err := replaceFilter(spec.Programs[bpfProgSentinel], i, expression); err != nil {
			return fmt.Errorf("filter %q: %w", expression, err)
		}
	}
	var fresh struct {
		Sentinel *ebpf.Program `ebpf:"sentinel"`
	}
	opts := &ebpf.CollectionOptions{MapReplacements: p.shared}
	if err := spec.LoadAndAssign(&fresh, opts); err != nil {
		return explainFilters(next, err)
	}
	if err := p.swapProgram(fresh.Sentinel); err != nil {
		return errors.Join(err, fresh.Sentinel.Close())
	}
	p.filters = next
	return nil
}

// explainFilters says why the kernel did not take the program with these filters.
func explainFilters(filters filterSet, err error) error {
	var expressions []string
	for _, expression := range filters {
		if expression != "" {
			expressions = append(expressions, expression)
		}
	}
	if _, refused := errors.AsType[*ebpf.VerifierError](err); refused {
		return fmt.Errorf("the kernel's verifier refused the packet path with the filters %q: %w", expressions, err)
	}
	return fmt.Errorf("load the packet path with the filters %q: %w", expressions, err)
}

// swapProgram puts another program in the place of the one that is loaded, on all interfaces or on none.
func (p *Plane) swapProgram(fresh *ebpf.Program) error {
	var done []*attached
	for _, a := range p.links {
		err := a.link.Update(fresh)
		if err == nil {
			done = append(done, a)
			continue
		}
		err = fmt.Errorf("replace the program on %s: %w", a.Interface, err)
		for _, a := range done {
			err = errors.Join(err, a.link.Update(p.objs.Sentinel))
		}
		return err
	}
	p.running.Lock()
	old := p.objs.Sentinel
	p.objs.Sentinel = fresh
	p.running.Unlock()
	for _, a := range done {
		if err := p.describeLink(a); err != nil {
			p.log.Warn("the program was replaced, but its number is not known", "interface", a.Interface, "error", err)
		}
	}
	return old.Close()
}

// replaceFilter makes the expression the body of function filter<place> of the program.
func replaceFilter(prog *ebpf.ProgramSpec, place int, expression string) error {
	name := fmt.Sprintf("filter%d", place)
	begin, end := findFunction(prog.Instructions, name)
	if begin < 0 {
		return fmt.Errorf("the packet path has no function %s", name)
	}
	body, err := compileFilter(name, expression)
	if err != nil {
		return err
	}
	// What the kernel is told about a function hangs on its first instruction.
	first := prog.Instructions[begin]
	body[0] = btf.WithFuncMetadata(body[0].WithSymbol(name), btf.FuncMetadata(&first)).WithSource(first.Source())
	instructions := append(asm.Instructions{}, prog.Instructions[:begin]...)
	instructions = append(instructions, body...)
	prog.Instructions = append(instructions, prog.Instructions[end:]...)
	return nil
}

// findFunction returns where the function begins and where the next one does; -1: it is not there.
func findFunction(all asm.Instructions, name string) (begin, end int) {
	begin = -1
	for i := range all {
		switch f := btf.FuncMetadata(&all[i]); {
		case f == nil:
		case begin >= 0:
			return begin, i
		case f.Name == name:
			begin = i
		}
	}
	return begin, len(all)
}

// compileFilter returns a function of struct xdp_md: 1 for a frame whose linear part matches, else 0.
func compileFilter(name, expression string) (asm.Instructions, error) {
	classic, err := pcapfilter.Compile(expression)
	if err != nil {
		return nil, err
	}
	result := name + "_result"
	body, err := cbpfc.ToEBPF(classic, cbpfc.EBPFOpts{
		PacketStart: asm.R2, PacketEnd: asm.R3, Result: asm.R0, ResultLabel: result,
		Working: [4]asm.Register{asm.R4, asm.R5, asm.R6, asm.R7}, LabelPrefix: name,
	})
	if err != nil {
		return nil, fmt.Errorf("compile to BPF: %w", err)
	}
	program := asm.Instructions{
		// data and data_end of struct xdp_md
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word),
	}
	program = append(program, body...)
	return append(program, asm.Return().WithSymbol(result)), nil
}
