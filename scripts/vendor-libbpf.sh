#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# vendor-libbpf.sh: refresh bpf/include/bpf from Debian's libbpf-dev, the version
# that apt-get offers on this machine. Prints the version; update it in
# bpf/include/README.md and run `make generate`.
set -euo pipefail

cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download libbpf-dev)
dpkg-deb -x "$work"/libbpf-dev_*.deb "$work/tree"
for header in bpf_helpers.h bpf_helper_defs.h bpf_endian.h; do
	install -m 644 "$work/tree/usr/include/bpf/$header" bpf/include/bpf/
done
dpkg-deb -f "$work"/libbpf-dev_*.deb Version
