# Packs the operator and the gate into images, without a registry or an engine. Included by the top Makefile.
#   make image                                        for amd64, after building what goes in
#   make image IMAGE_ARCHITECTURES="amd64 arm64"      for both
#   make image STOKER_AMD64=FILE [STOKER_ARM64=FILE]  of static programs that you have
#   make image IMAGE_TAG=1 IMAGE_NAME=REGISTRY/stoker IMAGE_GATE=REGISTRY/gate
# target/image/stoker and target/image/gate are layouts as the Open Container Initiative describes them, which clients of
# registries push; beside each is the same as one file, which engines load and nodes import.
IMAGE_NAME ?= docker.io/stoker/stoker
IMAGE_GATE ?= docker.io/stoker/gate
IMAGE_TAG ?= $(shell sed -n '/^\[workspace.package\]/,/^$$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# By which the operator trusts servers that name no authority of their own.
IMAGE_AUTHORITIES ?= /etc/ssl/certs/ca-certificates.crt

IMAGE_ARCHITECTURES ?= amd64

.PHONY: image
ifeq ($(STOKER_AMD64)$(STOKER_ARM64),)
ifneq ($(filter amd64,$(IMAGE_ARCHITECTURES)),)
image: release-musl
image: STOKER_AMD64 := target/x86_64-unknown-linux-musl/release/stoker
endif
ifneq ($(filter arm64,$(IMAGE_ARCHITECTURES)),)
image: release-musl-arm64
image: STOKER_ARM64 := target/aarch64-unknown-linux-musl/release/stoker
endif
endif

# $(call image-files,ARCHITECTURE,PROGRAM)
image-files = $(if $(2),--file $(1)=$(2):/stoker --file $(1)=target/gate/$(1)/stoker-gate:/stoker-gate)
image-labels = --label org.opencontainers.image.title=$(1) --label org.opencontainers.image.version=$(IMAGE_TAG) \
	--label org.opencontainers.image.licenses=Apache-2.0

image: gate ## Pack operator and gate into images, target/image/stoker and target/image/gate
	mkdir -p target/image
	cd tests/cluster && CGO_ENABLED=0 go build -o ../../target/image/ociimage ./ociimage
	target/image/ociimage --name $(IMAGE_NAME):$(IMAGE_TAG) --out target/image/stoker --archive target/image/stoker.tar \
		$(call image-labels,stoker) $(call image-files,amd64,$(STOKER_AMD64)) $(call image-files,arm64,$(STOKER_ARM64)) \
		--file $(IMAGE_AUTHORITIES):/etc/ssl/certs/ca-certificates.crt:644
	target/image/ociimage --name $(IMAGE_GATE):$(IMAGE_TAG) --out target/image/gate --archive target/image/gate.tar \
		$(call image-labels,stoker-gate) --file amd64=target/gate/amd64/stoker-gate:/stoker-gate \
		--file arm64=target/gate/arm64/stoker-gate:/stoker-gate
	@ls -lh target/image/*.tar
