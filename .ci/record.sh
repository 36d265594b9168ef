#!/usr/bin/env bash
# Records what real servers answer, for the tests: starts the demo's Kamailio
# with traffic, of each version in turn, asks it each method over HTTP, and writes
# the replies, byte by byte, to collector/testdata/<version>/<method>.json. Replies of
# modules that cannot or need not be in the demo come from two more servers, with
# collector/testdata/others.cfg and ims.cfg, and are in <version>/others/ and ims/.
#
#   .ci/record.sh [METHOD...]    without methods: all of the cost table
#
#   RECORD_ROOTS    Debian roots whose Kamailio is recorded, joined with ":"; an
#                   empty one is this machine. Default: this machine and all that
#                   debian-roots.sh makes.
#
# After it: go test ./collector -run Golden -update, and make docs
# Needs root, as debian-roots.sh does; installs what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
	echo "record.sh: $*" >&2
	exit 1
}

.ci/install.sh test
dir=$(mktemp -d /tmp/record.XXXXXX)
trap 'rm -rf "$dir"' EXIT

# What may be read, as the program itself lists it. What can kill some version is
# recorded on the others; what can kill any, if it lacks a parameter, is not.
go run ./cmd/kamailio_exporter rpc --output=json >"$dir/prices.json"
prices() { # CONDITION: the methods that meet it
	sqlite3 :memory: "SELECT p.value ->> 'method' FROM json_each(readfile('$dir/prices.json')) p WHERE $1"
}
mapfile -t priced < <(prices "value ->> 'dangerous' IS NULL OR value ->> 'dangerous_versions' IS NOT NULL")
[ ${#priced[@]} -gt 0 ] || fail "the exporter lists no methods"
methods=("$@")
[ $# -gt 0 ] || methods=("${priced[@]}")
for method in "${methods[@]}"; do
	[[ " ${priced[*]} " == *" $method "* ]] || fail "$method is not among what may be read (kamrpc/prices.go)"
done

# dangerous METHOD VERSION: whether the cost table forbids it there.
dangerous() {
	[ -n "$(prices "p.value ->> 'method' = '$1' AND EXISTS (SELECT 1 FROM json_each(p.value -> 'dangerous_versions') v WHERE '$2' GLOB v.value || '*')")" ]
}

# params METHOD: its parameters, for those that need any.
params() {
	case $1 in
	cfg.get) echo '["core","debug"]' ;;
	dialplan.dump) echo '[1]' ;;
	dlg.briefing) echo '["sSI"]' ;;
	dlg.profile_get_size) echo '["inbound"]' ;;
	htable.dump) echo '["trunks"]' ;;
	rtpengine.show) echo '["all"]' ;;
	sca.subscription_count) echo '["call-info"]' ;;
	stats.get_statistics) echo '["all"]' ;;
	*) echo '[]' ;;
	esac
}

# free_ports: the first of 16 ports that are free, over UDP and TCP, and that no
# test has reserved. Always from the same end, so that recordings hardly differ.
free_ports() {
	local first port pattern
	for ((first = 20000; first < 32000; first += 16)); do
		grep -q "@kamailiotest-ports-$first\$" /proc/net/unix && continue
		pattern=
		for ((port = first; port < first + 16; port++)); do
			pattern+=$(printf '|:%04X ' "$port")
		done
		if ! awk '{ print $2 " " }' /proc/net/{tcp,udp}{,6} 2>/dev/null | grep -Eq "${pattern#|}"; then
			echo "$first"
			return
		fi
	done
	fail "no free ports"
}

groups=() # process groups that were started here
stop() {
	local i group
	for ((i = ${#groups[@]} - 1; i >= 0; i--)); do
		group=${groups[i]}
		kill -TERM "$group" 2>/dev/null || true
		for _ in {1..80}; do
			kill -0 -- "-$group" 2>/dev/null || continue 2
			sleep 0.1
		done
		kill -KILL -- "-$group" 2>/dev/null || true
	done
	groups=()
}
trap 'stop; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# await SECONDS WHAT COMMAND...: until the command succeeds.
await() {
	local tries=$(($1 * 5)) what=$2
	shift 2
	while ! "$@" >/dev/null 2>&1; do
		if ((--tries == 0)); then
			tail -n 20 "$KAM_DIR"/*.log >&2
			fail "$what is not up; see above"
		fi
		sleep 0.2
	done
}

ask() { # METHOD
	curl -sS -m 20 --noproxy '*' "http://127.0.0.1:$KAM_RPC_PORT/RPC" \
		-d '{"jsonrpc":"2.0","method":"'"$1"'","params":'"$(params "$1")"',"id":1}'
}
up() { # the TCP main process is the last that Kamailio forks
	ask core.psa | grep -q 'tcp main process'
}

record() { # ROOT or nothing, SERVER, METHOD...
	local port version method to name=${1:-host} methods=("${@:3}")
	[ ${#methods[@]} -gt 0 ] || return 0
	port=$(free_ports)
	export KAM_ROOT=$1 KAM_CONFIG=full KAM_MEDIA=rtpengine KAM_DIR=$dir/${name##*/}-$2 TRAFFIC_ONCE=1
	export KAM_SIP_PORT=$port KAM_TLS_PORT=$((port + 1)) KAM_RPC_PORT=$((port + 2)) \
		KAM_RPC_TCP_PORT=$((port + 3)) KAM_GW_PORT=$((port + 5))
	mkdir -p "$KAM_DIR/replies"
	case $2 in
	others)
		KAM_MEDIA=rtpproxy
		cp collector/testdata/others.cfg "$KAM_DIR/local.cfg"
		;;
	ims)
		export KAM_CONFIG=stock KAM_STOCK_FILE=$KAM_DIR/ims.cfg KAM_RPC_PORT=$port
		sed "s|WORK_DIR|$KAM_DIR|" collector/testdata/ims.cfg >"$KAM_STOCK_FILE"
		cp collector/testdata/ims.xml "$KAM_DIR/"
		{
			cat "$1/usr/share/kamailio/db_sqlite/"{standard,presence}-create.sql
			# Kamailio comes with no schema for ims_icscf.
			echo 'CREATE TABLE nds_trusted_domains (id INTEGER PRIMARY KEY, trusted_domain TEXT);
				CREATE TABLE s_cscf (id INTEGER PRIMARY KEY, name TEXT, s_cscf_uri TEXT);
				CREATE TABLE s_cscf_capabilities (id INTEGER PRIMARY KEY, id_s_cscf INTEGER, capability INTEGER);'
		} | sqlite3 "$KAM_DIR/ims.sqlite"
		;;
	esac
	setsid examples/demo/start-kamailio.sh >"$KAM_DIR/start.log" 2>&1 &
	groups+=($!)
	await 30 "Kamailio ($KAM_ROOT)" up
	if [ "$2" != ims ]; then
		setsid examples/demo/traffic.sh >"$KAM_DIR/traffic.log" 2>&1 &
		groups+=($!)
		await 60 "the traffic" test -e "$KAM_DIR/traffic.ready"
	fi

	version=$(ask core.version | grep -oE 'kamailio [0-9]+\.[0-9]+\.[0-9]+' | cut -d ' ' -f 2)
	for method in "${methods[@]}"; do
		if dangerous "$method" "$version"; then
			echo "Kamailio $version can die of $method: not recorded"
			continue
		fi
		ask "$method" >"$KAM_DIR/reply"
		# Of ul.db_users the text of the error is what is wanted.
		if [ "$method" = ul.db_users ] || grep -q '"result":' "$KAM_DIR/reply"; then
			mv "$KAM_DIR/reply" "$KAM_DIR/replies/$method.json"
		else
			echo "Kamailio $version: $method is not recorded: $(tr -d '\n\t' <"$KAM_DIR/reply")"
		fi
	done
	stop
	to=collector/testdata/$version
	[ "$2" = demo ] || to+=/$2
	mkdir -p "$to"
	find "$KAM_DIR/replies" -name '*.json' -exec cp -t "$to" {} +
	echo "$to: ${methods[*]}"
}

# What another server is needed for, and what it replies besides.
demo=() others=() ims=()
for method in "${methods[@]}"; do
	case $method in
	rtpproxy.* | sca.* | cnxcc.*) others+=("$method") ;;
	cdp.*) ims+=("$method") ;;
	*) demo+=("$method") ;;
	esac
done
besides=(core.info core.modules core.uptime core.version stats.get_statistics system.listMethods)
[ ${#others[@]} -eq 0 ] || others+=("${besides[@]}")
[ ${#ims[@]} -eq 0 ] || ims+=("${besides[@]}")
IFS=: read -ra roots <<<"${RECORD_ROOTS-:$(.ci/debian-roots.sh)}"
for root in "${roots[@]}"; do
	record "$root" demo "${demo[@]}"
	record "$root" others "${others[@]}"
	record "$root" ims "${ims[@]}"
done
