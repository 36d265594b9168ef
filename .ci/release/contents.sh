#!/usr/bin/env bash
# Writes what a binary of this tree consists of: the texts of the licenses of its
# modules, third-party-licenses.txt, and an SBOM (CycloneDX), sbom.cdx.json. The
# modules are those in Go's cache.
#
#   contents.sh BINARY DIRECTORY
#   contents.sh                    only compiles what makes the SBOM
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
	echo "contents.sh: $*" >&2
	exit 1
}

# Its checksum is in the SBOM: -trimpath makes it the same on each machine.
go build -modfile=.ci/release/go.mod -trimpath -buildvcs=false -o "$work/sbom" github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
[ $# -gt 0 ] || exit 0
binary=$1 directory=$2

section() { printf '\n%s\n%s\n\n%s\n' "$(printf '=%.0s' {1..80})" "$1" "$(cat "$2")"; }
{
	echo "The license of kamailio_exporter is in LICENSE. It contains these Go modules:"
	go version -m "$binary" | awk '$1 == "dep" { print $2 "@" $3 }' >"$work/modules"
	xargs go list -m -f '{{.Path}} {{.Version}} {{.Dir}}' <"$work/modules" |
		while read -r module version dir; do
			found=0
			for file in "$dir"/LICENSE* "$dir"/COPYING* "$dir"/NOTICE*; do
				[ -f "$file" ] || continue
				section "$module $version: ${file##*/}" "$file"
				[[ $file == */NOTICE* ]] || found=1
			done
			[ $found = 1 ] || fail "$module has no license"
		done
	section "Go, its standard library: LICENSE" "$(go env GOROOT)/LICENSE"
} >"$directory/third-party-licenses.txt"
GOPROXY=off "$work/sbom" bin -json -std -licenses -assert-licenses -noserial -notimestamp -version "v$(cat VERSION)" \
	-output "$directory/sbom.cdx.json" "$binary" 2>"$work/log" || fail "no SBOM: $(cat "$work/log")"
