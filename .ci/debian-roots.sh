#!/usr/bin/env bash
# Makes small Debian systems with Kamailio in them, so that several Kamailio
# versions can run on one machine, and prints the paths of their directories,
# joined with ":".
#
#   .ci/debian-roots.sh [SUITE...]    bullseye (Kamailio 5.4), bookworm (5.6),
#                                     trixie (6.0), testing (6.1); without
#                                     arguments: all but this machine's own suite
#
# They are kept in the user's cache, and made again only if they lack a package
# of the list below. All else that is printed goes to stderr.
#
# Needs root (debootstrap makes device nodes); uses sudo when it is not root.
set -euo pipefail

packages=(
	ca-certificates
	kamailio
	kamailio-extra-modules
	kamailio-mysql-modules
	kamailio-presence-modules
	kamailio-sqlite-modules
	kamailio-tls-modules
	kamailio-utils-modules
	kamailio-websocket-modules
	netbase
	openssl
	sqlite3
)
stamp=1 # raise the number to force a new build

cache=${KAMAILIO_EXPORTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kamailio_exporter}

if [ $# -eq 0 ]; then
	# shellcheck source=/dev/null
	own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	for suite in bullseye bookworm trixie testing; do
		[ "$suite" = "$own" ] || set -- "$@" "$suite"
	done
fi
if [ $# -gt 1 ]; then
	pids=()
	trap 'trap "" TERM; kill 0; wait; exit 130' INT # which bash lets background jobs ignore
	for suite; do
		"$0" "$suite" >/dev/null &
		pids+=($!)
	done
	failed=0
	for pid in "${pids[@]}"; do
		wait "$pid" || failed=1
	done
	roots=$(printf ":$cache/%s" "$@")
	echo "${roots#:}"
	exit $failed
fi
suite=$1
case $suite in
bookworm | trixie) packages+=(kamailio-lua-modules kamailio-python3-modules) ;; # the tests of trunks
esac
root=$cache/$suite
stamp_file=.kamailio_exporter-packages

fail() {
	echo "debian-roots.sh: $*" >&2
	exit 1
}

have_root() {
	local number package
	[ -e "$root/$stamp_file" ] && read -r number _ <"$root/$stamp_file" && [ "$number" = "$stamp" ] || return
	for package in "${packages[@]}"; do
		compgen -G "$root/var/lib/dpkg/info/$package*.list" >/dev/null || return
	done
}

# The mirror that this machine already uses for Debian, else Debian's default.
mirror() {
	local uri=
	if command -v apt-get >/dev/null; then
		# shellcheck disable=SC2016 # apt's own format, not the shell's
		uri=$(apt-get indextargets --format '$(REPO_URI)' \
			'Identifier: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1 || true)
	fi
	case $uri in
	http://* | https://*) echo "$uri" ;;
	*) echo http://deb.debian.org/debian/ ;;
	esac
}

if have_root; then
	echo "$root"
	exit 0
fi

sudo=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || fail "making the Debian root needs root: run this script once as root with KAMAILIO_EXPORTER_CACHE=$cache"
	sudo=(sudo)
fi
command -v debootstrap >/dev/null || PATH=$PATH:/usr/sbin:/sbin
command -v debootstrap >/dev/null || fail "debootstrap is missing: run .ci/install.sh test"

mkdir -p "$cache"
# One build at a time: a second caller waits for the first and uses its result.
exec 9>"$cache/$suite.lock"
flock 9
if have_root; then
	echo "$root"
	exit 0
fi

# The new root is built beside its final place and renamed when it is complete,
# so a build that fails or is killed leaves nothing that looks usable. A name
# that is always the same lets the next build remove what a killed one left.
new=$cache/$suite.new
old=$cache/$suite.old
remove() {
	# --one-file-system: never follow a mount out of the tree.
	"${sudo[@]}" rm -rf --one-file-system -- "$@"
}
trap 'remove "$new" "$old"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
remove "$new" "$old"

keyring=()
if [ -e /usr/share/keyrings/debian-archive-keyring.gpg ]; then
	keyring=(--keyring=/usr/share/keyrings/debian-archive-keyring.gpg)
fi
proxy=
if command -v apt-config >/dev/null; then
	eval "$(apt-config shell proxy Acquire::http::Proxy)"
fi
if [ -n "$proxy" ] && [ "$proxy" != DIRECT ]; then
	export http_proxy=$proxy
fi

build() {
	local mirror
	mirror=$(mirror)
	echo "Making a Debian $suite with Kamailio in $root (some minutes, about 450 MB)." >&2
	# --mount: what is mounted during the build is gone when the build is.
	"${sudo[@]}" env http_proxy="${http_proxy:-}" unshare --mount --propagation private bash -euo pipefail -s -- \
		"$new" "$suite" "$mirror" "$stamp" "$stamp_file" ${#keyring[@]} "${keyring[@]}" "${packages[@]}" <<'BUILD'
new=$1 suite=$2 mirror=$3 stamp=$4 stamp_file=$5
keyring=("${@:7:$6}")
packages=("${@:7+$6}")
[ -n "$http_proxy" ] || unset http_proxy
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
script=() # a suite that this debootstrap does not know is like sid
[ -e "/usr/share/debootstrap/scripts/$suite" ] || script=(sid)
debootstrap --variant=minbase "${keyring[@]}" "$suite" "$new" "$mirror" "${script[@]}" </dev/null
# A mirror of testing may be older than its archive says is valid.
printf '%s\n' 'Acquire::Check-Valid-Until "false";' 'Acquire::Languages "none";' >"$new/etc/apt/apt.conf.d/50valid-until"
# The build of the root is not worth waiting for the disk.
echo force-unsafe-io >"$new/etc/dpkg/dpkg.cfg.d/unsafe-io"
# No package may start a service on this machine.
printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
chmod 755 "$new/usr/sbin/policy-rc.d"
mount -t proc proc "$new/proc"
chroot "$new" apt-get update </dev/null
chroot "$new" apt-get install -y --no-install-recommends "${packages[@]}" </dev/null
chroot "$new" apt-get clean
rm -rf "$new"/var/lib/apt/lists/*
umount "$new/proc"
chmod 755 "$new"
printf '%s\n' "$stamp" >"$new/$stamp_file"
BUILD
}

log=$cache/$suite.log
if ! build >"$log" 2>&1; then
	tail -n 15 "$log" >&2
	fail "the build failed; the whole output is in $log"
fi
if [ -e "$root" ]; then
	"${sudo[@]}" mv -T "$root" "$old"
fi
"${sudo[@]}" mv -T "$new" "$root"
echo "$root"
