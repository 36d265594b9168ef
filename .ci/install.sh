#!/usr/bin/env bash
# Installs from Debian what this project needs, and only what is missing.
#
#   .ci/install.sh run     Kamailio with its modules, SIPp and what the demo needs
#   .ci/install.sh demo    that, and Prometheus and Alertmanager
#   .ci/install.sh test    that, and what the tests need besides
#   .ci/install.sh release that, and what the checks of a release need besides
#
# No service is started or enabled to start by it.
set -euo pipefail

# Command (or file) to look for, and the package that has it.
run=(
	kamailio:kamailio
	module/jansson.so:kamailio-extra-modules
	module/presence.so:kamailio-presence-modules
	module/db_sqlite.so:kamailio-sqlite-modules
	module/tls.so:kamailio-tls-modules
	module/websocket.so:kamailio-websocket-modules
	rtpengine:rtpengine-daemon
	sipp:sip-tester
	sqlite3:sqlite3
	openssl:openssl
	curl:curl
)
demo=(
	prometheus:prometheus
	prometheus-alertmanager:prometheus-alertmanager
)
# gcc is for "go test -race".
test=(
	debootstrap:debootstrap
	gcc:gcc
	header/stdlib.h:libc6-dev
	shellcheck:shellcheck
	readelf:binutils
	ip:iproute2
	module/app_lua.so:kamailio-lua-modules
	module/app_python3.so:kamailio-python3-modules
	module/cdp.so:kamailio-ims-modules
	module/db_mysql.so:kamailio-mysql-modules
	module/http_client.so:kamailio-utils-modules
	systemd-analyze:systemd
	rpm:rpm
)
release=(
	buildah:buildah
	qemu-aarch64-static:qemu-user-static
	lintian:lintian
	systemd-nspawn:systemd-container
)

case ${1:-} in
run) wanted=("${run[@]}") ;;
demo) wanted=("${run[@]}" "${demo[@]}") ;;
test) wanted=("${run[@]}" "${demo[@]}" "${test[@]}") ;;
release) wanted=("${run[@]}" "${demo[@]}" "${test[@]}" "${release[@]}") ;;
*)
	echo "usage: $0 run|demo|test|release" >&2
	exit 2
	;;
esac

PATH=$PATH:/usr/sbin:/sbin

present() {
	case $1 in
	module/*) compgen -G "/usr/lib/*/kamailio/modules/${1#module/}" >/dev/null ;;
	header/*) [ -e "/usr/include/${1#header/}" ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

missing=()
for item in "${wanted[@]}"; do
	present "${item%%:*}" || missing+=("${item#*:}")
done
if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi

fail() {
	echo "install.sh: missing Debian packages: ${missing[*]} ($1)" >&2
	exit 1
}
command -v apt-get >/dev/null || fail "this system has no apt-get; install their equivalents by hand"
sudo=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || fail "run this as root: apt-get install --no-install-recommends ${missing[*]}"
	sudo=(sudo)
fi

echo "Installing ${missing[*]}"
# Packages start their services when they are installed, and Kamailio's would
# take port 5060. A policy-rc.d that forbids it is put in place for the time.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap '"${sudo[@]}" rm -f "$policy"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
	"${sudo[@]}" chmod 755 "$policy"
fi
apt_install() {
	"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -q --no-install-recommends "${missing[@]}"
}
# The package lists may be absent or too old; fetch them only then.
if ! apt-cache show "${missing[@]}" >/dev/null 2>&1 || ! apt_install; then
	"${sudo[@]}" apt-get update -q
	apt_install || fail "apt-get install failed; see above"
fi
