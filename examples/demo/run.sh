#!/usr/bin/env bash
# The demo: a Kamailio with traffic, and the exporter that watches it. Installs
# what is missing, builds the exporter, starts all three, and says where to look.
# Ctrl-C stops what was started here, and removes its files.
#
#   run.sh              Kamailio, traffic and exporter
#   run.sh monitored    these, with calls that come in waves, and Prometheus with
#                       the rules of alerts/ and Alertmanager, whose alerts act: a
#                       carrier that refuses its calls is taken out, and put back
#                       (docs/remediation.md). No other alert fires.
#   FAULT=NAME run.sh monitored    everything is healthy for a minute; then this
#                       fault begins. faults.sh lists them (FAULT=list).
#
#   DEMO_LISTEN       where the exporter listens (default 127.0.0.1:9494)
#   DEMO_PROMETHEUS, DEMO_ALERTMANAGER    where these do (127.0.0.1:9090, :9093)
#   DEMO_ADMIN        where the admin endpoint does (127.0.0.1:9495)
#   DEMO_SCRAPE       scrape and rule interval (default 5s)
#   DEMO_FAULT_AFTER  seconds until the fault begins (default 60 or 180)
#   DEMO_ALSO         another exporter to scrape, such as that of a second run.sh
#   KAM_SIP_PORT (15060), KAM_TLS_PORT (15061), KAM_RPC_PORT (15080),
#   KAM_RPC_TCP_PORT (15081), KAM_CTL_PORT (15082), KAM_GW_PORT (15090, to +8)
#   KAM_ROOT          a Debian root with another Kamailio (.ci/debian-roots.sh)
#   TRAFFIC_RATE, TRAFFIC_HOLD_MS, TRAFFIC_USERS    see traffic.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
case ${1:-} in
'') monitored='' ;;
monitored) monitored=1 ;;
*)
	echo "usage: $0 [monitored]" >&2
	exit 2
	;;
esac
fail() {
	echo "run.sh: $*" >&2
	exit 1
}

fault=${monitored:+${FAULT:-}}
# shellcheck source=examples/demo/faults.sh
. "$here/faults.sh"
listen=${DEMO_LISTEN:-127.0.0.1:9494}
prometheus_listen=${DEMO_PROMETHEUS:-127.0.0.1:9090}
alertmanager_listen=${DEMO_ALERTMANAGER:-127.0.0.1:9093}
admin_listen=${DEMO_ADMIN:-127.0.0.1:9495}
scrape=${DEMO_SCRAPE:-5s}
export KAM_SIP_PORT=${KAM_SIP_PORT:-15060}
export KAM_TLS_PORT=${KAM_TLS_PORT:-15061}
export KAM_RPC_PORT=${KAM_RPC_PORT:-15080}
export KAM_RPC_TCP_PORT=${KAM_RPC_TCP_PORT:-15081}
export KAM_CTL_PORT=${KAM_CTL_PORT:-15082}
export KAM_GW_PORT=${KAM_GW_PORT:-15090}

"$top/.ci/install.sh" "$([ -n "$monitored" ] && echo demo || echo run)"
command -v go >/dev/null || fail "go is missing: install Go 1.26 or newer"

# taken PORT: something listens on it, over TCP or UDP (as the kernel lists it).
taken() {
	local table
	for table in tcp tcp6 udp udp6; do
		[ -e "/proc/net/$table" ] || continue
		awk -v port="$(printf ':%04X$' "$1")" -v tcp="${table%%udp*}" \
			'$2 ~ port && (!tcp || $4 == "0A") { found = 1 } END { exit !found }' \
			"/proc/net/$table" && return
	done
	return 1
}
busy=()
free() { # PORT VARIABLE [HOST]
	if taken "$1"; then
		busy+=("port $1 is taken: set $2 to another, for example $2=${3:+$3:}$(($1 + 100))")
	fi
}
free "${listen##*:}" DEMO_LISTEN "${listen%:*}"
if [ -n "$monitored" ]; then
	free "${prometheus_listen##*:}" DEMO_PROMETHEUS "${prometheus_listen%:*}"
	free "${alertmanager_listen##*:}" DEMO_ALERTMANAGER "${alertmanager_listen%:*}"
	free "${admin_listen##*:}" DEMO_ADMIN "${admin_listen%:*}"
fi
free "$KAM_SIP_PORT" KAM_SIP_PORT
free "$KAM_TLS_PORT" KAM_TLS_PORT
free "$KAM_RPC_PORT" KAM_RPC_PORT
free "$KAM_RPC_TCP_PORT" KAM_RPC_TCP_PORT
free "$KAM_CTL_PORT" KAM_CTL_PORT
for port in {0..8}; do
	if taken $((KAM_GW_PORT + port)); then
		busy+=("port $((KAM_GW_PORT + port)) is taken: set KAM_GW_PORT to the first of 9 free ports")
		break
	fi
done
if [ ${#busy[@]} -gt 0 ]; then
	printf 'run.sh: %s\n' "${busy[@]}" >&2
	exit 1
fi

KAM_DIR=$(mktemp -d /tmp/kamailio_demo.XXXXXX)
export KAM_DIR
kamailio='' traffic='' exporter='' prometheus='' alertmanager='' bad='' watcher=''

# shellcheck disable=SC2317 # called by the traps
# stop PID: asks it to end, and waits until it has.
stop() {
	if [ -n "$1" ]; then
		kill "$1" 2>/dev/null || true
		wait "$1" 2>/dev/null || true
		while kill -0 "$1" 2>/dev/null; do sleep 0.1; done # no child of a subshell
	fi
}
# shellcheck disable=SC2317
cleanup() {
	trap - EXIT
	trap '' INT TERM
	stop "$watcher"
	stop "$bad"
	for group in $kamailio $traffic; do
		kill -CONT -- "-$group" 2>/dev/null || true # a fault may have stopped it
	done
	stop "$prometheus"
	stop "$alertmanager"
	stop "$exporter"
	stop "$traffic"
	stop "$kamailio"
	rm -rf "$KAM_DIR"
}
trap cleanup EXIT
trap 'echo; echo "Stopping."; exit 0' INT
trap 'exit 143' TERM

# died NAME LOG: says so, shows the end of its log, and ends the demo.
died() {
	echo "run.sh: $1 has ended. Its last log lines:" >&2
	tail -n 20 "$2" >&2
	exit 1
}
# await NAME PID LOG COMMAND...: until the command succeeds, at most 30 s.
await() {
	local name=$1 pid=$2 log=$3 i
	shift 3
	for ((i = 0; i < 150; i++)); do
		kill -0 "$pid" 2>/dev/null || died "$name" "$log"
		if "$@" >/dev/null 2>&1; then
			return
		fi
		sleep 0.2
	done
	echo "run.sh: $name is not up after 30 s. Its last log lines:" >&2
	tail -n 20 "$log" >&2
	exit 1
}

echo "Building the exporter"
version=github.com/prometheus/common/version
revision=$(git -C "$top" rev-parse HEAD 2>/dev/null || echo unknown)
(cd "$top" && go build -buildvcs=false -ldflags "-X $version.Version=$(cat VERSION) -X $version.Revision=$revision" -o "$KAM_DIR/kamailio_exporter" ./cmd/kamailio_exporter)

# Each in a session of its own: Ctrl-C at the terminal is for this script, which
# then stops them in order.
echo "Starting Kamailio"
if [ -n "$monitored" ]; then
	# Calls that are shorter would be suspicious: KamailioTrunkCallsShort.
	export KAM_SQL=$here/data.sql TRAFFIC_HEALTHY=1 TRAFFIC_HOLD_MS=${TRAFFIC_HOLD_MS-12000}
	if [ -n "$fault" ]; then
		prepare "$fault"
	else
		export TRAFFIC_WAVES=${TRAFFIC_WAVES-1} TRAFFIC_FAILING=${TRAFFIC_FAILING-300}
	fi
fi
setsid "$here/start-kamailio.sh" >>"$KAM_DIR/kamailio.log" 2>&1 &
kamailio=$!
await Kamailio "$kamailio" "$KAM_DIR/kamailio.log" \
	curl -sf --noproxy '*' -m 2 "http://127.0.0.1:$KAM_RPC_PORT/RPC" \
	-d '{"jsonrpc":"2.0","method":"core.version","id":1}'

echo "Starting traffic"
setsid "$here/traffic.sh" >"$KAM_DIR/traffic.log" 2>&1 &
traffic=$!
await traffic "$traffic" "$KAM_DIR/traffic.log" test -e "$KAM_DIR/traffic.ready"

admin_flags=()
if [ -n "$monitored" ]; then
	# The shipped rules, enforced (unless a fault is to be seen), and with times for
	# somebody who watches.
	# token USER: makes one, into a file; its hash is in $hash.
	token() {
		hash=$("$KAM_DIR/kamailio_exporter" admin token | tee >(head -n 1 >"$KAM_DIR/$1.token") | sed -n 's/.*sha256: \([0-9a-f]*\).*/\1/p')
	}
	umask 077
	token alertmanager
	alertmanager_hash=$hash
	token oncall
	sed -e "s/127\.0\.0\.1:9443/$admin_listen/" -e "s|/var/lib/kamailio-exporter|$KAM_DIR|" \
		-e "s/sbc1\.example\.net:9494/$listen/" -e "s/^  mode: dry_run/  mode: $([ -n "$fault" ] && echo dry_run || echo enforce)/" \
		-e 's/min_uptime: [0-9a-z]*/min_uptime: 10s/' -e 's|per_target: 1/30m, per_rule: 3/1h|per_target: 1/1m, per_rule: 60/1h|' \
		-e 's|budget: 10/1h|budget: 100/1h|' \
		-e "/alertmanager:/,/oncall:/s/sha256: [0-9a-f]*/sha256: $alertmanager_hash/" \
		-e "/oncall:/,/grants:/s/sha256: [0-9a-f]*/sha256: $hash/" \
		"$top/examples/admin/repair/admin.yml" >"$KAM_DIR/admin.yml"
	umask 022
	admin_flags=(--admin.config.file="$KAM_DIR/admin.yml")
fi

echo "Starting the exporter"
setsid "$KAM_DIR/kamailio_exporter" \
	--kamailio.uri="unix://$KAM_DIR/kamailio_rpc.sock" \
	--kamailio.uri="fifo://$KAM_DIR/kamailio_rpc.fifo?reply_dir=$KAM_DIR" \
	--kamailio.uri="http://127.0.0.1:$KAM_RPC_PORT/RPC" \
	--sip.probe="udp:127.0.0.1:$KAM_SIP_PORT" --sip.probe="tcp:127.0.0.1:$KAM_SIP_PORT" \
	--sip.probe="tls:127.0.0.1:$KAM_TLS_PORT" --sip.tls-ca-file="$KAM_DIR/tls.crt" \
	--web.listen-address="$listen" "${admin_flags[@]}" >"$KAM_DIR/exporter.log" 2>&1 &
exporter=$!
await "the exporter" "$exporter" "$KAM_DIR/exporter.log" \
	curl -sf --noproxy '*' -m 10 "http://$listen/metrics"

if [ -n "$monitored" ]; then
	echo "Starting Prometheus and Alertmanager"
	# With links to the runbooks that the exporter serves.
	mkdir "$KAM_DIR/rules"
	for file in "$top"/alerts/kamailio-*.yml; do
		sed "s|https://github\\.com/.*/runbooks/\\(.*\\)\\.md|http://$listen/runbooks/\\1|" "$file" >"$KAM_DIR/rules/${file##*/}"
	done
	cat >"$KAM_DIR/prometheus.yml" <<-YAML
		global:
		  scrape_interval: $scrape
		  scrape_timeout: $scrape
		  evaluation_interval: $scrape
		scrape_configs:
		  - job_name: kamailio
		    static_configs:
		      - targets: ["$listen"${DEMO_ALSO:+, "$DEMO_ALSO"}]
		alerting:
		  alertmanagers:
		    - static_configs:
		        - targets: ["$alertmanager_listen"]
		rule_files: ["$KAM_DIR/rules/*.yml"]
	YAML
	setsid prometheus --config.file="$KAM_DIR/prometheus.yml" --storage.tsdb.path="$KAM_DIR/prometheus" \
		--web.listen-address="$prometheus_listen" >"$KAM_DIR/prometheus.log" 2>&1 &
	prometheus=$!

	# The routes and the inhibition of alerts/alertmanager.yml, with receivers
	# that only have names: no one is notified. Before them the route to the
	# exporter, and its receiver, of the example for alerts that act.
	part() { # FROM TO: lines of that example
		sed -n "/$1/,/$2/p" "$top/examples/admin/repair/alertmanager.yml" |
			sed -e "s/sbc1\.example\.net:9494/$listen/" -e "s/127\.0\.0\.1:9443/$admin_listen/" \
				-e "s|/etc/alertmanager/kamailio-repair.token|$KAM_DIR/alertmanager.token|" \
				-e 's/group_wait: .*/group_wait: 5s/' -e 's/group_interval: .*/group_interval: 10s/' -e 's/repeat_interval: .*/repeat_interval: 30s/'
	}
	awk -v route="$(part 'receiver: repair' repeat_interval)" -v receiver="$(part 'name: repair' credentials_file)" '
		/^[a-z_]+:/ { block = $1 }
		block == "templates:" { next }
		block == "receivers:" && !/^receivers:/ && !/^ *- name:/ { next }
		{ print }
		/^  routes:/ { print route }
		/^receivers:/ { print receiver }' "$top/alerts/alertmanager.yml" >"$KAM_DIR/alertmanager.yml"
	setsid prometheus-alertmanager --config.file="$KAM_DIR/alertmanager.yml" \
		--storage.path="$KAM_DIR/alertmanager" --cluster.listen-address= \
		--web.listen-address="$alertmanager_listen" >"$KAM_DIR/alertmanager.log" 2>&1 &
	alertmanager=$!
	await Prometheus "$prometheus" "$KAM_DIR/prometheus.log" \
		curl -sf --noproxy '*' -m 2 "http://$prometheus_listen/-/ready"
	await Alertmanager "$alertmanager" "$KAM_DIR/alertmanager.log" \
		curl -sf --noproxy '*' -m 2 "http://$alertmanager_listen/-/ready"
fi

cat <<TEXT

The demo is running.
  Metrics        http://$listen/metrics
  Landing page   http://$listen/
TEXT
if [ -n "$monitored" ]; then
	cat <<-TEXT
		  Prometheus     http://$prometheus_listen/alerts
		  Alertmanager   http://$alertmanager_listen/
		  Dashboards     import $top/dashboards/*.json into a Grafana
		                 with that Prometheus
		  Alerts that act  $KAM_DIR/kamailio_exporter admin rules \\
		                   --url=http://$admin_listen --token-file=$KAM_DIR/oncall.token
	TEXT
	if [ -z "$fault" ]; then
		cat <<-TEXT
			  Intended       alerts about trunk sip:127.0.0.13:$KAM_GW_PORT: KamailioTrunkFailsCalls (warning),
			                 KamailioRemediationActed (info), and KamailioInviteServerErrors, which the
			                 first inhibits. This carrier fails for $TRAFFIC_FAILING s every $((2 * TRAFFIC_FAILING)) s, first in
			                 $TRAFFIC_FAILING s. An action takes it out and puts it back: see the dashboards
			                 Overview and Trunks. No other alert is intended.
			  Faults         make demo FAULT=list
		TEXT
	fi
fi
cat <<TEXT
  Kamailio       SIP on 127.0.0.1:$KAM_SIP_PORT, RPC at http://127.0.0.1:$KAM_RPC_PORT/RPC
  Logs           $KAM_DIR/*.log
                 $KAM_DIR/traffic/
Ctrl-C stops it and removes its files.
TEXT

if [ -n "$fault" ]; then
	explain "$fault"
	sleep "${DEMO_FAULT_AFTER:-60}" &
	wait $!
	begin "$fault"
	watch_alert "$fault" &
	watcher=$!
fi

# Until one of them ends, which none should. What a fault ended has no process any more.
wait -n ${kamailio:+"$kamailio"} "$traffic" ${exporter:+"$exporter"} ${prometheus:+"$prometheus" "$alertmanager"} || true
[ -z "$kamailio" ] || kill -0 "$kamailio" 2>/dev/null || died Kamailio "$KAM_DIR/kamailio.log"
kill -0 "$traffic" 2>/dev/null || died traffic "$KAM_DIR/traffic.log"
[ -z "$exporter" ] || kill -0 "$exporter" 2>/dev/null || died "the exporter" "$KAM_DIR/exporter.log"
kill -0 "$prometheus" 2>/dev/null || died Prometheus "$KAM_DIR/prometheus.log"
died Alertmanager "$KAM_DIR/alertmanager.log"
