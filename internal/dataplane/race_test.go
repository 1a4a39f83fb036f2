// SPDX-License-Identifier: Apache-2.0

//go:build race

package dataplane

func init() { raced = true }
