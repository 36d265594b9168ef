#!/usr/bin/env bash
# Runs a Kamailio server in the foreground, on loopback, with all its files in
# one directory. The demo and the tests start their servers with it.
#
#   KAM_DIR       work directory (required); sockets, database and log go there
#   KAM_ROOT      runs the Kamailio of the Debian root at this path (as made by
#                 .ci/debian-roots.sh) instead of that of this machine
#   KAM_CONFIG    "full" (default): examples/kamailio/kamailio.cfg;
#                 "stock": Debian's own /etc/kamailio/kamailio.cfg as it is, or
#                 with the define that KAM_STOCK_DEFINE names (WITH_JSONRPC), or
#                 the copy of it in KAM_STOCK_FILE, in KAM_DIR
#   KAM_SIP_PORT, KAM_TLS_PORT, KAM_RPC_PORT (HTTP), KAM_RPC_TCP_PORT (Kamailio 6),
#   KAM_CTL_PORT (BINRPC)
#   KAM_RPC_UDP_PORT  if set, the datagram RPC socket is this UDP port of
#                 127.0.0.1 and no longer $KAM_DIR/kamailio_rpc.sock
#   KAM_MEDIA     "rtpengine" (default) or "rtpproxy": the module for media relays
#   KAM_GW_PORT   first of the ports of the demo's gateways; KAM_GW_PORT+5 is the
#                 media relay's, KAM_GW_PORT+8 is taken as the address of what is
#                 meant to be dead
#   KAM_DRGW_SECONDS          how long a gateway stays marked as dead, 120
#   KAM_DIALOG_SECONDS        how long a call may last, 3600
#   KAM_PIKE_REQUESTS         more from an address in 2 s are a flood, 5000
#   KAM_SQL       a file with more rows for the tables, after data.sql
#   KAM_PKG_MB, KAM_SHM_MB    memory, 8 and 64 as in Kamailio itself
#
# The log goes to $KAM_DIR/kamailio.log. SIGTERM stops all of the server. This
# process becomes Kamailio's main process, so its id is the one to signal.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config_dir=$(cd "$here/../kamailio" && pwd)

fail() {
	echo "start-kamailio.sh: $*" >&2
	exit 1
}

dir=${KAM_DIR:?set KAM_DIR to the work directory}
config=${KAM_CONFIG:-full}
sip_port=${KAM_SIP_PORT:-15060}
tls_port=${KAM_TLS_PORT:-15061}
rpc_port=${KAM_RPC_PORT:-15080}
rpc_tcp_port=${KAM_RPC_TCP_PORT:-15081}
ctl_port=${KAM_CTL_PORT:-15082}
rpc_udp_port=${KAM_RPC_UDP_PORT:-}
media=${KAM_MEDIA:-rtpengine}
gw_port=${KAM_GW_PORT:-15090}
media_port=$((gw_port + 5))
dead_port=$((gw_port + 8))

PATH=$PATH:/usr/sbin:/sbin # where kamailio and chroot are
mkdir -p "$dir"
dir=$(cd "$dir" && pwd -P)
# A Unix socket's name has room for 107 bytes, and "/kamailio_rpc.sock" has 18.
[ ${#dir} -le 80 ] || fail "KAM_DIR is too long for a Unix socket in it: $dir"
case $dir in
*[!A-Za-z0-9/._-]*) fail "KAM_DIR may hold letters, digits and / . _ - only: $dir" ;;
esac

root=${KAM_ROOT:-}
if [ -n "$root" ]; then
	[ -x "$root/usr/sbin/kamailio" ] || fail "there is no Kamailio in $root: run .ci/debian-roots.sh"
else
	command -v kamailio >/dev/null || fail "kamailio is missing: run .ci/install.sh run"
fi

args=(-DD -E -Y "$dir" -m "${KAM_SHM_MB:-64}" -M "${KAM_PKG_MB:-8}")

# The database is created again at each start, with the schema that belongs to the
# version that is about to run.
make_database() {
	local schema=$root/usr/share/kamailio/db_sqlite db=$dir/kamailio.sqlite table
	[ -d "$schema" ] || fail "there is no SQLite schema in $schema: run .ci/install.sh run"
	rm -f "$db" "$db-wal" "$db-shm"
	{
		echo 'PRAGMA synchronous=OFF; BEGIN;'
		cat "$schema/standard-create.sql"
		for table in carrierroute dialog dialplan dispatcher domain drouting htable imc \
			lcr msilo mtree pdt permissions pipelimit presence rtpengine sca secfilter siptrace uac usrloc; do
			cat "$schema/$table-create.sql"
		done
		sed -e "s/@GW_PORT@/$gw_port/g" -e "s/@GW_PORT+1@/$((gw_port + 1))/g" \
			-e "s/@GW_PORT+2@/$((gw_port + 2))/g" -e "s/@GW_PORT+3@/$((gw_port + 3))/g" \
			-e "s/@GW_PORT+4@/$((gw_port + 4))/g" -e "s/@DEAD_PORT@/$dead_port/g" \
			-e "s/@SIP_PORT@/$sip_port/g" "$config_dir/data.sql" ${KAM_SQL:+"$KAM_SQL"}
		echo 'COMMIT;'
	} | sqlite3 -bail "$db" >/dev/null
}

case $config in
full)
	command -v sqlite3 >/dev/null || fail "sqlite3 is missing: run .ci/install.sh run"
	make_database
	if [ ! -e "$dir/tls.crt" ]; then
		openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \
			-addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
			-keyout "$dir/tls.key" -out "$dir/tls.crt" 2>"$dir/openssl.log" ||
			fail "openssl could not make a certificate; see $dir/openssl.log"
	fi
	for side in server client; do
		printf '%s\n' "[$side:default]" 'method = TLSv1.2+' \
			"private_key = $dir/tls.key" "certificate = $dir/tls.crt" \
			'verify_certificate = no' 'require_certificate = no'
	done >"$dir/tls.cfg"
	# Copied, so that a server in another root can read them too.
	cp "$config_dir/kamailio.cfg" "$config_dir/drouting-gw-status.cfg" "$config_dir/kamailio-trunks.cfg" "$dir/"
	args+=(-f "$dir/kamailio.cfg"
		--substdef "!WORK_DIR!$dir!g"
		--substdef "!SIP_PORT!$sip_port!g"
		--substdef "!TLS_PORT!$tls_port!g"
		--substdef "!RPC_PORT!$rpc_port!g"
		--substdef "!JSON_TCP_PORT!$rpc_tcp_port!g"
		--substdef "!CTL_PORT!$ctl_port!g"
		--substdef "!GW_PORT!$gw_port!g"
		--substdef "!MEDIA_PORT!$media_port!g"
		--substdef "!DEAD_PORT!$dead_port!g"
		--substdef "!DRGW_SECONDS!${KAM_DRGW_SECONDS:-120}!g"
		--substdef "!DIALOG_SECONDS!${KAM_DIALOG_SECONDS:-3600}!g"
		--substdef "!PIKE_REQUESTS!${KAM_PIKE_REQUESTS:-5000}!g")
	case $media in
	rtpengine) ;;
	rtpproxy) args+=(-A WITH_RTPPROXY) ;;
	*) fail "KAM_MEDIA is rtpengine or rtpproxy, not $media" ;;
	esac
	if [ -n "$rpc_udp_port" ]; then
		args+=(--substdef "!RPC_DGRAM!udp:127.0.0.1:$rpc_udp_port!g")
	fi
	if grep -q '^00000000000000000000000000000001 ' /proc/net/if_inet6 2>/dev/null; then
		args+=(-A WITH_IPV6)
	fi
	;;
stock)
	# Unchanged but for where it listens. WITH_JSONRPC is not set, so RPC is on
	# the FIFO and the Unix socket only, as on a server fresh from the package.
	[ -z "$rpc_udp_port" ] || fail "KAM_RPC_UDP_PORT does not go with KAM_CONFIG=stock"
	args+=(-f "${KAM_STOCK_FILE:-/etc/kamailio/kamailio.cfg}" -a no
		-l "udp:127.0.0.1:$sip_port" -l "tcp:127.0.0.1:$sip_port")
	[ -z "${KAM_STOCK_DEFINE:-}" ] || args+=(-A "$KAM_STOCK_DEFINE")
	;;
*) fail "KAM_CONFIG is full or stock, not $config" ;;
esac

exec </dev/null >>"$dir/kamailio.log" 2>&1
if [ -z "$root" ]; then
	cd "$dir"
	exec kamailio "${args[@]}"
fi

# In the other root: the work directory, and /tmp (where the stock config has
# its reply FIFOs), are mounted at the same path inside, so that every file has
# one name. The mounts live in a namespace that ends with the server.
namespace=(unshare --mount --propagation private)
if [ "$(id -u)" -ne 0 ]; then
	namespace+=(--user --map-root-user)
fi
# shellcheck disable=SC2016 # expanded by the inner bash
exec "${namespace[@]}" bash -euo pipefail -c '
	root=$1 dir=$2
	shift 2
	mount --rbind /dev "$root/dev"
	mount --rbind /proc "$root/proc"
	mount --bind /tmp "$root/tmp"
	mkdir -p "$root$dir"
	mount --bind "$dir" "$root$dir"
	cd /
	exec chroot "$root" /usr/sbin/kamailio "$@"
' start-kamailio "$root" "$dir" "${args[@]}"
