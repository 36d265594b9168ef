# `make run` and `make test` need root (or sudo), Debian and Go, and install the
# rest. `make` alone lists what there is.

VERSION    := $(shell cat VERSION)
REVISION   := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BRANCH     := $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null || echo unknown)
BUILD_USER := $(shell id -un)
# The commit's date, so that a commit built twice is the same file.
BUILD_DATE := $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%Y%m%d-%H:%M:%S 2>/dev/null || echo unknown)

v       := github.com/prometheus/common/version
LDFLAGS := -s -w -X $v.Version=$(VERSION) -X $v.Revision=$(REVISION) -X $v.Branch=$(BRANCH) \
	-X $v.BuildUser=$(BUILD_USER) -X $v.BuildDate=$(BUILD_DATE)

# The linter has hundreds of dependencies: they have a go.mod of their own. The
# first run compiles it, which takes some minutes.
LINT            := go tool -modfile=.ci/tools/go.mod golangci-lint
LINT_DASHBOARDS := go tool -modfile=../../.ci/tools/go.mod golangci-lint

# The database of vulnerabilities. A copy can be file:///DIRECTORY.
GOVULNDB ?= https://vuln.go.dev

# The first of these that works here.
ENGINE = $(shell for e in podman docker buildah; do $$e info >/dev/null 2>&1 && echo $$e && break; done)
IMAGE  = kamailio_exporter:$(VERSION)
# podman and buildah call a list of images a manifest, and add to one that exists.
LIST   = $(if $(PLATFORMS),$(if $(findstring docker,$(ENGINE)),,--manifest))

# With QUICK=1 the tests use only the Kamailio of this machine.
KAMAILIO = $(if $(QUICK),KAMAILIO_TEST=host,KAMAILIO_TEST=require KAMAILIO_TEST_ROOTS="$$($(CURDIR)/.ci/debian-roots.sh)")
comma    := ,

.PHONY: help run demo test unit rules lint vuln check docs fixtures bench cost build packages image release-check clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

run: ## start Kamailio with some calls, and the exporter beside it; Ctrl-C stops both
	@exec examples/demo/run.sh

demo: ## the same with Prometheus, the alert rules and Alertmanager; FAULT=list: faults to try
	@FAULT='$(FAULT)' exec examples/demo/run.sh monitored

test: ## test all, against Kamailio 5.4 to 6.1, and lint; QUICK=1: only this machine's Kamailio
	.ci/install.sh test
	$(if $(QUICK),,.ci/debian-roots.sh >/dev/null)
	$(KAMAILIO) go test -race -count=1 -timeout=30m ./...
	# 5,000 scrapes in each state take too long under the race detector.
	go test -count=1 -timeout=10m -run TestNothingGrows ./cmd/kamailio_exporter
	# A module of its own: the dashboards, the alert rules, and alerts on real faults.
	cd dashboards/generate && $(KAMAILIO) go test -count=1 -parallel=4 -timeout=25m ./...
	# A module of its own: the Helm chart and the kustomizations, as an API server gets them.
	$(if $(QUICK),,cd .ci/kubernetes && go test -count=1 ./...)
	$(if $(QUICK),,.ci/packages/test.sh)
	$(MAKE) lint
	@echo 'All tests passed$(if $(QUICK),$(comma) but QUICK left out the packages and all versions of Kamailio except that of this machine).'

unit: ## test what needs no Kamailio
	KAMAILIO_TEST=skip go test ./...
	# Go's cache of results does not see changes outside of a module: alerts/, the JSON.
	cd dashboards/generate && KAMAILIO_TEST=skip go test -short -count=1 ./...

rules: ## check and test alerts/: the rules with promtool, the Alertmanager example with a real one
	cd dashboards/generate && KAMAILIO_TEST=require go test -count=1 ./mixin ./rulestest

lint: ## check style, who imports whom (.golangci.yml), and the words of our texts
	go test -run TestWords ./cmd/kamailio_exporter
	$(LINT) run ./...
	cd dashboards/generate && $(LINT_DASHBOARDS) run ./...
	$(MAKE) vuln

vuln: ## look for known vulnerabilities in what the program calls
	@if curl -sf --max-time 5 -o /dev/null '$(GOVULNDB)/index/db.json'; then \
		go tool -modfile=.ci/release/go.mod govulncheck -db '$(GOVULNDB)' ./...; \
	else \
		echo 'SKIPPED: NOT CHECKED FOR KNOWN VULNERABILITIES, since $(GOVULNDB) cannot be reached. Set GOVULNDB to a copy, such as file:///srv/vulndb.'; \
	fi

check: ## before a commit: vet, lint, unit
	go vet ./...
	go vet -tags load ./cmd/kamailio_exporter
	cd dashboards/generate && go vet ./...
	$(MAKE) lint unit

docs: ## write the generated parts of README.md, docs/ and alerts/, and the dashboards
	go test ./cmd/kamailio_exporter ./cmd/kamailio_exporter/internal/admin -run 'TestDocs|TestMigratingDocs' -update
	cd dashboards/generate && go test . -run TestFiles -update && go test ./rulestest -run TestRunbookURLs -update && \
		go test ./rulestest -run 'TestReadme|TestPrometheusRules' -update

fixtures: ## record the replies of running Kamailios into collector/testdata
	.ci/record.sh

bench: ## measure scrapes of a real Kamailio, also under load, and the reading of large replies
	go test -run '^$$' -bench Scrape -benchtime=500x ./cmd/kamailio_exporter
	go test -run '^$$' -bench Million -benchtime=2x ./kamrpc ./collector
	go test -tags load -run 'CostOfScrape|CallsUnderScrapes|AnswerTimesInTurn|CostOfTrunks|Registrations|HundredThousandUsers|Fleet' -v -count=1 -timeout=180m ./cmd/kamailio_exporter -load 15s

cost: ## measure what a scrape costs, in four minutes; AGAINST='./other --flags': another program beside it
	go test -tags load -run CostOfScrape -v -count=1 ./cmd/kamailio_exporter -load 5s -against '$(AGAINST)'

build: ## make ./kamailio_exporter, a static binary
	CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '$(LDFLAGS)' -o kamailio_exporter ./cmd/kamailio_exporter

packages: ## make dist/: binaries, deb and rpm for amd64 and arm64, the Helm chart, SBOMs, checksums
	@.ci/packages/build.sh '$(LDFLAGS)'

image: ## make a container image; PLATFORMS=linux/amd64,linux/arm64: a list of two
	@test -n "$(ENGINE)" || { echo "make image: none of podman, docker and buildah works here" >&2; exit 1; }
	$(if $(LIST),-@$(ENGINE) rmi --force $(IMAGE) >/dev/null 2>&1)
	$(ENGINE) build $(IMAGE_FLAGS) $(if $(PLATFORMS),--platform $(PLATFORMS)) $(or $(LIST),-t) $(IMAGE) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --build-arg BRANCH=$(BRANCH) \
		--build-arg BUILD_USER=$(BUILD_USER) --build-arg BUILD_DATE=$(BUILD_DATE) .

release-check: ## build a release twice, compare, and check it (docs/releasing.md)
	@.ci/release-check.sh

clean: ## remove what was built
	rm -rf kamailio_exporter dist
