// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"testing"

	"github.com/sentinel-x/sentinel-x/internal/signature"
)

// TestFieldNumbers holds the numbers of bpf/types.h to those of internal/signature.
func TestFieldNumbers(t *testing.T) {
	for field, number := range map[signature.Field]bpfField{
		signature.Protocol: bpfFieldFIELD_PROTOCOL, signature.SourcePort: bpfFieldFIELD_SOURCE_PORT,
		signature.DestPort: bpfFieldFIELD_DEST_PORT, signature.Length: bpfFieldFIELD_LENGTH, signature.TTL: bpfFieldFIELD_TTL,
		signature.TCPFlags: bpfFieldFIELD_TCP_FLAGS, signature.DataOffset: bpfFieldFIELD_DATA_OFFSET,
		signature.Window: bpfFieldFIELD_WINDOW, signature.ICMPType: bpfFieldFIELD_ICMP_TYPE, signature.ICMPCode: bpfFieldFIELD_ICMP_CODE,
		signature.Fragment: bpfFieldFIELD_FRAGMENT, signature.DF: bpfFieldFIELD_DF, signature.Inner: bpfFieldFIELD_INNER,
		signature.NumFields: bpfFieldNUM_FIELDS,
	} {
		if uint32(field) != uint32(number) {
			t.Errorf("field %v is %d here and %d in the packet path", field, field, number)
		}
	}
	for action, number := range map[signature.Action]bpfAction{
		signature.Observe: bpfActionACTION_OBSERVE, signature.Drop: bpfActionACTION_DROP, signature.Limit: bpfActionACTION_LIMIT,
	} {
		if uint32(action) != uint32(number) {
			t.Errorf("action %v is %d here and %d in the packet path", action, action, number)
		}
	}
	for kind, number := range map[uint16]bpfFragment{
		signature.FragmentNone: bpfFragmentFRAGMENT_NONE, signature.FragmentFirst: bpfFragmentFRAGMENT_FIRST,
		signature.FragmentLater: bpfFragmentFRAGMENT_LATER,
	} {
		if uint32(kind) != uint32(number) {
			t.Errorf("fragment %d is %d in the packet path", kind, number)
		}
	}
	var table bpfSignatures
	if len(table.Rules) != signature.Slots || len(table.Words) != signature.MaxOffsets || 2*len(table.Rules) > 256 {
		t.Errorf("the packet path has %d slots and %d words", len(table.Rules), len(table.Words))
	}
}
