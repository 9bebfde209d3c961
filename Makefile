# Thin on purpose: every target is one or two commands you could type yourself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
# Most tests of processes wait more than they compute.
export RUST_TEST_THREADS ?= $(shell n=$$(nproc); echo $$((n > 8 ? n : 8)))
.DEFAULT_GOAL := help

.PHONY: help build demo release dist image test attack check bench clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the programs, in target/fast, within minutes
	@.ci/setup build
	$(CARGO) build --locked --profile fast --package selvedge --package selvedge-proxy --bins

demo: build ## seven services behind sidecars, with mTLS, policies and planted faults; Ctrl-C ends it
	@$(or $(CARGO_TARGET_DIR),target)/fast/selvedge demo $(DEMO)

release: ## the programs, each made fast for what it does most (profile-guided), in target/release
	@.ci/setup release
	benches/release

dist: $(if $(PROGRAMS),,release) ## deb packages and a tarball of these programs, or of those in PROGRAMS=DIR, in target/dist
	@.ci/setup dist
	deploy/package $(or $(PROGRAMS),$(or $(CARGO_TARGET_DIR),target)/release) target/dist

image: ## OCI archives of the programs, and their digests, in target/image; needs no container engine
	@.ci/setup build
	$(CARGO) build --locked --release --package selvedge --package selvedge-proxy --package selvedge-capture --bins
	# It runs on the node itself, whatever C library that has.
	$(CARGO) rustc --locked --release --package selvedge-cni --bin selvedge-cni -- -C target-feature=+crt-static
	$(CARGO) run --locked --release --package selvedge-images -- --programs $(or $(CARGO_TARGET_DIR),target)/release --out target/image $(if $(REGISTRY),--registry $(REGISTRY))

test: ## every test; says what it skips and why
	@.ci/setup test
	$(CARGO) build --locked --workspace --bins --tests
	$(CARGO) test --locked --workspace --no-fail-fast

# Suites whose cases are rows of data (docs/testing.md).
suites := decisions applications attacks balancing bytes detection differential endings floods hygiene interpretation polite

attack: ## the suites of attacks and odd messages in their long form, with figures and seeds
	@.ci/setup attack
	$(CARGO) build --locked --workspace --bins
	SELVEDGE_ATTACK=1 $(CARGO) test --locked --workspace --no-fail-fast $(suites:%=--test %) -- --nocapture --test-threads 1

check: ## format, lints, licences and advisories, documentation
	@.ci/setup build
	@if $(CARGO) fmt --version >/dev/null 2>&1; then $(CARGO) fmt --all --check; \
		else echo "skipped: format, rustfmt is missing (rustup component add rustfmt)"; fi
	@if $(CARGO) clippy --version >/dev/null 2>&1; then $(CARGO) clippy --locked --workspace --all-targets -- -D warnings; \
		else echo "skipped: lints, clippy is missing (rustup component add clippy)"; fi
	$(CARGO) test --locked --workspace --test house --test dependencies --test advisories
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --workspace

bench: ## how fast, in numbers, with peers side by side where they are installed
	@.ci/setup bench
	benches/run $(BENCH)

clean: ## remove everything that was built
	$(CARGO) clean
