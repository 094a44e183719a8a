# pecd's Makefile, for Debian and Ubuntu. Each target installs what it needs and
# is missing (packaging/prerequisites), and says so.
#
#   make            build bin/pecd
#   make test       everything: vet, unit tests, whole-system tests; needs root
#   make test-sendmail  the whole-system tests with Sendmail; needs root
#   make test-outside  the whole-system tests with the three points as plugins
#   make test-install  the packages on a fresh Debian 12, with an upgrade; needs root
#   make race       the unit tests three times with the race detector
#   make fuzz       each fuzz target for FUZZTIME, and a table of what came of it; fails
#                   if that was too short for a target to get beyond its seeds
#   make bench      a Postfix without milter, with opendkim and with pecd, compared
#                   in one run, and then all benchmarks of the parts; needs root
#   make chaos      FAULTS=300 faults under MESSAGES=5000 messages, and a judge;
#                   SEED=n repeats the faults of a run; needs root
#   make demo       a certified message from one provider to another; needs root
#                   KEYS=softhsm: with the keys in tokens of SoftHSM2; KEYS=pkcs12
#                   MTA=sendmail: the providers have Sendmail instead of Postfix
#   make demo-up    the demo's servers, to stay; .demo/env.json describes them
#   make demo-down  stop and remove them
#   make packages   .deb and .rpm in dist; ARCH=arm64 for another architecture
#   make soak       mixed messages for SOAK=30m; nothing that is held may grow; needs root
#   make lint       staticcheck
#   make vuln       govulncheck; where vuln.go.dev cannot be reached, VULNDB=folder has
#                   the files data/osv of github.com/golang/vulndb
#   make fmt        format the Go files
#   make clean      remove what was built, and the demo

FUZZTIME ?= 30s
VERSION  = $(or $(shell git describe --tags --always --dirty 2>/dev/null),devel)

# The version of the packages: the tag, or before the first one the day and commit.
PKGVERSION = $(or $(shell git describe --tags --exact-match 2>/dev/null | sed 's/^v//'),0~git$(shell git log -1 --date=format:%Y%m%d --format=%cd.%h))

# Expanded when a recipe runs, so after the prerequisites have installed a Go.
GO       = $(shell packaging/prerequisites go)
GOBUILD  = $(GO) build -buildvcs=false
DEMO     = $(SUDO) bin/demo -dir .demo -pecd bin/pecd $(if $(KEYS),-keys $(KEYS)) $(if $(MTA),-mta $(MTA))
# The linker takes half the time for programs without debugging data; what a panic
# prints is the same.
QUICK    = -ldflags=-w
SUDO     = $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: packages for-packages
.PHONY: build test test-rooms test-whole test-sendmail test-outside test-install race fuzz bench chaos soak lint vuln fmt demo demo-up demo-down clean bin/pecd bin/demo
.PHONY: for-build for-demo for-softhsm for-sendmail for-test for-install for-bench as-root
ifndef BESIDE
.NOTPARALLEL:
endif

build: bin/pecd

bin/pecd: for-build
	@mkdir -p bin
	@[ -e bin/pecd ] || echo "building bin/pecd (the first time it takes some minutes)"
	@$(GOBUILD) -ldflags "-X main.version=$(VERSION)" -o bin/pecd ./cmd/pecd

bin/demo: for-build
	@mkdir -p bin
	@$(GOBUILD) -o bin/demo ./packaging/demo

# The rooms with the race detector; beside them the whole systems, where pecd is a
# process of its own, which it does not see.
test: as-root for-test
	$(GO) vet ./...
	$(MAKE) --no-print-directory BESIDE=yes -j 2 -k test-rooms test-whole

test-rooms:
	$(GO) test $(QUICK) -race -count=1 -timeout 25m -p 2 $$($(GO) list ./... | grep -v '/test$$')

test-whole:
	$(GO) test $(QUICK) -count=1 -timeout 40m ./test
	$(GO) test $(QUICK) -count=1 -timeout 15m ./test -mta sendmail -skip TestRestart/pecd.socket -run '^(TestMessage|TestReceiptTypes|TestNonDelivery|TestBounces|TestGate|TestRefused|TestRestart)$$'

test-sendmail: as-root for-test
	$(GO) test -count=1 -timeout 40m ./test -mta sendmail

# TestCountersign wants the place of the access point for itself.
test-outside: as-root for-test
	$(GO) test -count=1 -timeout 25m ./test -points-outside -skip TestCountersign

test-install: as-root for-install
	$(GO) test -count=1 -timeout 20m -tags installation -v ./packaging/installation

# The rooms without servers; the whole-system tests have a folder of their own.
race: for-build
	$(GO) test -race -count=3 $$($(GO) list ./... | grep -v -e '/test$$' -e /packaging/)

# Prints a table at its end; what it finds stays in Go's cache. ONLY=regexp: some.
fuzz: for-build
	$(GO) run ./test/fuzz -time $(FUZZTIME) $(if $(ONLY),-only '$(ONLY)')

bench: as-root for-bench
	$(GO) run ./test/bench $(BENCH)
	$(GO) test -run '^$$' -bench . -benchmem -timeout 60m ./...

chaos: as-root for-test
	$(GO) run ./test/chaos -faults $(or $(FAULTS),300) -messages $(or $(MESSAGES),5000) $(if $(SEED),-seed $(SEED))

soak: as-root for-test
	$(GO) run ./test/chaos -soak $(or $(SOAK),30m) -senders 2

# What it finds and vet does not. Errors may begin with a proper name.
lint: for-build
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.7.0 -checks inherit,-ST1005 ./...

vuln: for-build
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 $(if $(VULNDB),-db file://$(abspath $(VULNDB))) ./...

fmt: for-build
	$(GO) fmt ./...

demo: for-demo $(if $(filter softhsm,$(KEYS)),for-softhsm) $(if $(filter sendmail,$(MTA)),for-sendmail) bin/pecd bin/demo
	@$(DEMO) story

demo-up: for-demo $(if $(filter softhsm,$(KEYS)),for-softhsm) $(if $(filter sendmail,$(MTA)),for-sendmail) bin/pecd bin/demo
	@$(DEMO) up

demo-down: bin/demo
	@$(DEMO) down

# The same source gives the same packages: their time is that of the commit.
packages: for-packages
	@$(GO) run ./packaging/packages -go "$(GO)" -out dist -version "$(PKGVERSION)" \
		-at "$$(git log -1 --format=%ct)" $(if $(ARCH),-arch $(ARCH))
	@ls dist

clean:
	@[ ! -d .demo ] || $(MAKE) --no-print-directory demo-down
	rm -rf bin dist

for-build for-demo for-softhsm for-sendmail for-test for-packages for-install for-bench: for-%:
	@packaging/prerequisites $*

as-root:
	@[ "$$(id -u)" = 0 ] || { echo "This needs root: the whole-system tests run a private Postfix and Dovecot,"; \
		echo "which start as root and change to their own users. Run it as root."; exit 1; } >&2
