#!/usr/bin/env bash
# Builds the image without a registry and runs what is in it: with buildah, as
# root, on a golang base image made of the Debian root of debian-roots.sh and this
# machine's Go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export BUILDAH_ISOLATION=chroot
buildah() { command buildah --storage-driver vfs "$@"; }
command -v buildah >/dev/null || { echo "image-test.sh: buildah is missing: apt-get install buildah" >&2; exit 1; }
root=$(.ci/debian-roots.sh trixie)

base=localhost/kamailio_exporter-golang image=localhost/kamailio_exporter:test
containers=()
cleanup() {
	[ ${#containers[@]} -eq 0 ] || buildah rm "${containers[@]}" >/dev/null || true
	buildah rmi --force "$image" "$base" >/dev/null 2>&1 || true
}
trap cleanup EXIT

c=$(buildah from scratch)
containers+=("$c")
buildah copy -q "$c" "$root" / >/dev/null
buildah copy -q "$c" "$(go env GOROOT)" /usr/local/go >/dev/null
# The way to the Go module proxy may lead through one with a CA of its own.
buildah copy -q "$c" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ >/dev/null
buildah config --env PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin --env GOPROXY="$(go env GOPROXY)" "$c"
buildah commit -q "$c" "$base" >/dev/null

buildah build --build-arg GOLANG_IMAGE="$base" --build-arg REVISION=test -t "$image" .
c=$(buildah from "$image")
containers+=("$c")
buildah run --user 65534 "$c" -- /bin/kamailio_exporter --version | tee /dev/stderr | grep -q "version $(cat VERSION) .*revision: test"
echo "The image works."
