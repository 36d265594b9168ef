#!/usr/bin/env bash
# Builds the image for amd64 and arm64 without a registry, and runs what is in it: with
# buildah, as root, on a golang base image made of the Debian root of debian-roots.sh
# and this machine's Go, of which the build uses the caches too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
	echo "image-test.sh: $*" >&2
	exit 1
}
is() { # WHAT IS WANTED
	[ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""
}
export BUILDAH_ISOLATION=chroot
command -v buildah >/dev/null || fail "buildah is missing: run .ci/install.sh release"
root=$(.ci/debian-roots.sh trixie)
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
engine=(buildah --storage-driver vfs --root "$work/storage" --runroot "$work/run")
buildah() { command "${engine[@]}" "$@"; }

base=localhost/kamailio_exporter-golang image=localhost/kamailio_exporter:test
# Each step copies the base, so it has no more than the build needs.
c=$(buildah from scratch)
tar -C "$root" --exclude=./usr/share --exclude='./usr/lib/python3*' --exclude='./usr/lib/*/kamailio' -c . | tar -C "$(buildah mount "$c")" -x
# The way to the Go module proxy may lead through one with a CA of its own.
buildah copy -q "$c" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ >/dev/null
buildah config --env PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin --env GOPROXY="$(go env GOPROXY)" "$c"
buildah commit -q "$c" "$base" >/dev/null

version=$(cat VERSION)
flags=(--quiet --build-arg "GOLANG_IMAGE=$base" --volume "$(go env GOROOT):/usr/local/go:ro"
	--volume "$(go env GOMODCACHE):/root/go/pkg/mod" --volume "$(go env GOCACHE):/root/.cache/go-build")
make -s image ENGINE="${engine[*]}" IMAGE="$image" REVISION=test PLATFORMS=linux/amd64,linux/arm64 IMAGE_FLAGS="${flags[*]}" >/dev/null

for arch in amd64 arm64; do
	echo "-- the image for $arch"
	c=$(buildah from --arch "$arch" "$image")
	config() { buildah inspect --format "{{with .OCIv1}}$1{{end}}" "$c"; }
	label() { config "{{index .Config.Labels \"org.opencontainers.image.$1\"}}"; }
	is "its architecture" "$(config '{{.Architecture}}')" "$arch"
	is "its user" "$(config '{{.Config.User}}')" 65534:65534
	is "its version" "$(label version)" "$version"
	is "its revision" "$(label revision)" test
	is "its license" "$(label licenses)" Apache-2.0
	r=$(buildah mount "$c")
	is "its files" "$(cd "$r" && find . -type f | sort | xargs)" "./bin/kamailio_exporter ./etc/ssl/certs/ca-certificates.crt $(
		printf './usr/share/doc/kamailio-exporter/%s ' LICENSE sbom.cdx.json third-party-licenses.txt | xargs)"
	go version -m "$r/bin/kamailio_exporter" | awk '$1 == "dep" { print $2, $3 }' | while read -r module number; do
		grep -qF "pkg:golang/$module@$number" "$r/usr/share/doc/kamailio-exporter/sbom.cdx.json" || fail "the SBOM lacks $module"
		grep -qF "$module $number" "$r/usr/share/doc/kamailio-exporter/third-party-licenses.txt" || fail "the license of $module is missing"
	done

	command=()
	case $arch in
	"$(dpkg --print-architecture)") ;;
	amd64) command=(/qemu-x86_64-static) ;;
	arm64) command=(/qemu-aarch64-static) ;;
	esac
	[ ${#command[@]} -eq 0 ] || cp "/usr/bin${command[0]}" "$r/"
	read -ra entrypoint <<<"$(config '{{range .Config.Entrypoint}}{{.}} {{end}}')"
	command+=("${entrypoint[@]}")
	mkdir -p "$r/proc"
	# As its user, with a root file system that is read-only.
	# shellcheck disable=SC2016 # expanded by the inner bash
	within=(unshare --mount --propagation private bash -euc '
		mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"
		if touch "$0/file" 2>/dev/null; then exit 1; fi
		mount -t proc proc "$0/proc"
		exec chroot --userspec="$1" --groups= "$0" "${@:2}"' "$r" "$(config '{{.Config.User}}')")
	"${within[@]}" "${command[@]}" --version 2>&1 | grep -F "version $version (branch: $(git rev-parse --abbrev-ref HEAD), revision: test)"
	is "the health check of examples/compose" "$(sed -n 's/^ *test: \[CMD, \(.*\)\]$/\1/p' examples/compose/compose.yml)" "${entrypoint[*]}, healthcheck"
	CHECK=healthcheck .ci/release/scrape.sh "${within[@]}" "${command[@]}"
done
echo "The images work."
