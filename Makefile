# Stoker: build, test, demo. `make help` lists the targets.
.DEFAULT_GOAL := help

include hack/cluster.mk
include hack/policies.mk
include hack/demo.mk

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
build: setup-rust policies ## Build the operator into target/debug/stoker
	cargo build --locked -p stoker

.PHONY: release
release: setup-rust policies ## Build the operator into target/release/stoker
	cargo build --locked --release -p stoker

.PHONY: release-musl
release-musl: setup-rust policies ## Build a static operator
	cargo build --locked --release -p stoker --target x86_64-unknown-linux-musl

.PHONY: crds
crds: build ## Write the custom resource definitions into crds/
	target/debug/stoker crds --dir crds

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all
	cd policies && cargo fmt --all
	cd tests/cluster && gofmt -w .

.PHONY: lint
lint: setup-rust policies ## Check format and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cd tests/cluster && test -z "$$(gofmt -l .)" && go vet ./...

.PHONY: generated
generated: build ## Check that generated files are current
	@rm -rf target/generated && mkdir -p target/generated
	@target/debug/stoker crds --dir target/generated
	@diff -r crds target/generated || { echo "crds/ is stale: run make crds and commit"; exit 1; }

.PHONY: unit
unit: build ## Test everything that needs no cluster
	cd tests/cluster && go test ./...
	cargo test --locked --workspace --exclude stoker-e2e

.PHONY: e2e
e2e: build cluster-up ## Test the operator on the local cluster
	cargo test --locked -p stoker-e2e -- --test-threads=4

.PHONY: bench
bench: release cluster-up ## Measure the reaction to 200 flips of 20 pools
	STOKER_BIN=$(CURDIR)/target/release/stoker cargo run --locked -p stoker-e2e --bin flips

.PHONY: test
test: ## Everything that CI checks
	@hack/test.sh
