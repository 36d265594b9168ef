# shellcheck shell=bash disable=SC2034,SC2154 # it is a part of run.sh
# The faults of make demo FAULT=NAME.

# Name, alert, when the alert fires, and what happens.
faults='
stopped|KamailioDown|75 s|all processes of Kamailio are stopped
killed|KamailioDown|75 s|all processes of Kamailio are killed
sip-hangs|KamailioSIPNotAnswering|75 s|the processes that read SIP are stopped
restart-loop|KamailioRestartLoop|4 min|Kamailio is restarted every 45 s
exporter-killed|KamailioExporterDown|5 min|the exporter is killed
memory|KamailioSharedMemoryExhausted|2 min|a hash table takes 96% of the shared memory
tcp-full|KamailioSIPNotAnswering|90 s|one client opens all TCP connections
certificate|KamailioTLSCertificateExpiryImminent|10 s|a certificate with one day left is loaded
flood|KamailioPikeBlocking|20 s|one address sends 500 requests per second
registration-storm|KamailioRegistrationStorm|3 min|2,500 users register, 125 per second
set-down|KamailioDispatcherSetDown|80 s|no gateway of dispatcher set 4 answers
slow-options|KamailioDispatcherLatencyHigh|90 s|the gateways of set 4 answer OPTIONS after 1.2 s
one-gateway-503|KamailioTrunkFailsCalls|2 min|one of the three gateways of set 4 refuses all calls with 503
all-gateways-503|KamailioCallsNotAnswered|4 min|all gateways refuse all calls with 503
no-answer|KamailioCallsNotAnswered|4 min|all gateways ring, and no call is answered
ack-loss|KamailioAnswersRetransmitted|90 s|the ACKs of half of the calls are lost
no-bye|KamailioDialogsExpiring|3 min|calls end without BYE, and time out after a minute
calls-stop|KamailioCallsStopped|4 min|no calls come any more; phones register as before
traffic-stops|KamailioNoTraffic|4 min|no requests come any more
'

# list_faults prints the menu.
list_faults() {
	echo 'make demo FAULT=NAME'
	while IFS='|' read -r name alert after what; do
		[ -z "$name" ] || printf '  %-19s %s\n%22s%s, after about %s\n' "$name" "$what" '' "$alert" "$after"
	done <<<"$faults"
}
# of_fault NAME: puts its line into alert, after and what.
of_fault() {
	local name
	while IFS='|' read -r name alert after what; do
		[ "$name" != "$1" ] || return 0
	done <<<"$faults"
	return 1
}
# prepare NAME: what must be so from the start.
prepare() {
	case $1 in
	memory) export KAM_SHM_MB=24 ;; # soon full
	flood) export KAM_PIKE_REQUESTS=500 ;;
	no-bye) export KAM_DIALOG_SECONDS=60 ;;
	calls-stop | traffic-stops) : "${DEMO_FAULT_AFTER:=180}" ;; # what was before must be known
	esac
}
explain() { # NAME
	of_fault "$1"
	cat <<-TEXT

		The fault $1 begins in ${DEMO_FAULT_AFTER:-60} s: $what.
		Expected after that: $alert, after about $after.
		Look at the dashboard Overview first. Then the runbook: http://$listen/runbooks/$alert
	TEXT
}
# watch_alert NAME: reports when its alert fires.
watch_alert() {
	of_fault "$1"
	echo "$(date +%T) The fault $1 has begun."
	SECONDS=0
	until curl -sf --noproxy '*' -m 5 -G "http://$prometheus_listen/api/v1/query" \
		--data-urlencode "query=ALERTS{alertname=\"$alert\",alertstate=\"firing\"}" | grep -q '"metric"'; do
		sleep 1
	done
	echo "$(date +%T) $alert fires, $SECONDS s after the fault began."
}

rpc() { # METHOD PARAMETERS
	curl -sS --noproxy '*' -m 30 "http://127.0.0.1:$KAM_RPC_PORT/RPC" -d '{"jsonrpc":"2.0","method":"'"$1"'","params":['"${2:-}"'],"id":1}'
}
# sends SCENARIO NUMBERS ARGUMENT...: more traffic; its process is in bad.
sends() {
	(cd "$KAM_DIR/traffic" && exec sipp -nostdin -skip_rlimit -ci 127.0.0.1 -sf "$here/sipp/$1.xml" \
		${2:+-inf "$2.csv"} "${@:3}" "127.0.0.1:$KAM_SIP_PORT" >bad.out 2>&1) &
	bad=$!
}
# gateways SCENARIO NAME...: these gateways begin with another scenario.
gateways() {
	printf "%s $1\n" "${@:2}" >"$KAM_DIR/scenarios"
	kill -USR1 "$traffic"
}
callers_end() { # NAME...: callers finish their calls, and begin no others
	local name
	for name; do
		kill -USR1 "$(cat "$KAM_DIR/traffic/$name.pid")"
	done
}

begin() { # NAME
	local set4=(gw-first gw-second gw-third) all=(gw-answers gw-rejects gw-dead gw-ipv6 gw-first gw-second gw-third)
	local callers=(users answered refused abandoned failover third) pid fd i host
	case $1 in
	stopped) kill -STOP -- "-$kamailio" ;;
	killed)
		kill -KILL -- "-$kamailio"
		wait "$kamailio" 2>/dev/null || true # bash would report it
		kamailio=''
		;;
	sip-hangs)
		for pid in $(rpc core.psx | tr -d '\n\t' | tr '{' '\n' | sed -nE 's/.*"PID":([0-9]+).*"(udp|tcp) receiver.*/\1/p'); do
			kill -STOP "$pid"
		done
		;;
	restart-loop)
		(
			trap 'stop "$kamailio"; exit 143' TERM
			while :; do
				stop "$kamailio"
				setsid "$here/start-kamailio.sh" >>"$KAM_DIR/kamailio.log" 2>&1 &
				kamailio=$!
				for host in 127.0.0.2 127.0.0.1; do # relays that do not exist, as traffic.sh does
					until rpc rtpengine.enable "\"udp:$host:$((KAM_GW_PORT + 8))\",0" 2>/dev/null | grep -q '"result"'; do sleep 0.2; done
				done
				sleep 45 &
				wait $!
			done
		) &
		bad=$!
		kamailio=''
		;;
	exporter-killed)
		kill -KILL "$exporter"
		wait "$exporter" 2>/dev/null || true
		exporter=''
		;;
	memory)
		(
			used='"total":[^0-9]*([0-9]+).*"real_used":[^0-9]*([0-9]+)'
			for ((i = 0; ; i++)); do
				# What calls free again is taken too.
				if [[ $(rpc core.shmmem) =~ $used ]] && ((BASH_REMATCH[2] * 100 > BASH_REMATCH[1] * 96)); then
					sleep 1
					continue
				fi
				for n in {1..50}; do
					printf 'url=http://127.0.0.1:%s/RPC\ndata={"jsonrpc":"2.0","method":"htable.sets","params":["ipban","%s-%s","%012000d"],"id":1}\nnext\n' "$KAM_RPC_PORT" "$i" "$n" 0
				done | sed '$d' | curl -sS --noproxy '*' -K - >/dev/null
			done
		) &
		bad=$!
		;;
	tcp-full)
		(
			trap '' PIPE # Kamailio closes what is too much
			for i in {1..600}; do
				exec {fd}<>"/dev/tcp/127.0.0.1/$KAM_SIP_PORT" || break
				printf '%s\r\n' 'OPTIONS sip:ping@127.0.0.1 SIP/2.0' "Via: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK$i" \
					'From: <sip:tcp@127.0.0.1>;tag=1' 'To: <sip:ping@127.0.0.1>' "Call-ID: full-$i" 'CSeq: 1 OPTIONS' \
					'Max-Forwards: 70' 'Content-Length: 0' '' >&"$fd" || true
			done
			exec sleep infinity
		) 2>/dev/null &
		bad=$!
		;;
	certificate)
		openssl req -x509 -key "$KAM_DIR/tls.key" -days 1 -subj /CN=localhost \
			-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -out "$KAM_DIR/tls.crt"
		rpc tls.reload >/dev/null
		;;
	flood) sends options '' -i 127.0.0.66 -s ping -r 500 ;;
	registration-storm)
		{
			echo SEQUENTIAL
			for i in {1..2500}; do
				echo "storm$i;example.com;storm;$KAM_GW_PORT;"
			done
		} >"$KAM_DIR/traffic/storm.csv"
		sends register storm -r 125
		;;
	set-down)
		for pid in "${set4[@]}"; do
			kill -STOP "$(cat "$KAM_DIR/traffic/$pid.pid")"
		done
		;;
	slow-options) gateways 'uas-answer -d 1200' "${set4[@]}" ;;
	one-gateway-503) gateways uas-reject gw-third ;;
	all-gateways-503) gateways uas-reject "${all[@]}" ;;
	no-answer) gateways uas-ring "${all[@]}" ;;
	ack-loss) sends call-unacked called -r 4 -d 20000 ;;
	no-bye) sends call-answered called -r 2 -d 86400000 -l 1000000 ;;
	calls-stop) callers_end "${callers[@]}" ;;
	traffic-stops) callers_end "${callers[@]}" register-udp register-tcp message publish ;;
	esac
}

if [ -n "$fault" ] && ! of_fault "$fault"; then
	list_faults
	[ "$fault" = list ] || fail "there is no fault $fault"
	exit 0
fi
