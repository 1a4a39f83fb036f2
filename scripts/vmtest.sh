#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# vmtest.sh: run one static program under another kernel, in a virtual machine
# with no disk and no network, emulated (KVM is not needed).
#
#   vmtest.sh [OPTION]... KERNEL_DIR PROGRAM [ARGUMENT]...
#
#   -c N         CPUs of the guest (2)
#   -m MIB       memory of the guest (1024)
#   -t SECONDS   time the guest may take, boot included (300)
#   -M "a b"     kernel modules to load, with what they depend on (veth)
#   -a HOST:GUEST  copy a file or directory into the guest; may be repeated
#   -w DIR       working directory of the program in the guest (/)
#   -e NAME=VALUE  set a variable for the program; may be repeated
#   -l FILE      keep the kernel's console output there
#
# KERNEL_DIR is what kernels.sh prints: vmlinuz, and lib/modules with modules.dep.
# PROGRAM must be static: CGO_ENABLED=0 go test -c. It finds SENTINEL_X_VM=1 set.
#
# Prints what the program prints and exits with its status. 124: the guest took
# too long. 125: it never got as far as the program's end; its console is printed.
#
# Needs: qemu-system-x86 busybox-static cpio xz-utils zstd.
set -euo pipefail

usage() { sed -n '4,26s/^# \{0,1\}//p' "$0" >&2; exit 2; }
die() { echo "vmtest.sh: $*" >&2; exit 125; }

cpus=2 memory=1024 seconds=300 modules=veth workdir=/ console='' copies=() variables=(SENTINEL_X_VM=1)
while getopts c:m:t:M:a:w:e:l: option; do
	case $option in
	c) cpus=$OPTARG ;; m) memory=$OPTARG ;; t) seconds=$OPTARG ;; M) modules=$OPTARG ;;
	a) copies+=("$OPTARG") ;; w) workdir=$OPTARG ;; e) variables+=("$OPTARG") ;; l) console=$OPTARG ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -ge 2 ] || usage
kernel=$1 program=$2
shift 2

for tool in qemu-system-x86_64 busybox cpio xz zstd; do
	command -v $tool >/dev/null || die "$tool is missing: apt-get install qemu-system-x86 busybox-static cpio xz-utils zstd"
done
[ -r "$kernel/vmlinuz" ] || die "no vmlinuz in $kernel: scripts/kernels.sh fetches kernels"
[ -x "$program" ] || die "$program is not a program"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
guest=$scratch/guest
mkdir -p "$guest"/{bin,dev,proc,sys,tmp,run,etc,root,modules} "$guest/$workdir"
[ -n "$console" ] || console=$scratch/console

# plain FILE: a module as insmod of every busybox takes it.
plain() {
	case $1 in
	*.xz) xz -dc "$1" ;; *.zst) zstd -qdc "$1" ;; *.gz) gzip -dc "$1" ;; *) cat "$1" ;;
	esac
}

# add_module NAME: copy it and what it depends on, numbered in the order to load
# in. A line of modules.dep names a module, then all it needs, the deepest last.
index=$(echo "$kernel"/lib/modules/*/modules.dep)
add_module() {
	local line paths path i base
	line=$(awk -F: -v name="${1//-/_}" '{
		base = $1; sub(/.*\//, "", base); sub(/\.ko.*/, "", base); gsub(/-/, "_", base)
		if (base == name) { sub(/:/, ""); print; exit }
	}' "$index")
	[ -n "$line" ] || return 0 # built into this kernel, or absent: the program will tell
	read -ra paths <<<"$line"
	for ((i = ${#paths[@]} - 1; i >= 0; i--)); do
		path=${paths[i]}
		base=${path##*/}
		base=${base%%.ko*}
		compgen -G "$guest/modules/*-$base.ko" >/dev/null && continue
		loaded=$((loaded + 1))
		plain "${index%/*}/$path" >"$guest/modules/$(printf %03d $loaded)-$base.ko"
	done
}
loaded=0
for module in $modules; do add_module "$module"; done

install -m 755 "$(command -v busybox)" "$guest/bin/busybox"
install -m 755 "$program" "$guest/program"
for copy in "${copies[@]}"; do
	mkdir -p "$guest/$(dirname "${copy#*:}")"
	cp -rL "${copy%%:*}" "$guest/${copy#*:}"
done
{
	for variable in "${variables[@]}"; do printf 'export %q\n' "$variable"; done
	printf 'cd %q\n' "$workdir"
	printf 'exec /program'
	printf ' %q' "$@"
	echo
} >"$guest/run.sh"

# The guest talks through three serial ports: the kernel's console, what the
# program prints, and its exit status, so that none can garble another.
cat >"$guest/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TMPDIR=/tmp
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
mount -t tmpfs none /run
mount -t bpf none /sys/fs/bpf
mount -t tracefs none /sys/kernel/tracing 2>/dev/null
stty -F /dev/ttyS1 raw
stty -F /dev/ttyS2 raw
ip link set lo up
for module in /modules/*.ko; do
	[ ! -e "$module" ] || insmod "$module" || echo "cannot load $module" >/dev/ttyS1
done
sh /run.sh </dev/null >/dev/ttyS1 2>&1
echo "status=$?" >/dev/ttyS2
poweroff -f
INIT
chmod 755 "$guest/init"
(cd "$guest" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$scratch/initrd"

# thread=single is a must. The kernel patches code when XDP is attached; with one
# host thread for each guest CPU, QEMU's emulation can run the old translation on
# another CPU, and the guest hangs or panics in bpf_dispatcher_xdp_func.
started=$SECONDS ended=0
timeout -k 5 "$seconds" qemu-system-x86_64 \
	-nodefaults -no-user-config -no-reboot -display none -nic none \
	-machine pc -accel tcg,thread=single -cpu max -smp "$cpus" -m "$memory" \
	-kernel "$kernel/vmlinuz" -initrd "$scratch/initrd" \
	-append 'console=ttyS0 rdinit=/init loglevel=4 panic=-1 mitigations=off nokaslr random.trust_cpu=on' \
	-serial "file:$console" -serial stdio -serial "file:$scratch/status" </dev/null || ended=$?

status=$(tr -d '\r' <"$scratch/status" 2>/dev/null | sed -n 's/^status=//p')
echo "vmtest.sh: $(basename "$kernel"): status ${status:-none} after $((SECONDS - started)) s" >&2
[ -z "$status" ] || exit "$status"
tail -n 40 "$console" >&2
[ $ended -ne 124 ] || exit 124
exit 125
