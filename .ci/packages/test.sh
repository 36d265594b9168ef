#!/usr/bin/env bash
# Builds the packages, and installs, starts, upgrades, removes and purges them in a
# throw-away Debian 13 beside a Kamailio 6.0 with Debian's own configuration. The deb
# and the rpm are installed, and then the static binary, by the commands of
# docs/install.md. With UPDATE=1 it records the report of doctor that the documents show.
#
# The root is that of debian-roots.sh under an overlay in memory, with a network, a
# process table and mounts of its own: nothing is left when the test ends, however
# it ends. There is no systemd in it (life.sh has one): units are verified by this
# machine's, and started here by what they say of user, groups, directories,
# environment and command. What they say of the sandbox is not in force.
#
# Needs root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# shellcheck source=.ci/packages/common.sh
. .ci/packages/common.sh

if [ "${1:-}" != inside ]; then
	[ "$(id -u)" -eq 0 ] || fail "needs root"
	PATH=$PATH:/usr/sbin:/sbin
	for program in unshare ip systemd-analyze readelf rpm; do
		command -v $program >/dev/null || fail "$program is missing: run .ci/install.sh test"
	done
	root=$(.ci/debian-roots.sh trixie)
	dir=$(mktemp -d)
	trap 'rm -rf --one-file-system "$dir"' EXIT
	DIST=$dir/dist .ci/packages/build.sh "-s -w -X github.com/prometheus/common/version.Version=$(cat VERSION)" "$(go env GOARCH)" >/dev/null
	mkdir "$dir/root"
	unshare --mount --net --pid --ipc --uts --mount-proc --fork --kill-child --propagation private \
		"$PWD/.ci/packages/test.sh" inside "$root" "$dir" || fail "failed, see above"
	exit
fi

dir=$3
overlay "$dir/root" "$2"
mount -t proc proc "$r/proc"
ip link set lo up

export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
within() { chroot "$r" "$@" </dev/null; }
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY

# settings UNIT KEY: its values in the unit, one a line. /etc goes before /usr.
settings() {
	local dir=$r/usr/lib/systemd/system
	[ ! -f "$r/etc/systemd/system/$1" ] || dir=$r/etc/systemd/system
	sed -n "s/^$2=//p" "$dir/$1"
}

# verify UNIT PROGRAM: has systemd-analyze check a unit of the root. It looks for the
# targets too, and those are where systemd is.
verify() {
	local units=$dir/root/units found
	rm -rf "$units"
	mkdir -p "$units/usr/lib/systemd" "$units/$(dirname "$1")" "$units/$(dirname "$2")"
	cp -a /usr/lib/systemd/system "$units/usr/lib/systemd/"
	cp "$r/usr/lib/systemd/system/kamailio.service" "$units/usr/lib/systemd/system/"
	cp "$r/$1" "$units/$1"
	cp "$r/$2" "$units/$2"
	install -D -m 755 /dev/null "$units/bin/sh" # for ExecReload=
	found=$(systemd-analyze verify --man=no --root="$units" kamailio-exporter.service 2>&1) || fail "the unit: $found"
	is "what systemd-analyze says of the unit" "$found" ""
}

# start UNIT: runs its ExecStart= as systemd would.
start() {
	local user group groups file line word env=() command=() caps=()
	user=$(settings "$1" User) group=$(settings "$1" Group)
	[ -n "$group" ] || group=$(within id -gn "$user")
	# What systemd gives: the groups that the user is in, and those of the unit. One
	# that does not exist keeps the unit from starting.
	groups=$(within id -G "$user")
	for word in $(settings "$1" SupplementaryGroups); do
		groups+=" $(within getent group "$word" | cut -d: -f3)" || fail "$1: no group $word"
	done
	for word in Runtime:/run State:/var/lib; do
		line=$(settings "$1" "${word%%:*}Directory")
		[ -n "$line" ] || continue
		within install -d -o "$user" -g "$group" -m "$(settings "$1" "${word%%:*}DirectoryMode")" "${word#*:}/$line"
	done
	while read -r line; do
		line=${line#\'} && env+=("${line%\'}")
	done < <(settings "$1" Environment)
	for file in $(settings "$1" EnvironmentFile); do
		[ -f "$r/${file#-}" ] || continue
		while read -r line; do
			env+=("$line")
		done < <(grep '^[A-Z]' "$r/${file#-}")
	done
	[ "$(settings "$1" NoNewPrivileges)" != yes ] || caps+=(--no-new-privs)
	[ "$(settings "$1" CapabilityBoundingSet | wc -l)" -eq 0 ] || caps+=(--bounding-set=-all)
	for word in $(settings "$1" ExecStart); do
		case $word in
		\$*)
			for line in "${env[@]}"; do
				[[ $line != "${word#\$}="* ]] || command+=("${line#*=}")
			done
			;;
		*) command+=("$word") ;;
		esac
	done
	# shellcheck disable=SC2016 # expanded by the inner bash
	within env -i PATH="$PATH" "${env[@]}" setpriv --reuid="$user" --regid="$group" --groups="${groups// /,}" \
		"${caps[@]}" --inh-caps=-all bash -c 'umask "$1" && shift && exec "$@"' - "$(settings "$1" UMask | grep . || echo 0022)" \
		"${command[@]}" >"$dir/$1.log" 2>&1 &
	started=$!
}

# stop: ends the exporter as systemd would.
stop() {
	kill -TERM "$(pgrep -x -f "$(settings kamailio-exporter.service ExecStart)")"
	wait "$exporter" || fail "the exporter does not end well: $(cat "$dir"/*exporter*.log)"
}

# steps HEADING [MARK]: the commands of the first block in this section of
# docs/install.md, or of the first one after MARK.
steps() {
	awk -v heading="## $1" -v mark="${2:-}" '
		/^## / { section = $0 == heading; marked = mark == "" }
		section && mark != "" && index($0, mark) { marked = 1 }
		section && marked && /^ *```sh$/ { on = 1; next }
		on && /^ *```$/ { exit }
		on { sub(/^ */, ""); print }' docs/install.md
}

# by_hand HEADING [MARK]: runs these steps. What they say to systemd is done here.
by_hand() {
	local line n=0
	while read -r line; do
		((++n))
		case $line in
		"make build") ;; # the program comes from the tar.gz
		"systemctl daemon-reload")
			[ ! -e "$r/etc/systemd/system/kamailio-exporter.service" ] || verify etc/systemd/system/kamailio-exporter.service usr/local/bin/kamailio_exporter
			;;
		"systemctl enable --now kamailio-exporter")
			start kamailio-exporter.service
			exporter=$started
			;;
		"systemctl restart kamailio-exporter")
			stop
			start kamailio-exporter.service
			exporter=$started
			;;
		"systemctl disable --now kamailio-exporter") stop ;;
		systemctl*) fail "docs/install.md: who runs this: $line" ;;
		*) within bash -ec "cd /tmp/by-hand; $line" >"$dir/step.log" 2>&1 || fail "docs/install.md: $line: $(cat "$dir/step.log")" ;;
		esac
	done < <(steps "$@")
	[ "$n" -ge 2 ] || fail "docs/install.md has no commands for: $*"
}

# The state of Kamailio's configuration, and of all files but those that dpkg, apt
# and the user database keep. /run and /tmp are in memory.
kamailio_files() { (cd "$r" && find etc/kamailio etc/default/kamailio -type f -exec sha256sum {} + | sort); }
all_files() {
	(cd "$r" && find . -xdev \( -path ./proc -o -path ./run -o -path ./tmp -o -path ./var/lib/dpkg -o -path ./var/cache -o -path ./var/log -o -path ./var/lib/apt \) -prune -o -print | sort)
}
page() { curl -sS -f -m 15 --noproxy '*' "http://$1/metrics"; }

report=cmd/kamailio_exporter/internal/doctor/testdata/packaged.txt
deb=$(echo "$dir"/dist/*.deb)
cp "$deb" "$r/tmp/kamailio-exporter.deb"
kamailio=$(kamailio_files)
before=$(all_files)

step "installing it, without a network"
within apt-get install -y -q --no-install-recommends /tmp/kamailio-exporter.deb >"$dir/apt.log" 2>&1 || fail "$(cat "$dir/apt.log")"
is "the version" "$(within kamailio_exporter --version | sed -n '1s/.* version \([^ ]*\) .*/\1/p')" "$(cat VERSION)"
within kamailio_exporter assets --list | sed 's#^#./usr/share/doc/kamailio-exporter/#' | sort >"$dir/assets"
missing=$(dpkg-deb --fsys-tarfile "$deb" | tar -t | sort | comm -23 "$dir/assets" -)
is "what the deb lacks of its documents" "$missing" ""
# shellcheck disable=SC2016 # expanded by the inner bash
is "what bash completes" "$(within bash -c '. /usr/share/bash-completion/completions/kamailio_exporter
	COMP_WORDS=(kamailio_exporter doctor --kamailio.u) COMP_CWORD=2
	_kamailio_exporter_bash_autocomplete; echo "${COMPREPLY[@]}"')" --kamailio.uri
zcat "$r/usr/share/man/man1/kamailio_exporter.1.gz" | grep -q '^\\fBdoctor ' || fail "the manual does not have the commands"
is "the user's groups" "$(within id -Gn kamailio-exporter)" "kamailio-exporter kamailio"
is "the user's shell" "$(within getent passwd kamailio-exporter | cut -d: -f6,7)" "/nonexistent:/usr/sbin/nologin"
wants=$r/etc/systemd/system/multi-user.target.wants/kamailio-exporter.service
[ -L "$wants" ] || fail "the service is not enabled"
verify usr/lib/systemd/system/kamailio-exporter.service usr/bin/kamailio_exporter

step "starting it beside Kamailio, as Debian ships it"
start kamailio.service
await 20 "Kamailio's socket" test -S "$r/run/kamailio/kamailio_rpc.sock"
start kamailio-exporter.service
exporter=$started
await 20 "the exporter" page 127.0.0.1:9494
page 127.0.0.1:9494 >"$dir/page"
grep -q '^kamailio_up 1$' "$dir/page" || fail "Kamailio is not up: $(cat "$dir"/*.log "$dir/page")"
grep '^kamailio_build_info{.*version="6\.0' "$dir/page" || fail "no version of Kamailio on the page"
grep -q '^kamailio_core_requests_received_by_method_total' "$dir/page" || fail "no statistics on the page"
grep -q '^kamailio_host_udp_queue_bytes{' "$dir/page" || fail "no queues of Kamailio's sockets on the page"
! grep '^kamailio_scrape_collector_success.* 0$' "$dir/page" || fail "collectors failed: $(cat "$dir"/*exporter*.log)"
echo "collectors that work: $(grep -c '^kamailio_scrape_collector_success.* 1$' "$dir/page")"
pid=$(pgrep -x -f "$(settings kamailio-exporter.service ExecStart)")
mkdir -p "$r/run/systemd/system" # as where systemd runs
within kamailio_exporter doctor >"$dir/doctor" 2>&1 || fail "doctor reports a problem: $(cat "$dir/doctor")"
rmdir "$r/run/systemd/system" "$r/run/systemd"
# What differs between two runs is replaced, and the finding that Kamailio has just started is left out.
sed -E '/^  note  it started less than a minute ago/d
	s/pid [0-9]+/pid 811/; s/[0-9]+\.[0-9] ms/0.5 ms/; s/up for [0-9]+ [a-z]+/up for 3 days/
	s/[0-9]+ samples in [0-9]+ ms/317 samples in 9 ms/; s/([a-z.]+ )\([0-9]+ KiB\)/\1(5 KiB)/' "$dir/doctor" >"$dir/report"
sed -i "1s/[0-9]* note/$(grep -c '^  note' "$dir/report") note/" "$dir/report"
[ -z "${UPDATE:-}" ] || cp "$dir/report" "$report"
# Lines may break elsewhere.
diff <(grep -oE '\S+' "$report") <(grep -oE '\S+' "$dir/report") || fail "doctor reports something else than $report (above): UPDATE=1 records it"
is "the user of the process" "$(stat -c %u "/proc/$pid")" "$(within id -u kamailio-exporter)"
stop

step "an upgrade keeps settings, and Kamailio"
settings_file=$r/etc/default/kamailio-exporter
echo KAMAILIO_EXPORTER_WEB_LISTEN_ADDRESS=127.0.0.1:9595 >>"$settings_file"
install -d -m 700 "$r/var/lib/kamailio-exporter" && echo {} >"$r/var/lib/kamailio-exporter/audit.log"
within gpasswd -d kamailio-exporter kamailio >/dev/null 2>&1
within dpkg-deb -R /tmp/kamailio-exporter.deb /tmp/next
sed -i 's/^Version: .*/&.1/' "$r/tmp/next/DEBIAN/control"
within dpkg-deb -b /tmp/next /tmp/next.deb >/dev/null
within apt-get install -y -q --no-install-recommends /tmp/next.deb >"$dir/apt.log" 2>&1 || fail "$(cat "$dir/apt.log")"
grep -q 127.0.0.1:9595 "$settings_file" || fail "the upgrade overwrote the settings"
is "the groups of a user who was taken out of one" "$(within id -Gn kamailio-exporter)" kamailio-exporter
start kamailio-exporter.service
exporter=$started
await 20 "the exporter, where the settings say" page 127.0.0.1:9595
page 127.0.0.1:9595 | grep -q '^kamailio_up 1$' || fail "the group that the unit names does not reach Kamailio's sockets"
stop

step "removing it keeps settings and state, purging it neither"
within apt-get remove -y -q kamailio-exporter >"$dir/apt.log" 2>&1 || fail "$(cat "$dir/apt.log")"
for file in "$r/usr/bin/kamailio_exporter" "$r/usr/lib/systemd/system/kamailio-exporter.service"; do
	[ ! -e "$file" ] || fail "$file is still there"
done
for file in "$settings_file" "$r/var/lib/kamailio-exporter/audit.log"; do
	[ -e "$file" ] || fail "$file is gone"
done
within apt-get purge -y -q kamailio-exporter >"$dir/apt.log" 2>&1 || fail "$(cat "$dir/apt.log")"
diff <(echo "$before") <(all_files) || fail "files are left, or gone (above)"
within getent passwd kamailio-exporter >/dev/null || fail "the user is gone"
is "Kamailio's configuration" "$(kamailio_files)" "$kamailio"
kill -0 "$(cat "$r/run/kamailio/kamailio.pid")" || fail "Kamailio is down"

step "before Kamailio: its package takes the group over"
pid=$(cat "$r/run/kamailio/kamailio.pid")
gone() { ! kill -0 "$pid"; }
kill -TERM "$pid"
await 20 "Kamailio's end" gone # deluser refuses while it runs
for user in kamailio kamailio-exporter; do
	within deluser --quiet $user >"$dir/apt.log" 2>&1 || fail "$(cat "$dir/apt.log")"
done
! within getent group kamailio kamailio-exporter || fail "there are groups left"
within apt-get install -y -q --no-install-recommends /tmp/kamailio-exporter.deb >"$dir/apt.log" 2>&1 || fail "$(cat "$dir/apt.log")"
within sh /var/lib/dpkg/info/kamailio.postinst configure >"$dir/apt.log" 2>&1 || fail "$(cat "$dir/apt.log")"
is "Kamailio's group" "$(within id -gn kamailio)" kamailio
is "the user's groups" "$(within id -Gn kamailio-exporter)" "kamailio-exporter kamailio"

step "the rpm"
within apt-get purge -y -q kamailio-exporter >"$dir/apt.log" 2>&1 || fail "$(cat "$dir/apt.log")"
within deluser --quiet kamailio-exporter >"$dir/apt.log" 2>&1 || fail "$(cat "$dir/apt.log")"
# Debian has what it needs, under other names.
rpm() {
	command rpm --root "$r" --force-debian --nodeps --nosignature "$@" >"$dir/rpm.log" 2>&1 || fail "rpm $*: $(cat "$dir/rpm.log")"
	is "what rpm says" "$(cat "$dir/rpm.log")" ""
}
rpm -i "$dir"/dist/*.rpm
is "the user's groups" "$(within id -Gn kamailio-exporter)" "kamailio-exporter kamailio"
cmp "$r/tmp/next/usr/lib/systemd/system/kamailio-exporter.service" "$r/usr/lib/systemd/system/kamailio-exporter.service"
within kamailio_exporter --version >/dev/null
echo KAMAILIO_EXPORTER_LOG_LEVEL=debug >>"$settings_file"
rpm -U --replacepkgs "$dir"/dist/*.rpm
grep -q LOG_LEVEL=debug "$settings_file" || fail "the rpm's upgrade overwrote the settings"
command rpm --root "$r" --force-debian -e kamailio-exporter >"$dir/rpm.log" 2>&1 || fail "rpm -e: $(cat "$dir/rpm.log")"
[ ! -e "$r/usr/bin/kamailio_exporter" ] || fail "the program is still there"
[ -e "$settings_file.rpmsave" ] || fail "changed settings are not kept"
is "Kamailio's configuration" "$(kamailio_files)" "$kamailio"

step "by hand, by the commands of docs/install.md"
rm -f "$settings_file.rpmsave"
within userdel kamailio-exporter >"$dir/apt.log" 2>&1 || fail "$(cat "$dir/apt.log")"
mkdir "$r/tmp/by-hand"
tar -C "$r/tmp/by-hand" --strip-components=1 -xf "$dir"/dist/*.tar.gz
before=$(all_files)
start kamailio.service
await 20 "Kamailio's socket" test -S "$r/run/kamailio/kamailio_rpc.sock"
by_hand "Static binary"
await 20 "the exporter" page 127.0.0.1:9494
page 127.0.0.1:9494 | grep -q '^kamailio_up 1$' || fail "Kamailio is not up: $(cat "$dir"/*.log)"
echo KAMAILIO_EXPORTER_WEB_LISTEN_ADDRESS=127.0.0.1:9595 >>"$settings_file"
by_hand Upgrade "- By hand"
await 20 "the exporter, where the settings say" page 127.0.0.1:9595
page 127.0.0.1:9595 | grep -q '^kamailio_up 1$' || fail "Kamailio is not up after the upgrade: $(cat "$dir"/*.log)"
by_hand Uninstall "- By hand"
diff <(echo "$before") <(all_files) || fail "files are left, or gone (above)"
! within getent passwd kamailio-exporter || fail "the user is still there"
is "Kamailio's configuration" "$(kamailio_files)" "$kamailio"
echo "The packages and the steps by hand work."
