ARG GOLANG_IMAGE=docker.io/library/golang:1.26

# The build runs on the machine's own architecture and compiles for that of the image.
# An old docker does not say what the machine's is.
FROM --platform=${BUILDPLATFORM:-linux/amd64} ${GOLANG_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY .ci/release .ci/release
RUN go mod download && .ci/release/contents.sh
COPY . .
# `make image` sets these.
ARG VERSION=
ARG REVISION=unknown
ARG BRANCH=unknown
ARG BUILD_USER=unknown
ARG BUILD_DATE=unknown
ARG TARGETARCH
RUN v=github.com/prometheus/common/version; doc=/image/usr/share/doc/kamailio-exporter; \
    mkdir -p $doc /image/bin /image/etc/ssl/certs && \
    CGO_ENABLED=0 GOARCH=${TARGETARCH:-$(go env GOARCH)} go build -buildvcs=false -trimpath \
      -o /image/bin/kamailio_exporter -ldflags "-s -w \
      -X $v.Version=${VERSION:-$(cat VERSION)} -X $v.Revision=$REVISION -X $v.Branch=$BRANCH \
      -X $v.BuildUser=$BUILD_USER -X $v.BuildDate=$BUILD_DATE" ./cmd/kamailio_exporter && \
    .ci/release/contents.sh /image/bin/kamailio_exporter $doc && \
    cp LICENSE $doc/ && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kamailio_exporter" \
      org.opencontainers.image.description="Prometheus exporter for the Kamailio SIP server" \
      org.opencontainers.image.source="https://github.com/kamailio-exporter/kamailio_exporter" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image /
USER 65534:65534
EXPOSE 9494
ENTRYPOINT ["/bin/kamailio_exporter"]
