// SPDX-License-Identifier: Apache-2.0

package dataplane

// The compiler's version is part of the object: CI rebuilds with this one and compares.
//go:generate go tool bpf2go -go-package dataplane -target bpfel -cc clang-19 -strip llvm-strip-19 -type reason -type outcome -type class -type scope -type fragment -type tunnel -type limit -type meter_line -type list_set -type list_ref -type list_code -type list_kind -type source_value -type rule_set -type field -type wide_field -type action -type signature -type signatures -type signature_stats -type signature_bucket -type window_seed -type window_kind -type window_line -type window_cell -type window_sample bpf ../../bpf/sentinel.bpf.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -I../../bpf/include

// The enums' C names, for the test that holds the words of internal/traffic to them.
//go:generate go tool stringer -type bpfReason,bpfOutcome,bpfClass,bpfScope -output words_string_test.go bpf_bpfel.go
