#!/usr/bin/env bash
# Builds what a release consists of into dist/: static binaries for Linux on amd64
# and arm64 as tar.gz, deb and rpm, the Helm chart, SBOMs (CycloneDX), and checksums.
# `make packages` calls it with the linker's flags. Built twice from the same commit
# they are the same files.
#
#   build.sh LDFLAGS [ARCH...]    DIST= another directory than dist/; AS= another version
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

ldflags=${1:?usage: build.sh LDFLAGS [ARCH...]}
arches=("${@:2}")
[ ${#arches[@]} -gt 0 ] || arches=(amd64 arm64)
version=${AS:-$(cat VERSION)}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH VERSION=$version

fail() {
	echo "build.sh: $*" >&2
	exit 1
}

dist=${DIST:-dist}
rm -rf "$dist"
mkdir -p "$dist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gz() { gzip -9n >"$1"; }

# Files of the packages that are not in the tree, or differ from it.
unit=$work/kamailio-exporter.service
sed 's#/usr/local/bin/#/usr/bin/#' examples/systemd/kamailio-exporter.service >"$unit"
grep -q '^ExecStart=/usr/bin/kamailio_exporter$' "$unit" || fail "the unit's ExecStart= is not what was expected"
gz "$work/changelog.gz" <CHANGELOG.md
gz "$work/changelog.Debian.gz" <<-END
	kamailio-exporter ($version-1) stable; urgency=medium

	  * Version $version: see changelog.gz.

	 -- The kamailio_exporter authors <packages@kamailio-exporter.invalid>  $(TZ=UTC LC_ALL=C date -R -d "@$SOURCE_DATE_EPOCH")
END
cat >"$work/copyright" <<-'END'
	Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
	Upstream-Name: kamailio_exporter
	Source: https://github.com/kamailio-exporter/kamailio_exporter

	Files: *
	Copyright: 2026 The kamailio_exporter authors
	License: Apache-2.0
	 On Debian systems the text of this licence is in
	 /usr/share/common-licenses/Apache-2.0.
END
cat >"$work/lintian-overrides" <<-'END'
	# Go programs are, so that one file runs everywhere.
	kamailio-exporter: statically-linked-binary [usr/bin/kamailio_exporter]
	# It is not uploaded to Debian.
	kamailio-exporter: initial-upload-closes-no-bugs [usr/share/doc/kamailio-exporter/changelog.Debian.gz:1]
END

go build -modfile=.ci/packages/go.mod -o "$work/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
# The program of this machine writes the manual: one that is built for another
# does not run here.
CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "$ldflags" -o "$work/native" ./cmd/kamailio_exporter
"$work/native" assets --output-dir "$work/doc" >/dev/null
{
	echo ".TH kamailio_exporter 1 $(TZ=UTC date +%F -d "@$SOURCE_DATE_EPOCH") \"kamailio_exporter $version\""
	# kingpin puts all of --version into the title, says no more than the name, and
	# leaves backslashes as they are.
	"$work/native" --help-man | sed -e '1,/^\.SH "NAME"/{/^\.SH "NAME"/!d}' -e 's/\\=/\\e=/g; s/\\\\/\\e\\e/g; s/\\x/\\ex/g' \
		-e '/^\.SH "NAME"/{n;s/.*/kamailio_exporter \\- Prometheus exporter for the Kamailio SIP server/}'
	cat <<-'END'
		.SH "FILES"
		.TP
		\fI/etc/default/kamailio-exporter\fR
		Settings of the systemd unit kamailio-exporter.service: flags, by their variables.
		.SH "SEE ALSO"
		\fBkamailio\fR(8), /usr/share/doc/kamailio-exporter/README.md
	END
} | gz "$work/kamailio_exporter.1.gz"
"$work/native" --completion-script-bash >"$work/completion.bash"
"$work/native" --completion-script-zsh >"$work/completion.zsh"

for arch in "${arches[@]}"; do
	echo "building for $arch"
	name=kamailio_exporter-$version.linux-$arch
	mkdir "$work/$name"
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -buildvcs=false -trimpath -ldflags "$ldflags" \
		-o "$work/$name/kamailio_exporter" ./cmd/kamailio_exporter
	case $arch in amd64) machine=X86-64 ;; arm64) machine=AArch64 ;; *) machine=$arch ;; esac
	elf=$(readelf --file-header --dynamic --program-headers --wide "$work/$name/kamailio_exporter")
	[[ $elf == *"Machine:"*"$machine"* && $elf != *INTERP* ]] || fail "the binary for $arch is not a static one of that machine"
	cp -r LICENSE "$work/doc/." "$work/$name/"
	.ci/release/contents.sh "$work/$name/kamailio_exporter" "$work/$name"
	cp "$work/$name/sbom.cdx.json" "$dist/$name.cdx.json"
	tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mode=go=rX,u+w \
		--mtime="@$SOURCE_DATE_EPOCH" -c "$name" | gz "$dist/$name.tar.gz"
	for format in deb rpm; do
		ARCH=$arch "$work/nfpm" package \
			--config <(sed "s#@WORK@#$work#; s#@FILES@#$work/$name#" .ci/packages/nfpm.yaml) \
			--packager $format --target "$dist/" >/dev/null
	done
done
# The Helm chart, as helm package makes it: what its links lead to is in it.
tar -C examples/kubernetes --dereference --sort=name --owner=0 --group=0 --numeric-owner --mode=go=rX,u+w \
	--mtime="@$SOURCE_DATE_EPOCH" --transform 's,^chart,kamailio-exporter,' -c chart | gz "$dist/kamailio-exporter-$version.tgz"
(cd "$dist" && sha256sum -- *.tgz *.cdx.json *.tar.gz *.deb *.rpm >sha256sums.txt && cat sha256sums.txt)
echo "on Debian, as root: apt install ./$dist/$(cd "$dist" && ls -- *"_$(dpkg --print-architecture 2>/dev/null || echo amd64).deb" | head -1)"
