#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# test-kernels.sh: run the data plane's tests under other kernels.
#
#   test-kernels.sh [-d CACHE] [-p PACKAGE]... [KERNEL...]     6.1 6.12 newest (default), 5.10 6.18
#
# Each package (default: ./internal/dataplane) becomes one static test binary, which
# runs in a virtual machine (vmtest.sh) with the package's directory and the captures
# of testdata/ at their places. Emulation is slow: -test.short is set, and the
# differential test compares FUZZ_PACKETS packets (default 2000).
#
# What a test run printed is in build/KERNEL-PACKAGE.log; of a good one only figures
# and skipped tests are shown. Every kernel is tried; the last lines say which passed,
# which failed and which could not be had. Exit status: 0 all passed, 1 one failed,
# 3 none failed but one was not to be had.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sentinel-x/kernels packages=()
while getopts d:p: option; do
	case $option in
	d) cache=$OPTARG ;; p) packages+=("$OPTARG") ;;
	*) sed -n '4,18s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- 6.1 6.12 newest
[ ${#packages[@]} -gt 0 ] || packages=(./internal/dataplane)
PATH=$PATH:/usr/sbin:/sbin
cd "$here/.."

mkdir -p build
for package in "${packages[@]}"; do
	CGO_ENABLED=0 ${GO:-go} test -c -o "build/$(basename "$package").test" "$package"
done

# run KERNEL_DIR PACKAGE: the package's tests in the guest, at the package's place.
run() {
	local copies=(-a testdata:/src/testdata)
	[ ! -d "$2/testdata" ] || copies+=(-a "$2/testdata:/src/$2/testdata")
	# shellcheck disable=SC2086 # VM_TESTFLAGS is a list of flags
	"$here/vmtest.sh" -M "veth bridge" -t "${VM_SECONDS:-900}" -m "${VM_MEMORY:-2048}" "${copies[@]}" -w "/src/$2" \
		-e "SENTINEL_X_FUZZ_PACKETS=${FUZZ_PACKETS:-2000}" \
		"$1" "build/$(basename "$2").test" -test.v -test.short -test.timeout=14m ${VM_TESTFLAGS:-}
}

# figures LOG: the lines of a good run that a reader wants.
figures() {
	grep -E -A1 'verified instructions|without a difference|^ *--- SKIP|^vmtest' "$1" | grep -v -E '^--$|^=== |--- PASS' || true
}

# try NAME VERSION DIR PACKAGE: one run, its output and last line in files of its own.
try() {
	local log
	log=build/$1-$(basename "$4").log
	echo "== $1 ($2): $4" >"$log.out"
	if run "$3" "${4#./}" >"$log" 2>&1; then
		figures "$log" >>"$log.out"
		echo "KERNEL $1 ($2) passed: $4" >"$log.result"
	else
		grep -v -E '^=== |--- PASS' "$log" | cut -c 1-300 | tail -n 100 >>"$log.out" || true
		echo "KERNEL $1 ($2) FAILED: $4" >"$log.result"
	fi
}

kernels=$("$here/kernels.sh" -d "$cache" "$@") || [ $? -eq 3 ]
results=() status=0 logs=()
# A guest keeps one core busy: as many run at once as there are cores.
for name in "$@"; do
	read -r version dir < <(awk -v name="$name" '$1 == name { print $2, $3 }' <<<"$kernels") || true
	if [ -z "${dir:-}" ]; then
		results+=("KERNEL $name not tested: package not to be had")
		status=3
		continue
	fi
	for package in "${packages[@]}"; do
		logs+=("build/$name-$(basename "$package").log")
		rm -f "${logs[-1]}.result"
		[ "$(jobs -rp | wc -l)" -lt "$(nproc)" ] || wait -n
		try "$name" "$version" "$dir" "$package" &
	done
	version='' dir=''
done
wait
for log in "${logs[@]}"; do
	cat "$log.out"
	results+=("$(cat "$log.result")")
	grep -q ' passed: ' "$log.result" || status=1
done
printf '%s\n' "${results[@]}"
exit $status
