#!/usr/bin/env bash
# A package's life under a real systemd, on Debian 12 and 13, beside the Kamailio of each
# with Debian's configuration: install, upgrade, downgrade, remove and purge, the unit's
# sandbox in force, the rotation of the audit log by logrotate, and the rpm. The previous
# version is built from the same tree.
#
#   life.sh [SUITE...]    default: bookworm trixie
#
# systemd-nspawn boots the root of debian-roots.sh, under an overlay in memory and with
# a network, processes, mounts and cgroups of its own: nothing is left when it ends.
#
# Needs root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=.ci/packages/common.sh
. .ci/packages/common.sh

if [ "${1:-}" != inside ]; then
	[ "$(id -u)" -eq 0 ] || fail "needs root"
	[ $# -gt 0 ] || set -- bookworm trixie
	command -v systemd-nspawn >/dev/null || fail "systemd-nspawn is missing: run .ci/install.sh release"
	dir=$(mktemp -d)
	cgroup=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)$(sed -n 's/^0:://p' /proc/self/cgroup)
	cgroup=${cgroup%/}/kamailio_exporter.$$
	mkdir "$cgroup"
	trap 'find "$cgroup" -depth -type d -exec rmdir {} + ; rm -rf --one-file-system "$dir"' EXIT
	for version in 0.0.9 "$(cat VERSION)"; do
		AS=$version DIST=$dir/$version .ci/packages/build.sh "-s -w -X github.com/prometheus/common/version.Version=$version" "$(go env GOARCH)" >/dev/null
	done
	if eval "$(apt-config shell proxy Acquire::http::Proxy)" && [ -n "${proxy:-}" ] && [ "$proxy" != DIRECT ]; then
		export http_proxy=$proxy
	fi
	# Its settings differ too, so that an upgrade has two changes to merge.
	dpkg-deb -R "$dir"/0.0.9/*.deb "$dir/tree"
	echo "# Of the previous version." >>"$dir/tree/etc/default/kamailio-exporter"
	dpkg-deb --root-owner-group -b "$dir/tree" "$dir"/0.0.9/*.deb >/dev/null
	for suite; do
		root=$(.ci/debian-roots.sh "$suite")
		# The cgroup is of the container alone, which removes what it makes there.
		(echo $BASHPID >"$cgroup/cgroup.procs" && exec unshare --mount --pid --mount-proc --fork --kill-child --propagation private \
			"$PWD/.ci/packages/life.sh" inside "$root" "$dir" "$suite") || fail "failed on $suite, see above"
	done
	exit
fi

exec </dev/null
dist=$3 suite=$4 dir=$3/$4
mkdir -p "$dir/root"
overlay "$dir/root" "$2"
new=$(cat VERSION) previous=0.0.9
unit=kamailio-exporter.service settings=/etc/default/kamailio-exporter audit=/var/lib/kamailio-exporter/audit.jsonl

step "$suite: starting systemd"
mount -t proc proc "$r/proc"
rm "$r/usr/sbin/policy-rc.d" # services start here
clean=(env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive)
for command in "update -q" "install -y -q --no-install-recommends systemd-sysv logrotate rpm"; do
	# shellcheck disable=SC2086 # words
	chroot "$r" "${clean[@]}" ${http_proxy:+http_proxy="$http_proxy"} apt-get $command >"$dir/apt.log" 2>&1 || fail "$(tail "$dir/apt.log")"
done
umount "$r/proc"
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --keep-unit --register=no --private-network --directory="$r" --boot </dev/null >"$dir/console.log" 2>&1 &
nspawn=$!
within() { nsenter --target "$init" --mount --uts --ipc --net --pid --root --wd "${clean[@]}" "$@"; }
booted() { init=$(pgrep -P $nspawn) && within systemctl is-system-running; }
await 60 "systemd" booted
within systemctl --version | sed -n 1p
within kamailio -v | sed -n 1p

property() { within systemctl show --value --property="$1" "$unit"; }
page() { nsenter --target "$init" --net curl -sSf -m 15 --noproxy '*' "http://127.0.0.1:$port/metrics" >"$dir/page"; }
shows() { page && grep -q "$1" "$dir/page"; }
# runs VERSION: waits for this version, in a new process, beside a Kamailio that is up.
pid=0 port=9494
runs() {
	await 30 "version $1 at port $port" shows "^kamailio_exporter_build_info{.*version=\"$1\""
	grep -q '^kamailio_up 1$' "$dir/page" || fail "Kamailio is not up: $(within journalctl -q -u $unit -u kamailio)"
	is "its state" "$(property ActiveState)" active
	[ "$(property MainPID)" != "$pid" ] || fail "the service was not restarted"
	pid=$(property MainPID)
}
is_gone() {
	within test ! -e "/proc/$pid" || fail "it still runs"
	[ ! -e "$r/usr/bin/kamailio_exporter" ] || fail "the program is still there"
	is "the unit" "$(property LoadState)" not-found
}
apt_get() { within apt-get -y -q --no-install-recommends -o Dpkg::Options::=--force-confold "$@" >"$dir/apt.log" 2>&1 || fail "apt-get $*: $(cat "$dir/apt.log")"; }
deb() { apt_get install --reinstall --allow-downgrades "/root/$1.deb"; }
# act: runs an action, and prints its ID if it was not refused.
act() {
	local status=0
	within kamailio_exporter admin run stats.reset group=sl --reason=test >"$dir/act.log" 2>&1 || status=$?
	case $status in
	0 | 4) sed -n 's/^operation //p' "$dir/act.log" ;;
	*) return $status ;;
	esac
}
verify() { within kamailio_exporter admin verify "$@" >"$dir/verify.log" 2>&1 || fail "admin verify: $(cat "$dir/verify.log")"; }
# kept: the settings, and the audit log, which is the exporter's alone.
kept() {
	within grep -q '^KAMAILIO_EXPORTER_WEB_LISTEN_ADDRESS=127.0.0.1:9595$' $settings || fail "the settings are gone"
	is "the audit log" "$(within stat -c '%U %G %a' $audit)" "kamailio-exporter kamailio-exporter 600"
	is "the directory of the audit log" "$(within stat -c '%U %G %a' "${audit%/*}")" "kamailio-exporter kamailio-exporter 700"
}

step "installing $previous"
cp "$dist"/$previous/*.deb "$r/root/$previous.deb"
cp "$dist/$new"/*.deb "$r/root/$new.deb"
deb $previous
runs $previous
is "whether it starts at boot" "$(property UnitFileState)" enabled
is "the user of the process" "$(within stat -c %U "/proc/$pid")" kamailio-exporter

step "the sandbox is in force, and everything is read from inside it"
status=$(within cat "/proc/$pid/status")
for line in NoNewPrivs:1 Seccomp:2 CapEff:0000000000000000 CapBnd:0000000000000000; do
	is "${line%:*}" "$(sed -n "s/^${line%:*}:\t//p" <<<"$status")" "${line#*:}"
done
grep '^kamailio_build_info{' "$dir/page"
! grep -E '^kamailio_scrape_(collector_success|uri_usable).* 0$' "$dir/page" || fail "collectors failed: $(within journalctl -q -u $unit)"
# shellcheck disable=SC2016 # Markdown
sed -n 's/^| `\(kamailio_host_[a-z_]*\)`.*/\1/p' docs/metrics.md >"$dir/metrics"
while read -r metric; do
	grep -q "^$metric\(\|{.*}\) " "$dir/page" || fail "no $metric on the page: $(grep '{collector="host"}' "$dir/page")"
done
within journalctl -q -u $unit >"$dir/journal.log"
! grep -E 'level=(warn|error)' "$dir/journal.log" || fail "warnings in the log"
within systemctl restart kamailio # its directory in /run is a new one
await 30 "Kamailio after its restart" shows '^kamailio_up 1$'

step "a changed configuration, with the admin endpoint"
within sh -ec "mkdir -m 755 /etc/kamailio-exporter; cat >>$settings" <<<"KAMAILIO_EXPORTER_WEB_LISTEN_ADDRESS=127.0.0.1:9595
KAMAILIO_EXPORTER_ADMIN_CONFIG_FILE=/etc/kamailio-exporter/admin.yml"
within tee /etc/kamailio-exporter/admin.yml >/dev/null <<'END'
admin:
  enabled: true
  limits: {per_user_per_second: 5, burst: 50}
  guards: {min_uptime: 1s}
  users: {root: {peer_uid: [0], grants: [{action: stats.reset, params: {group: {any: true}}}]}}
END
within sh -ec 'chgrp kamailio-exporter /etc/kamailio-exporter/admin.yml && chmod 640 /etc/kamailio-exporter/admin.yml'
port=9595
within systemctl restart $unit
runs $previous
acted() { act >"$dir/acted.0"; }
await 10 "an action, refused until Kamailio has been up for a second" acted
verify
kept

step "upgrade to $new"
deb "$new"
runs "$new"
kept
[ -e "$r$settings.dpkg-dist" ] || fail "the new version's settings are not beside the changed ones"
act >>"$dir/acted.0" || fail "$(cat "$dir/act.log")"
verify
grep -q ' records, 1 to ' "$dir/verify.log" || fail "the audit log began again: $(cat "$dir/verify.log")"

step "a service that cannot start does not fail the upgrade"
echo KAMAILIO_EXPORTER_LOG_LEVEL=loud >>"$r$settings"
deb "$new"
failed() { [ "$(property NRestarts)" -gt 0 ]; }
await 20 "another try of the failed start" failed
sed -i /LOG_LEVEL=loud/d "$r$settings"
within systemctl restart $unit
runs "$new"

step "an upgrade leaves a disabled service stopped"
within systemctl disable --quiet --now $unit
deb "$new"
is "the disabled service" "$(property ActiveState) $(property UnitFileState)" "inactive disabled"
within systemctl enable --quiet --now $unit
runs "$new"

step "downgrade to $previous"
deb $previous
runs $previous
kept
verify

step "removed, and installed again"
apt_get remove kamailio-exporter
is_gone
kept
deb "$new"
runs "$new"
verify

step "logrotate loses no record, and verify accepts what is left"
# The configuration is that of the documents.
sed -n '/^\/var\/lib.*audit\.jsonl /,/^}/p' docs/admin-security.md >"$r/etc/logrotate.d/kamailio-exporter"
grep -q postrotate "$r/etc/logrotate.d/kamailio-exporter" || fail "docs/admin-security.md has no configuration for logrotate"
for rotation in 1 2 3; do
	acted=$dir/acted.$rotation
	# Between the renaming and the reload they are refused.
	(while [ ! -e "$dir/rotated.$rotation" ]; do act || true; done >"$acted") &
	actor=$!
	await 20 "actions" test -s "$acted"
	within logrotate -f /etc/logrotate.conf >"$dir/logrotate.log" 2>&1 || fail "logrotate: $(cat "$dir/logrotate.log")"
	before=$(wc -l <"$acted")
	again() { [ "$(wc -l <"$acted")" -gt $((before + 1)) ]; }
	await 20 "actions after the rotation" again
	touch "$dir/rotated.$rotation"
	wait $actor
	verify
done
kept
within gunzip $audit.2.gz $audit.3.gz
verify $audit.3 $audit.2 $audit.1 $audit
within grep -hv '"kind":"checkpoint"' $audit.3 $audit.2 $audit.1 $audit >"$dir/records"
cat "$dir"/acted.* >"$dir/acted"
while read -r id; do
	is "the records of $id" "$(grep "\"id\":\"$id\"" "$dir/records" | grep -o '"kind":"[a-z]*"' | tr -d '\n')" '"kind":"intent""kind":"outcome"'
done <"$dir/acted"
echo "actions in four files: $(wc -l <"$dir/acted")"
within systemctl restart $unit
runs "$new"
verify
! within journalctl -q -u $unit | grep -i 'chain' || fail "a broken chain after the rotation"

step "how exposed the service is, by systemd-analyze security"
exposure=$(within systemd-analyze security --no-pager $unit | sed -n 's/^.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p')
grep -q "exposure as $exposure " docs/install.md || fail "docs/install.md does not say that it is $exposure"

step "purged"
apt_get purge kamailio-exporter
for path in $settings $settings.dpkg-dist /var/lib/kamailio-exporter /run/kamailio-exporter /etc/systemd/system/multi-user.target.wants/$unit; do
	[ ! -e "$r$path" ] || fail "$path is left"
done
within getent passwd kamailio-exporter >/dev/null || fail "the user is gone"
is "failed units" "$(within systemctl --failed --plain --no-legend)" ""

step "the rpm"
# Debian has what it needs, under other names.
force=()
! within rpm --force-debian --version >/dev/null 2>&1 || force=(--force-debian) # Debian 12's
rpm() {
	within rpm "${force[@]}" --nodeps --nosignature "$@" >"$dir/rpm.log" 2>&1 || fail "rpm $*: $(cat "$dir/rpm.log")"
	! grep -iE 'error|scriptlet' "$dir/rpm.log" || fail "rpm $* (above)"
}
for version in $previous "$new"; do
	cp "$dist/$version"/*.rpm "$r/root/$version.rpm"
done
port=9494
rpm -i /root/$previous.rpm
within systemctl enable --quiet --now $unit
runs $previous
echo KAMAILIO_EXPORTER_WEB_LISTEN_ADDRESS=127.0.0.1:9595 >>"$r$settings"
port=9595
rpm -U "/root/$new.rpm"
runs "$new"
rpm -U --oldpackage /root/$previous.rpm
runs $previous
rpm -e kamailio-exporter
is_gone
[ -e "$r$settings.rpmsave" ] || fail "changed settings are not kept"
is "Kamailio" "$(within systemctl is-active kamailio) $(within systemctl show --value --property=NRestarts kamailio)" "active 0"
echo "The life of the packages on $suite is as documented."
