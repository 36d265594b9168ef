#!/usr/bin/env bash
# Traffic for the Kamailio that start-kamailio.sh runs: gateways that answer,
# refuse and ring, phones that register, callers, and a media relay (rtpengine
# without its kernel module). All of it stays on loopback. Runs until it is stopped (SIGTERM, SIGINT), and then
# stops what it started.
#
#   KAM_DIR           the server's work directory (required); SIPp's files go to
#                     traffic/ in it
#   KAM_SIP_PORT, KAM_TLS_PORT, KAM_RPC_PORT, KAM_GW_PORT, KAM_MEDIA    as for
#                     start-kamailio.sh
#   TRAFFIC_RATE      calls per second, in tenths: 10 (default) is one per second
#   TRAFFIC_HOLD_MS   how long an answered call lasts (default 8000)
#   TRAFFIC_USERS     phones that register (default 40)
#   TRAFFIC_WAVES=1   more calls, which come in waves of some minutes
#   TRAFFIC_HEALTHY=1 nothing is bad on purpose: all gateways answer, those of
#                     data.sql in this folder too, and only phones are busy or do
#                     not answer
#   TRAFFIC_FAILING   so often, in seconds, one of the three gateways of that file
#                     (dispatcher set 4) answers OPTIONS, but rings late and refuses
#                     all calls, for as long (default 0: never)
#   TRAFFIC_SECONDS   stop after so many seconds (default 0: never)
#   TRAFFIC_ONCE=1    no stream of calls: the phones register once, a few calls
#                     are made, and TRAFFIC_CALLS (default 5) more stay up until
#                     the end. When that is done, KAM_DIR/traffic.ready appears.
#
# SIGUSR1 makes it read KAM_DIR/scenarios, with lines "GATEWAY SCENARIO ARGUMENT...":
# these gateways end, and begin with another scenario.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${KAM_DIR:?set KAM_DIR to the work directory of the server}
sip_port=${KAM_SIP_PORT:-15060}
tls_port=${KAM_TLS_PORT:-15061}
rpc_port=${KAM_RPC_PORT:-15080}
gw_port=${KAM_GW_PORT:-15090}
media=${KAM_MEDIA:-rtpengine}
media_port=$((gw_port + 5)) dead_port=$((gw_port + 8))
rate=${TRAFFIC_RATE:-10}
hold=${TRAFFIC_HOLD_MS:-8000}
users=${TRAFFIC_USERS:-40}
waves=${TRAFFIC_WAVES:-}
healthy=${TRAFFIC_HEALTHY:-}
failing=${TRAFFIC_FAILING:-0}
seconds=${TRAFFIC_SECONDS:-0}
once=${TRAFFIC_ONCE:-}
held_calls=${TRAFFIC_CALLS:-5}

fail() {
	echo "traffic.sh: $*" >&2
	exit 1
}
command -v sipp >/dev/null || fail "sipp is missing: run .ci/install.sh run"

work=$dir/traffic
rm -rf "$work" "$dir/traffic.ready"
mkdir -p "$work"
cd "$work" # SIPp writes beside where it runs

pids=()
stop() {
	trap - EXIT
	trap '' INT TERM
	if [ ${#pids[@]} -gt 0 ]; then
		# Some may have ended by themselves.
		kill "${pids[@]}" 2>/dev/null || true
		wait "${pids[@]}" 2>/dev/null || true
	fi
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME ARGUMENT...: a SIPp in the background. Its process id is in $!.
start() {
	local name=$1
	shift
	# -skip_rlimit: SIPp must not ask for more open files than it may have.
	sipp -nostdin -skip_rlimit -ci 127.0.0.1 -i "${address:-127.0.0.1}" -trace_err -error_file "$work/$name.err" \
		"$@" </dev/null >"$work/$name.out" 2>&1 &
	pids+=($!)
	echo $! >"$work/$name.pid" # so that it can be made to fail
}
gateways=()
declare -A port_of address_of
gateway() { # NAME PORT SCENARIO ARGUMENT...
	port_of[$1]=$2 address_of[$1]=${address:-127.0.0.1}
	start "$1" -p "$2" -sf "$here/sipp/$3.xml" "${@:4}"
	gateways+=($!)
}
caller() { # NAME SCENARIO NUMBERS ARGUMENT...
	start "$1" -sf "$here/sipp/$2.xml" -inf "$work/$3.csv" "${@:4}" "127.0.0.1:$sip_port"
}

# Numbers to call and phones to register: files that SIPp reads line by line.
agents=('Yealink SIP-T46S 66.86.0.15' 'Linphone/5.2.5 (belle-sip/5.3.60)' 'Zoiper rv2.10.19' 'ATA "42"')
domains=(example.com example.com example.com example.net)
for list in udp tcp called answered ring busy failover refused idle third; do
	echo SEQUENTIAL >"$list.csv"
done
for ((i = 0; i < users; i++)); do
	domain=${domains[i % 4]} agent=${agents[i / 4 % 4]}
	if ((i % 5 == 4)); then
		echo "user$i;$domain;$agent;$gw_port;" >>tcp.csv
	else
		echo "user$i;$domain;$agent;$gw_port;" >>udp.csv
		echo "user$i;$domain;$agent;" >>called.csv
	fi
	echo "1$((1000 + i));example.com;$agent;" >>answered.csv
	echo "4$((1000 + i));example.com;$agent;" >>ring.csv
	echo "2$((1000 + i));example.com;$agent;" >>busy.csv
	echo "3$((1000 + i));example.com;$agent;" >>failover.csv
done
echo "5001;example.com;${agents[0]};" >>answered.csv
if [ -n "$healthy" ]; then
	# Phones at the ports of the gateways that are busy or ring.
	echo SEQUENTIAL | tee busy.csv >ring.csv
	for i in 1 2 3; do
		echo "busy$i;example.com;${agents[i]};$((gw_port + 1));" | tee -a busy.csv >>udp.csv
		echo "away$i$i;example.com;${agents[i]};$((gw_port + 3));" | tee -a ring.csv >>udp.csv
	done
	echo "6001;example.com;${agents[0]};" >>third.csv
fi
echo "stranger;example.com;${agents[1]};" >>refused.csv
cat busy.csv <(tail -n +2 refused.csv) >refusals.csv
for name in away1 away2 away3; do
	echo "$name;example.com;${agents[1]};" >>idle.csv
done

gateway gw-answers "$gw_port" uas-answer
gateway gw-busy $((gw_port + 1)) uas-busy
gateway gw-rejects $((gw_port + 2)) "uas-$([ -n "$healthy" ] && echo answer || echo reject)"
gateway gw-rings $((gw_port + 3)) uas-ring
if [ -n "$healthy" ]; then
	gateway gw-dead "$dead_port" uas-answer
	address=127.0.0.11 gateway gw-first "$gw_port" uas-answer
	address=127.0.0.12 gateway gw-second "$gw_port" uas-answer
fi

# in_turn FUNCTION: runs it again and again, in the background.
# shellcheck disable=SC2030,SC2031 # a list of its own, on purpose
in_turn() {
	(
		trap 'stop; exit 143' TERM
		while :; do
			pids=() # the subshell's own
			"$1"
		done
	) &
	pids+=($!)
}
pause() { # SECONDS; a signal ends it
	sleep "$1" &
	pids+=($!)
	wait $! || true
}
waves() {
	local calls # in 10 s
	for calls in 2 5 9 12 9 5 2 0; do
		if ((calls > 0)); then
			caller waves call-answered called -r "$calls" -rp 10000 -m $((calls * 3)) -d "$hold"
		fi
		pause 30
	done
}
if grep -q '^00000000000000000000000000000001 ' /proc/net/if_inet6 2>/dev/null; then
	address=::1 gateway gw-ipv6 $((gw_port + 4)) uas-answer
fi

failing_gateway() {
	local up scenario
	for scenario in uas-answer uas-late; do
		address=127.0.0.13 gateway gw-third "$gw_port" "$scenario"
		up=$!
		pause "$failing"
		kill "$up" 2>/dev/null || true
		wait "$up" || true
	done
}
if ((failing > 0)); then
	in_turn failing_gateway
elif [ -n "$healthy" ]; then
	address=127.0.0.13 gateway gw-third "$gw_port" uas-answer
fi
change_gateways() {
	local name scenario arguments pid i
	while read -r name scenario arguments; do
		pid=$(cat "$name.pid")
		for i in "${!gateways[@]}"; do
			[ "${gateways[i]}" != "$pid" ] || unset "gateways[i]"
		done
		kill "$pid"
		wait "$pid" || true
		# shellcheck disable=SC2086 # several arguments
		address=${address_of[$name]} gateway "$name" "${port_of[$name]}" "$scenario" $arguments
	done <"$dir/scenarios"
}
trap change_gateways USR1

# The media relay. Kamailio found it dead when it started, before it was there:
# enabling a node makes it look again. (rtpproxy's does not look, so none needs to
# run.)
enable() { # URL 0|1
	curl -sS --noproxy '*' -m 5 "http://127.0.0.1:$rpc_port/RPC" \
		-d '{"jsonrpc":"2.0","method":"'"$media.enable"'","params":["'"$1"'",'"$2"'],"id":1}'
}
answer='"result":'
if [ "$media" = rtpengine ]; then
	answer='"status":\s*"enable"'
	command -v rtpengine >/dev/null || fail "rtpengine is missing: run .ci/install.sh run"
	rtpengine --config-file=none --table=-1 --foreground --log-stderr --log-level=4 \
		--interface=127.0.0.1 --listen-ng="127.0.0.1:$media_port" --num-threads=1 \
		--port-min=$((gw_port + 6)) --port-max=$((gw_port + 7)) >rtpengine.out 2>&1 &
	pids+=($!)
fi
for ((i = 0; i < 50; i++)); do
	enable "udp:127.0.0.1:$media_port" 1 | grep -q "$answer" && break
	sleep 0.1
done
((i < 50)) || fail "Kamailio finds no media relay; see $work/rtpengine.out"
enable "udp:127.0.0.2:$dead_port" 0 >/dev/null
[ -z "$healthy" ] || enable "udp:127.0.0.1:$dead_port" 0 >/dev/null

# A TLS connection, so that there is one to be counted. (Debian's SIPp has no
# TLS.) The FIFO is open for writing too, so openssl never sees its end.
mkfifo hold
exec 8<>hold
openssl s_client -quiet -connect "127.0.0.1:$tls_port" <&8 >tls.out 2>&1 &
pids+=($!)
# Kamailio 6 closes a connection on which nothing arrives, with a CRITICAL line
# in its log.
printf '%s\r\n' 'OPTIONS sip:ping@example.com SIP/2.0' \
	'Via: SIP/2.0/TLS 127.0.0.1;branch=z9hG4bKdemo' 'From: <sip:demo@example.com>;tag=1' \
	'To: <sip:ping@example.com>' 'Call-ID: tls@demo' 'CSeq: 1 OPTIONS' 'Max-Forwards: 70' \
	'Content-Length: 0' '' >&8

check_gateways() {
	local pid
	for pid in "${gateways[@]}"; do
		kill -0 "$pid" 2>/dev/null ||
			fail "a gateway ended; are ports $gw_port to $((gw_port + 4)) free? See $work"
	done
}

if [ -n "$once" ]; then
	# finish WHAT ARGUMENT...: a caller that must end well.
	finish() {
		"$@"
		wait $! && return
		# Whoever started this may remove the directory.
		tail -n 40 "$work/$2.err" >&2 || true
		fail "$2 did not end well; see $work/$2.err"
	}
	finish caller register-udp register udp -m $((users - users / 5)) -r 200
	if ((users >= 5)); then
		finish caller register-tcp register tcp -m $((users / 5)) -r 200 -t t1
	fi
	# Stored in SQLite, which Kamailio gives up soon while others write to it, as
	# several modules do at its start.
	for ((try = 0; try < 15; try++)); do
		caller message message idle -m 3
		wait $! && break
		sleep 1
	done
	((try < 15)) || fail "message did not end well; see $work/message.err"
	finish caller publish publish called -m 2
	if ((held_calls > 0)); then
		caller held call-answered answered -m "$held_calls" -r 50 -d 86400000
	fi
	finish caller answered call-answered called -m 4 -r 50 -d 100
	finish caller refused call-refused refusals -m 4 -r 50
	finish caller abandoned call-abandoned ring -m 2 -r 50
	# Over a gateway that rejects and one that never answers to one that does.
	finish caller failover call-answered failover -m 1 -d 100
	check_gateways
	touch "$dir/traffic.ready"
else
	# A call of each kind begins every so many tenths of a second; with the
	# default, 10 calls in 10 s.
	caller register-udp register udp -r 2
	caller register-tcp register tcp -r 1 -rp 2000 -t t1
	caller users call-answered called -r $((rate * 3)) -rp 100000 -d "$hold"
	caller answered call-answered answered -r $((rate * 4)) -rp 100000 -d "$hold"
	caller refused call-refused refusals -r "$rate" -rp 100000
	caller abandoned call-abandoned ring -r "$rate" -rp 100000
	caller failover call-answered failover -r "$rate" -rp 100000 -d "$hold"
	caller message message idle -r 1 -rp 30000
	caller publish publish called -r 1 -rp 20000
	if [ -n "$waves" ]; then
		in_turn waves
	fi
	if [ -n "$healthy" ]; then
		# third_.csv contains the percentage of these calls that fail.
		caller third call-answered third -r 3 -d "$hold" -trace_stat -stf third_.csv -fd 5s
	fi
	check_gateways
	touch "$dir/traffic.ready"
fi

if ((seconds > 0)); then
	sleep "$seconds" &
	pids+=($!)
	wait $!
	exit 0
fi
# Whatever else ends, without its gateways the traffic makes no sense.
while check_gateways; do
	wait -n "${gateways[@]}" || true # a signal ends it too
done
