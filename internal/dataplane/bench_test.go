// SPDX-License-Identifier: Apache-2.0

package dataplane

import "testing"

// Every case must be the case it is called; how long it takes is not a matter for a test.
func TestBenchMeasuresWhatItSays(t *testing.T) {
	r, err := Bench(Options{}, 3, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Cases) != len(benchSetups()) || r.BaselineNS <= 0 {
		t.Errorf("result %+v", r)
	}
}
