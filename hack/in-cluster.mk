# The operator as a pod of the local cluster. Included by the top Makefile.

# The operator that was built for this machine, with the libraries that it asks for, as an image of the real node: no second build
# for an image that only tests use. It is packed anew when the program has changed. Without a real node there is nothing to do.
OPERATOR_IMAGE := docker.io/stoker/stoker:test

.PHONY: operator-image
operator-image: build gate cluster-up
	@mkdir -p target/image
	@cd tests/cluster && CGO_ENABLED=0 go build -o ../../target/image/ociimage ./ociimage
	@if ! $(CLUSTER_BIN) images list >target/image/there 2>/dev/null; then \
		echo "no real node: the operator is not run as a pod"; \
	elif ! cmp -s target/debug/stoker target/image/packed || ! grep -qx $(OPERATOR_IMAGE) target/image/there; then \
		strip -o target/image/stoker-test target/debug/stoker && \
		target/image/ociimage --name $(OPERATOR_IMAGE) --out target/image/test --archive target/image/test.tar \
			--file target/image/stoker-test:/stoker --file amd64=target/gate/amd64/stoker-gate:/stoker-gate \
			$$(ldd target/debug/stoker | grep -o '/[^ ]*' | sort -u | while read -r library; do \
				echo --file $$(readlink -f $$library):$$library; done) && \
		$(CLUSTER_BIN) images import target/image/test.tar && cp target/debug/stoker target/image/packed; \
	fi
