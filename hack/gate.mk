# Builds the gate, static, for both architectures. Included by the top Makefile.
# rust-lld links it, so no C compiler for the other architecture is needed.

GATE_BUILD := target/gate-build
# No path of this machine gets into the gate, so its digest is the same wherever it is built.
GATE_RUSTFLAGS = --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src=registry \
	--remap-path-prefix=$(CURDIR)=.

# $(call gate-copy,TARGET,ARCHITECTURE): the file is replaced only when its bytes change, so that images of it stay.
define gate-copy
	@mkdir -p target/gate/$(2)
	@from=$(GATE_BUILD)/$(1)/gate/stoker-gate; to=target/gate/$(2)/stoker-gate; \
		cmp -s $$from $$to || install -m 755 $$from $$to
endef

.PHONY: gate
# A package alone: the folder is its own, so the workspace's choice of features is not disturbed.
gate: setup-rust ## Build the gate into target/gate/amd64 and target/gate/arm64
	CARGO_TARGET_DIR=$(CURDIR)/$(GATE_BUILD) RUSTFLAGS="$(GATE_RUSTFLAGS)" \
		CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
		CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
		cargo build --locked --profile gate -p stoker-gate \
		--target x86_64-unknown-linux-musl --target aarch64-unknown-linux-musl
	$(call gate-copy,x86_64-unknown-linux-musl,amd64)
	$(call gate-copy,aarch64-unknown-linux-musl,arm64)
