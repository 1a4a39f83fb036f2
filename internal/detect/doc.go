// SPDX-License-Identifier: Apache-2.0

// Package detect turns windows into features, features into scores, and scores
// into incidents. It does no input or output and has no clock: time comes in
// with the windows, so that a capture replayed, the live engine and training
// see the same numbers.
//
//	Window → Extractor (sliding sums, baseline, novelty) → Vector
//	Vector → scorers, deterministic layer → evidence
//	evidence and impact, tick after tick → Detector → traffic.Incident
//
// docs/features.md lists the features, docs/detection.md says how it decides.
package detect

//go:generate go test -run ^TestFeatureTable$ -update .
