# Words and checks the scripts share; sourced with `here` set to the root of this tree.
# shellcheck shell=sh

UV_VERSION=0.13.9
python=/usr/bin/python3

# Debian's names, with what we use each for. `a|b`: either will do.
packages_run='
ca-certificates
python3-venv
clang-19
llvm-19
libbpf-dev
linux-libc-dev
bpftool
iproute2
nftables
runc
conmon
jq
curl
iputils-ping
bind9-dnsutils
netcat-openbsd
busybox|busybox-static
'
packages_dev='clang-format-19 iptables iperf3'

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
fail() {
	printf '%s: %s\n' "${0##*/}" "$1" >&2
	shift
	for line in "$@"; do printf '  %s\n' "$line" >&2; done
	exit 1
}

need_root() {
	[ "$(id -u)" = 0 ] || fail 'this has to run as root: it loads programs into the kernel and makes namespaces.' \
		"Try: sudo $0"
}

need_kernel() {
	release=$(uname -r)
	major=${release%%.*}
	rest=${release#*.}
	minor=${rest%%[!0-9]*}
	if [ "$major" -lt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -lt 1 ]; }; then
		fail "kernel $release is too old: 6.1 or newer is needed (Debian 12 has it)." \
			'Try: apt-get install linux-image-amd64, then reboot.'
	fi
	[ -r /sys/kernel/btf/vmlinux ] || fail \
		"kernel $release says nothing about its types (/sys/kernel/btf/vmlinux is missing)." \
		'Use a kernel built with CONFIG_DEBUG_INFO_BTF=y; the one of Debian 12 is.'
	grep -qw cgroup2 /proc/filesystems || fail "kernel $release has no version 2 control groups." \
		'Use a kernel built with CONFIG_CGROUPS=y and CONFIG_CGROUP_BPF=y; the one of Debian 12 is.'
}

need_debian() {
	command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || fail \
		'apt-get is missing: these scripts install on Debian 12 only.' \
		"Elsewhere, install by hand:$(printf ' %s' $packages_run), Python 3.11 and uv $UV_VERSION."
	[ -x $python ] || return 0 # python3-venv brings it
	have=$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	[ "$have" = 3.11 ] || fail "$python is Python $have, and 3.11 is needed (Debian 12 has it)."
}

# missing_packages <names…>: those that are not installed, one a line
missing_packages() {
	installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p')
	for choice in "$@"; do
		found=
		for name in $(printf '%s' "$choice" | tr '|' ' '); do
			case "
$installed
" in *"
$name
"*) found=1 ;; esac
		done
		[ -n "$found" ] || printf '%s\n' "${choice%%|*}"
	done
}

install_packages() {
	wanted=$(missing_packages "$@")
	[ -n "$wanted" ] || return 0
	step "Installing from Debian: $(printf '%s ' $wanted)"
	mkdir -p "$here/build"
	# The lists may be old or absent: ask for new ones only when the first try fails.
	# shellcheck disable=SC2086
	apt_install $wanted || { apt-get -q update && apt_install $wanted; } || fail \
		'apt-get could not install the packages above.' \
		'Its own message says why; without a network, install them by hand and run this again.'
	printf '%s\n' $wanted >>"$here/build/apt-installed"
}

# A package's files below a folder, without installing it. `unpack_package NAME FOLDER`
unpack_package() {
	step "Unpacking Debian's $1 into $2"
	mkdir -p "$2"
	(cd "$2" && { apt-get -q download "$1" || { apt-get -q update && apt-get -q download "$1"; }; } && dpkg -x "$1"_*.deb . && rm "$1"_*.deb)
}

apt_install() {
	DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
}

# Test runs keep their clusters in folders with this name and six letters.
runs=${TMPDIR:-/tmp}/mycel-test

# The clusters and folders of test runs that ended without deleting them.
delete_dead_runs() {
	for dead in "$runs".??????; do
		[ -e "$dead/lock" ] && flock -n "$dead/lock" true || continue
		for record in "$dead"/tests/*/state/clusters/*/cluster.json; do
			[ -e "$record" ] || continue
			cluster=${record%/cluster.json}
			step "Deleting cluster ${cluster##*/} of a test run that was killed"
			MYCEL_STATE_DIR=${cluster%/clusters/*} MYCEL_RUN_DIR=${cluster%/state/clusters/*}/run \
				.venv/bin/mycel cluster delete --name "${cluster##*/}" || true
		done
		awk -v inside="$dead/" 'index($2, inside) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r umount --lazy
		rm -rf --one-file-system "$dead"
	done
}
