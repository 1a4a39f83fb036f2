#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh: run every Go fuzz target of the module, one after the other, for
# FUZZ_TIME each (default 30s). Stops at the first finding.
set -euo pipefail

go=${GO:-go} found=0
for package in $($go list ./...); do
	for target in $($go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		found=$((found + 1))
		echo "== $package $target"
		$go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZ_TIME:-30s}" "$package"
	done
done
[ $found -gt 0 ] || { echo "no fuzz target found" >&2; exit 1; }
