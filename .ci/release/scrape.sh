#!/usr/bin/env bash
# Runs the exporter without a Kamailio, scrapes it and stops it.
#
#   scrape.sh COMMAND...    the program, and what runs it, such as qemu; with CHECK=,
#                           a command of the program that must say whether it runs
set -euo pipefail

log=$(mktemp)
trap 'kill "$exporter" 2>/dev/null || true; rm -f "$log"' EXIT
fail() {
	echo "scrape.sh: $*: $(cat "$log")" >&2
	exit 1
}
"$@" --web.listen-address=127.0.0.1:0 --kamailio.uri=unix:///nonexistent.sock >"$log" 2>&1 &
exporter=$!
for ((i = 0; i < 200; i++)); do
	address=$(sed -n 's/.*Listening on.* address=\(\S*\).*/\1/p' "$log")
	[ -z "$address" ] || break
	kill -0 "$exporter" || fail "it does not start"
	sleep 0.1
done
page=$(curl -sf --noproxy '*' "http://$address/metrics") || fail "it exports nothing"
grep -q '^kamailio_up 0$' <<<"$page" || fail "its page: ${page:0:500}"
grep '^kamailio_exporter_build_info' <<<"$page"
check() { "$@" "$CHECK" "http://$address/-/healthy" >>"$log" 2>&1; }
[ -z "${CHECK:-}" ] || check "$@" || fail "$CHECK fails while it runs"
kill "$exporter"
wait "$exporter" || fail "it does not end well"
[ -z "${CHECK:-}" ] || ! check "$@" || fail "$CHECK succeeds when it does not run"
