ARG GOLANG_IMAGE=docker.io/library/golang:1.26

FROM ${GOLANG_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# `make image` sets these. VERSION is the file of that name unless it is given.
ARG VERSION=
ARG REVISION=unknown
ARG BRANCH=unknown
ARG BUILD_USER=unknown
ARG BUILD_DATE=unknown
RUN v=github.com/prometheus/common/version; \
    CGO_ENABLED=0 go build -buildvcs=false -trimpath -o /kamailio_exporter -ldflags "-s -w \
      -X $v.Version=${VERSION:-$(cat VERSION)} -X $v.Revision=$REVISION -X $v.Branch=$BRANCH \
      -X $v.BuildUser=$BUILD_USER -X $v.BuildDate=$BUILD_DATE" ./cmd/kamailio_exporter

FROM scratch
LABEL org.opencontainers.image.title="kamailio_exporter" \
      org.opencontainers.image.description="Prometheus exporter for the Kamailio SIP server" \
      org.opencontainers.image.source="https://github.com/kamailio-exporter/kamailio_exporter" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /kamailio_exporter /bin/kamailio_exporter
USER 65534:65534
EXPOSE 9494
ENTRYPOINT ["/bin/kamailio_exporter"]
