// SPDX-License-Identifier: Apache-2.0

// Package model holds the scorers of the detector as mathematics: gradient
// boosted trees, an isolation forest and learners that run on line. It reads,
// trains, explains and writes them, knows nothing about packets, and imports
// nothing but the standard library.
//
// A row is a []float32 of features in the order of the model's [Schema]; NaN
// means unknown. [Trees] and [Forest] do not change once they are loaded or
// trained, so any number of goroutines may score with one. [HalfSpace], [ADWIN],
// [Calm] and [Learner] change with what they are given: one goroutine each.
package model
