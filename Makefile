# Stoker: build, test, demo. `make help` lists the targets.
.DEFAULT_GOAL := help

include hack/cluster.mk
include hack/policies.mk
include hack/gate.mk
include hack/demo.mk
include hack/chart.mk
include hack/image.mk
include hack/in-cluster.mk

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22 | sort

.PHONY: setup
setup: ## Install what is missing to build and test (Rust targets, Debian packages, the cluster's programs)
	@hack/setup.sh all

.PHONY: setup-rust
setup-rust:
	@hack/setup.sh rust

.PHONY: build
# All of the workspace everywhere: cargo gives dependencies the features of what is built together,
# and builds them again for each other choice.
build: setup-rust policies ## Build the operator into target/debug/stoker
	cargo build --locked --workspace --bins

.PHONY: release
release: setup-rust policies ## Build the operator into target/release/stoker
	cargo build --locked --release -p stoker

.PHONY: release-musl
release-musl: setup-rust policies ## Build a static operator
	cargo build --locked --release -p stoker --target x86_64-unknown-linux-musl

.PHONY: crds
crds: build ## Write the custom resource definitions into crds/ and the chart
	target/debug/stoker crds --dir crds
	cp crds/*.yaml deploy/helm/stoker/files/crds/

.PHONY: simulate-results
simulate-results: build ## Write examples/simulate/RESULTS.md
	STOKER_BIN=$(CURDIR)/target/debug/stoker examples/simulate/results.sh > target/results.md
	mv target/results.md examples/simulate/RESULTS.md

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all
	cd policies && cargo fmt --all
	cd tests/cluster && gofmt -w .

.PHONY: lint
lint: setup-rust policies chart-lint ## Check format and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cd tests/cluster && test -z "$$(gofmt -l .)" && go vet ./...

.PHONY: deny
deny: ## Check dependencies: licences, versions that are there twice, sources
	@hack/setup.sh cargo-deny
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo deny --locked check licenses bans sources
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo deny --locked --config deny.toml --manifest-path policies/Cargo.toml check -A license-not-encountered licenses sources

.PHONY: generated
generated: build ## Check that generated files are current
	@rm -rf target/generated && mkdir -p target/generated
	@target/debug/stoker crds --dir target/generated
	@diff -r crds target/generated || { echo "crds/ is stale: run make crds and commit"; exit 1; }

.PHONY: unit
# The program of the cluster answers for Kubernetes' cron library; the cluster itself need not run.
# Go keeps results of tests, and does not see that the chart changes.
unit: build gate cluster-setup setup-chart ## Test everything that needs no cluster
	cd tests/cluster && go test -count=1 ./...
	cargo test --locked --workspace
	cargo test --locked --workspace --test differential -- --ignored

FUZZ_TARGETS := component answer config name upload message
FUZZ_SECONDS ?= 20
# The same stories each time, so that a check that passed does not fail by chance; FUZZ_SEED=0 is by chance.
FUZZ_SEED ?= 1

.PHONY: fuzz
fuzz: build ## Fuzz what foreign bytes reach, FUZZ_SECONDS=20 each; findings are kept in target/fuzz-corpus
	@hack/setup.sh cargo-fuzz
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p target/fuzz-corpus/$$target && \
		PATH="$(CURDIR)/target/tools/bin:$$PATH" STOKER_BIN=$(CURDIR)/target/debug/stoker \
		cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none $$target \
			target/fuzz-corpus/$$target tests/fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -seed=$(FUZZ_SEED) -timeout=60 -print_final_stats=1 || exit 1; \
	done

# The files of tests/e2e/tests: their tests are ignored unless asked for, as they need the cluster.
E2E_TESTS := $(patsubst tests/e2e/tests/%.rs,--test %,$(wildcard tests/e2e/tests/*.rs))

.PHONY: e2e
e2e: build cluster-up operator-image setup-chart ## Test the operator on the local cluster
	cargo test --locked --workspace $(E2E_TESTS) -- --ignored --test-threads=4

.PHONY: test-long
test-long: build cluster-up setup-chart ## Runs at their instants for seven distances and warm-ups side by side, 12 minutes
	STOKER_TEST_LONG=1 cargo test --locked --workspace --test cron_matrix -- --ignored --nocapture

.PHONY: bench
# 10,000 pods, and as many more as stand in for busy ones.
bench: SIM_NODES = 100
bench: build release cluster-up setup-chart ## Measure: 20, 500 and 2,000 pools, flips of 100 pools of Jobs, flips beside bad policies, questions to pods, claims, cron jobs, flows, work on a thousand nodes and what it reports (on the local cluster), decisions
	STOKER_BIN=$(CURDIR)/target/release/stoker target/debug/scale
	STOKER_BIN=$(CURDIR)/target/release/stoker target/debug/flips 100 10 jobs
	STOKER_BIN=$(CURDIR)/target/release/stoker target/debug/beside
	STOKER_BIN=$(CURDIR)/target/release/stoker target/debug/probes
	STOKER_BIN=$(CURDIR)/target/release/stoker target/debug/claims
	STOKER_BIN=$(CURDIR)/target/release/stoker target/debug/crons
	STOKER_BIN=$(CURDIR)/target/release/stoker target/debug/flows
	STOKER_BIN=$(CURDIR)/target/release/stoker target/debug/reports
	cargo run --locked --release -p stoker-policy --features bench --example decide

.PHONY: test
test: ## Everything that CI checks
	@hack/test.sh
