// SPDX-License-Identifier: Apache-2.0

//go:build race

package test

// raceFlags build the daemon with the race detector when the tests have it.
var raceFlags = []string{"-race"}
