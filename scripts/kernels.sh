#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kernels.sh: fetch Debian's own kernels, to run tests under them with vmtest.sh.
#
#   kernels.sh [-d DIR] [KERNEL...]     6.1 6.12 newest (default), 5.10 6.18
#
# Prints one line for each kernel that is ready: its name, its version, and the
# directory it is unpacked in (vmlinuz and lib/modules). A kernel that cannot be
# had is reported on stderr, "KERNEL not tested: …", and does not fail the others.
# Exit status: 0 all ready, 3 some not to be had.
#
# Each Debian suite is read through an apt root of its own under DIR (default:
# ~/.cache/sentinel-x/kernels): the machine's sources and packages stay as they
# are, and a suite that has gone from the mirror takes only its own kernels along.
#
# Needs: apt, dpkg, kmod (depmod), and Debian's archive keys (debian-archive-keyring).
set -euo pipefail

usage() { sed -n '4,19s/^# \{0,1\}//p' "$0" >&2; exit 2; }

dir=${XDG_CACHE_HOME:-$HOME/.cache}/sentinel-x/kernels
while getopts d: option; do
	case $option in d) dir=$OPTARG ;; *) usage ;; esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- 6.1 6.12 newest

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# mirror main|security: where this machine gets Debian from, else Debian's own.
mirror() {
	local kind=$1 uris=''
	if grep -qs '^ID=debian' /etc/os-release; then
		uris=$({
			sed -n 's/^URIs:[[:space:]]*//p' /etc/apt/sources.list.d/*.sources || true
			sed -nE 's/^deb( \[[^]]*\])? ([^ ]+).*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list || true
		} 2>/dev/null | tr ' ' '\n')
	fi
	case $kind in
	main) grep -v security <<<"$uris" | grep debian | head -1 || true ;;
	security) grep security <<<"$uris" | head -1 || true ;;
	esac
}

main_mirror=$(mirror main) security_mirror=$(mirror security)
: "${main_mirror:=http://deb.debian.org/debian}"
: "${security_mirror:=http://deb.debian.org/debian-security}"

# in_suite SUITE COMMAND...: apt-get or apt-cache that knows only SUITE.
in_suite() {
	local root=$dir/apt/$1
	shift
	APT_CONFIG=$root/apt.conf "$@"
}

# open_suite SUITE: make its apt root and read its package lists, once a run.
declare -A opened
open_suite() {
	local suite=$1 root=$dir/apt/$1 from=$main_mirror
	[ -z "${opened[$suite]:-}" ] || return "${opened[$suite]}"
	case $suite in *-security) from=$security_mirror ;; esac
	mkdir -p "$root/lists/partial" "$root/cache/archives/partial"
	echo "deb [arch=amd64 signed-by=$keyring] $from $suite main" >"$root/sources.list"
	cat >"$root/apt.conf" <<-CONF
		Dir::Etc::sourcelist "$root/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State::lists "$root/lists";
		Dir::Cache "$root/cache";
		APT::Architecture "amd64";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Acquire::Retries "2";
	CONF
	opened[$suite]=0
	in_suite "$suite" apt-get -qq -o APT::Update::Error-Mode=any update >&2 || opened[$suite]=1
	return "${opened[$suite]}"
}

# image_of SUITE META: the image package a meta-package stands for today. ABI
# numbers change every few weeks, so they are never written down.
image_of() {
	in_suite "$1" apt-cache depends "$2" 2>/dev/null |
		awk '/Depends: linux-image-[0-9]/ { print $2; exit }'
}

# newest_image SUITE SERIES: the newest image package of a series, for example 6.18.
newest_image() {
	in_suite "$1" apt-cache pkgnames "linux-image-$2." |
		grep -E -- '-cloud-amd64$' | sort -V | tail -1
}

# packages_of SUITE IMAGE: what holds its files. From 6.19 on an image package
# is empty and depends on a binary and a modules package.
packages_of() {
	local version=${2#linux-image-} part parts=''
	for part in binary modules base; do
		if in_suite "$1" apt-cache show "linux-$part-$version" >/dev/null 2>&1; then
			parts+=" linux-$part-$version"
		fi
	done
	case $parts in *linux-binary-*) echo "$parts" ;; *) echo "$2" ;; esac
}

# unpack TARGET DEB...: vmlinuz and lib/modules with a dependency index.
unpack() {
	local target=$1 work=$1.tmp deb modules
	shift
	mkdir -p "$work/all" "$work/lib"
	for deb in "$@"; do dpkg-deb -x "$deb" "$work/all" || return 1; done
	find "$work/all" -type f -name 'vmlinuz*' -exec mv {} "$work/vmlinuz" \;
	modules=$work/all/usr/lib/modules
	[ -d "$modules" ] || modules=$work/all/lib/modules
	[ -e "$work/vmlinuz" ] && mv "$modules" "$work/lib/modules" &&
		depmod -b "$work" "$(ls "$work/lib/modules")" &&
		rm -rf "$work/all" && mv "$work" "$target"
}

# fetch NAME SUITE IMAGE: download and unpack unless that is done already.
fetch() {
	local name=$1 suite=$2 image=$3 version=${3#linux-image-} target
	target=$dir/$version
	if [ ! -d "$target" ]; then
		rm -rf "$target.tmp" "$target.debs"
		mkdir -p "$target.debs"
		# shellcheck disable=SC2046 # a list of packages
		(cd "$target.debs" && in_suite "$suite" apt-get -qq download $(packages_of "$suite" "$image")) >&2 || return 1
		unpack "$target" "$target.debs"/*.deb || return 1
		rm -rf "$target.debs"
	fi
	printf '%s %s %s\n' "$name" "$version" "$target"
}

# kernel NAME: find its suite and package, then fetch it.
kernel() {
	local name=$1 suite image=''
	case $name in
	5.10) suite=bullseye-security ;;
	6.1 | 6.12) suite=bookworm-security ;;
	6.18 | newest) suite=trixie-backports ;;
	*) echo "kernels.sh: unknown kernel $name: 5.10 6.1 6.12 6.18 newest" >&2; exit 2 ;;
	esac
	open_suite "$suite" || return 1
	case $name in
	6.1 | 5.10 | newest) image=$(image_of "$suite" linux-image-cloud-amd64) ;;
	6.12) image=$(image_of "$suite" linux-image-6.12-cloud-amd64) ;;
	6.18) image=$(newest_image "$suite" 6.18) ;;
	esac
	[ -n "$image" ] || return 1
	fetch "$name" "$suite" "$image"
}

for tool in apt-get dpkg-deb depmod; do
	command -v $tool >/dev/null || {
		echo "kernels.sh: $tool is missing: it needs a Debian or Ubuntu with the packages apt dpkg kmod" >&2
		exit 2
	}
done
[ -r $keyring ] || { echo "kernels.sh: no $keyring: apt-get install debian-archive-keyring" >&2; exit 2; }

mkdir -p "$dir"
dir=$(realpath "$dir")
status=0
for name in "$@"; do
	kernel "$name" || { echo "KERNEL $name not tested: package not to be had" >&2; status=3; }
done
exit $status
