# Builds and checks the policies. Included by the top Makefile; every path is from there.

POLICIES := buffer percent-buffer scheduled-buffer predictive queue-depth expression probe-verdict hysteresis json-status \
	fixed-lead learned-lead
CARGO_COMPONENT_BIN := $(CURDIR)/target/tools/bin
# No path of this machine gets into a component, so its digest is the same wherever it is built.
POLICIES_RUSTFLAGS = --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src=registry \
	--remap-path-prefix=$(CURDIR)=.

# $(call policies-copy,FROM,TO): a file is touched only when its bytes change, so that what embeds
# it is not built anew for nothing. Cargo calls a crate a-b's file a_b.wasm.
define policies-copy
	@mkdir -p $(2)
	@for name in $(POLICIES); do \
		from=$(1)/$$(echo $$name | tr - _).wasm; \
		cmp -s $$from $(2)/$$name.wasm || install -m 644 $$from $(2)/$$name.wasm || exit 1; \
	done
endef

policies-component-cargo = cd policies && PATH="$(CARGO_COMPONENT_BIN):$$PATH" \
	CARGO_TARGET_DIR=$(CURDIR)/target/policies-component-build RUSTFLAGS="$(POLICIES_RUSTFLAGS)" \
	cargo component build --locked --release

.PHONY: policies
policies: ## Build the policies with plain cargo, into target/policies
	cd policies && CARGO_TARGET_DIR=$(CURDIR)/target/policies-build RUSTFLAGS="$(POLICIES_RUSTFLAGS)" \
		cargo build --locked --release --target wasm32-wasip2
	$(call policies-copy,target/policies-build/wasm32-wasip2/release,target/policies)

$(CARGO_COMPONENT_BIN)/cargo-component:
	hack/setup.sh cargo-component

.PHONY: policies-component
policies-component: $(CARGO_COMPONENT_BIN)/cargo-component ## Build the same crates with cargo component
	$(policies-component-cargo) --target wasm32-unknown-unknown
	$(call policies-copy,target/policies-component-build/wasm32-unknown-unknown/release,target/policies-component)
	$(policies-component-cargo)
	$(call policies-copy,target/policies-component-build/wasm32-wasip1/release,target/policies-component/default)

.PHONY: policies-test
policies-test: build policies-component ## Check format, lints, rules, built components and the README's steps
	cd policies && cargo fmt --all --check
	cd policies && CARGO_TARGET_DIR=$(CURDIR)/target/policies-build \
		cargo clippy --locked --workspace --all-targets -- -D warnings
	cd policies && CARGO_TARGET_DIR=$(CURDIR)/target/policies-build RUSTFLAGS="$(POLICIES_RUSTFLAGS)" \
		cargo clippy --locked --release --target wasm32-wasip2 -- -D warnings
	PATH="$(CURDIR)/target/debug:$(CARGO_COMPONENT_BIN):$$PATH" CARGO_TARGET_DIR=$(CURDIR)/target/policies-quickstart-build \
		policies/quickstart.sh target/policies-quickstart
	cd policies && CARGO_TARGET_DIR=$(CURDIR)/target/policies-build \
		POLICIES_PLAIN=$(CURDIR)/target/policies \
		POLICIES_COMPONENT=$(CURDIR)/target/policies-component \
		POLICIES_COMPONENT_DEFAULT=$(CURDIR)/target/policies-component/default \
		POLICIES_QUICKSTART=$(CURDIR)/target/policies-quickstart \
		cargo test --locked --workspace -- --include-ignored
