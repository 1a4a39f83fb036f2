// SPDX-License-Identifier: Apache-2.0

// Package train makes the trees of the detector from composed scenes, and measures
// how well the whole detector does on other scenes. It works off line: the daemon
// does not use it.
//
//	Recipe → scenes of every family → windows → vectors with labels → trees
//	trees, bank → Detector → other scenes → Report
//	own windows, scenes → Retrain → candidate, compared with the live trees
//
// docs/model-card.md says what the default model is made from and where it fails.
package train
