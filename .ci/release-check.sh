#!/usr/bin/env bash
# Builds a release twice, in different folders, and compares; then checks what was
# built. What it needs beyond what .ci/install.sh release installs comes from the Go
# module proxy. Signing and uploading is not its business: docs/releasing.md.
#
# Needs root (or sudo), Debian and Go, and a checkout with nothing uncommitted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
	echo "release-check.sh: $*" >&2
	exit 1
}
step() { echo "== $*"; }

[ -z "$(git status --porcelain)" ] || fail "commit or remove what git status lists: a release is built from a commit"
.ci/install.sh release
version=$(cat VERSION)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step "Two builds of $(git rev-parse --short HEAD), in different folders"
for folder in one a/second/one; do
	git clone -q . "$work/$folder/kamailio_exporter"
	make -s -C "$work/$folder/kamailio_exporter" packages BRANCH="$(git rev-parse --abbrev-ref HEAD)" BUILD_USER=release >"$work/log" 2>&1 || fail "make packages: $(tail -n 20 "$work/log")"
done
dist=$work/one/kamailio_exporter/dist
diff "$dist/sha256sums.txt" "$work/a/second/one/kamailio_exporter/dist/sha256sums.txt" || fail "the two builds differ"
(cd "$dist" && sha256sum --quiet --check sha256sums.txt)
ls "$dist"

step "The programs"
for arch in amd64 arm64; do
	tar -C "$work" -xzf "$dist/kamailio_exporter-$version.linux-$arch.tar.gz"
	runner=()
	[ "$arch" = "$(dpkg --print-architecture)" ] || case $arch in
	arm64) runner=(qemu-aarch64-static) ;;
	amd64) runner=(qemu-x86_64-static) ;;
	esac
	program=$work/kamailio_exporter-$version.linux-$arch/kamailio_exporter
	"${runner[@]}" "$program" --version 2>&1 | grep -F "version $version" || fail "the program for $arch does not say that it is $version"
	.ci/release/scrape.sh "${runner[@]}" "$program" >/dev/null
done

step "The packages"
for deb in "$dist"/*.deb; do
	lintian --fail-on error,warning "$deb" || fail "lintian does not accept ${deb##*/}"
	for file in sbom.cdx.json third-party-licenses.txt; do
		dpkg -c "$deb" | grep "$file" >/dev/null || fail "${deb##*/} lacks $file"
	done
done
for rpm in "$dist"/*.rpm; do
	mkdir -p "$work/rpm"
	rpm --root "$work/rpm" --initdb
	# Into an empty tree, without its scripts: .ci/packages/test.sh runs those.
	rpm --root "$work/rpm" --install --nodeps --noscripts --ignorearch "$rpm" || fail "rpm does not install ${rpm##*/}"
	[ -x "$work/rpm/usr/bin/kamailio_exporter" ] || fail "${rpm##*/} has no program"
	rm -rf "$work/rpm"
done

step "The images"
.ci/image-test.sh

step "Known vulnerabilities"
make -s vuln | tee "$work/log"
! grep -q ^SKIPPED "$work/log" || skipped=1

step "The Helm chart, the packages beside Kamailio"
(cd .ci/kubernetes && go test -count=1 ./...)
.ci/packages/test.sh
.ci/packages/life.sh

echo "All checks passed${skipped:+, but vulnerabilities were not looked for}. Next: docs/releasing.md"
