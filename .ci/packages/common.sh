# What test.sh and life.sh share. $dir is theirs.
# shellcheck shell=bash disable=SC2034,SC2154
fail() {
	echo "packages/${0##*/}: $*" >&2
	exit 1
}
step() { echo "-- $*"; }
is() { # WHAT IS WANTED
	[ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""
}
await() { # SECONDS WHAT COMMAND...
	local tries=$(($1 * 10)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		((--tries > 0)) || fail "$what: not after some seconds: $(tail -n 20 "$dir"/*.log)"
		sleep 0.1
	done
}

# overlay DIRECTORY LOWER: mounts the root of debian-roots.sh, with what is written to it
# in memory, and sets $r to it.
overlay() {
	mount -t tmpfs -o mode=755 tmpfs "$1"
	mkdir "$1/upper" "$1/work" "$1/merged"
	mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/merged"
	r=$1/merged
}
