# Two commands do everything, set-up included: `make demo` and `make test`. Both want root on Debian 12 with Rust and git.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BINS := -p contd -p contd-shim -p contd-flistfs -p contd-seccomp

# Where the release is built: TARGET=aarch64-unknown-linux-gnu is for another machine, by Debian's compiler for it.
TARGET ?=
RELEASE := target/$(addsuffix /,$(TARGET))release
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER ?= aarch64-linux-gnu-gcc

.PHONY: help deps build demo test test-repeat vm vm-short vm-power faults soak fuzz bench bench-flist check install uninstall deb

help: ## Lists what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

deps: ## Installs the Debian packages that are missing
	@.ci/deps

build: ## Builds the binaries for release; TARGET=aarch64-unknown-linux-gnu for arm64, whose std is had by `rustup target add`
	@.ci/deps build $(TARGET)
	cargo build --release --locked $(addprefix --target ,$(TARGET)) $(BINS)

demo: deps build ## Runs a container from a real flist, restarts the daemon under it, leaves nothing behind
	tests/demo.sh target/release

# One build for all; `suite` then runs the test binaries beside each other (docs/testing.md).
SUITE := cargo build --locked --workspace --all-targets && target/debug/suite
ONLY ?=

test: deps $(if $(ONLY),,deps-vm) ## Runs the whole test suite (as root), then every promise once in two nodes, as vm-short does; ONLY="contd e2e" chooses jobs of the suite by a part of their name
	$(if $(ONLY),$(SUITE) --only "$(ONLY)",red=0; { $(SUITE); } || red=1; target/debug/suite vm --short true || red=1; exit $$red)

N ?= 10
LOAD ?= half
test-repeat: deps ## Runs the whole suite N=10 times, LOAD=half of them beside a load on all cores (none, half, all); stops at nothing
	$(SUITE) --repeat $(N) --load $(LOAD) $(if $(ONLY),--only "$(ONLY)")

.PHONY: deps-vm
deps-vm:
	@.ci/deps vm $(if $(filter debian-arm64,$(NODE)),aarch64-unknown-linux-gnu)

VM = $(SUITE) vm $(addprefix --node ,$(NODE)) $(addprefix --only ,$(ONLY))
vm: NODE ?= zero-os debian newest debian-arm64
vm: deps-vm ## Boots each node (or NODE=zero-os, debian, debian-arm64, newest) and runs the end-to-end tests in it; ONLY=kill_sends chooses by a part of the name
	$(VM)

vm-short: deps-vm ## The same for zero-os and debian, with a test for each promise (tests/vm/promises.toml)
	$(VM) --short true

TIMES ?= 20
FS ?=
SEED ?=
vm-power: deps-vm build ## Takes the power of a node TIMES=20 times while it works, on FS=ext4 and btrfs, and reboots it in order (an hour without KVM); SEED= repeats
	cargo build --locked -p contd-test-harness --bin suite
	target/debug/suite vm-power --times $(TIMES) $(addprefix --node ,$(NODE)) $(addprefix --fs ,$(FS)) $(addprefix --seed ,$(SEED))

FAULTS := CONTD_BINARIES_ARE_BUILT=1 cargo test --locked -p contd --test faults --

faults: deps ## Strikes every failpoint, fails every file operation, compares 400 bundles with runc (45 minutes on two cores)
	cargo build --locked --workspace --bins
	CONTD_FAULTS=full $(FAULTS) --nocapture --test-threads=1
	CONTD_BINARIES_ARE_BUILT=1 CONTD_DIFFERENTIAL_CASES=400 cargo test --locked -p contd-launch --test differential
	CONTD_SCHEDULES=20000 cargo test --locked -p contd-actors --all-features no_schedule

CYCLES ?= 10000
KILL_S ?= 5
soak: deps ## Runs CYCLES containers from create to delete, then a third with a daemon that dies every KILL_S seconds
	cargo build --locked --workspace --bins
	CONTD_SOAK_CYCLES=$(CYCLES) CONTD_SOAK_KILL_S=$(KILL_S) $(FAULTS) --nocapture --test-threads=1 soak

SECONDS ?= 60
fuzz: ## Feeds every decoder with inventions, SECONDS=60 each; what it finds is in fuzz/artifacts
	@.ci/fuzz $(SECONDS)

bench: deps build ## Measures the promises, each as a ratio against a peer or the floor in the same run
	cargo build --release --locked -p contd-launch
	cargo bench --locked -p contd --bench node

bench-flist: deps build ## Measures flists beside ext4 and EROFS on one tree (10 minutes; drops the page cache; ONLY=walk chooses)
	cargo bench --locked -p contd --bench flist -- $(addprefix --only ,$(ONLY))

check: ## What CI asks before the tests: format, lints, dependencies
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	cargo deny --offline --log-level error check bans licenses sources

PREFIX ?= /usr/local
install: build ## Installs programs, units, man pages, completions and documents to PREFIX=/usr/local (below DESTDIR=)
	DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" contrib/install.sh $(RELEASE)

uninstall: ## Removes what `make install` has put there, and nothing else
	DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" contrib/install.sh --uninstall

deb: build ## Makes the Debian package in target/release/deb; TARGET=aarch64-unknown-linux-gnu that of arm64
	@.ci/deps deb $(TARGET)
	package=$$(contrib/deb.sh $(RELEASE)); lintian --fail-on error "$$package"; echo "made $$package"
