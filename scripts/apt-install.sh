#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# apt-install.sh: install Debian or Ubuntu packages, but only those that are missing.
#
#   apt-install.sh PROBE[:PACKAGE]...
#
# PROBE is a command, or the path of a file, that the package brings; PACKAGE is its
# name where it differs. Says what it installs; asks nothing.
set -euo pipefail

[ $# -gt 0 ] || { sed -n '4,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
PATH=$PATH:/usr/sbin:/sbin

missing=()
for item in "$@"; do
	probe=${item%%:*}
	case $probe in
	/*) [ -e "$probe" ] || missing+=("${item#*:}") ;;
	*) command -v "$probe" >/dev/null || missing+=("${item#*:}") ;;
	esac
done
[ ${#missing[@]} -gt 0 ] || { echo "all there already: $*"; exit 0; }

command -v apt-get >/dev/null || {
	echo "missing: ${missing[*]} (names of Debian packages); install them with this system's package manager" >&2
	exit 1
}
sudo=''
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || { echo "run as root, or install sudo, to install: ${missing[*]}" >&2; exit 1; }
	sudo=sudo
fi
echo "installing ${missing[*]}"
$sudo apt-get -qq update
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null
