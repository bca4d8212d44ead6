# The demo: a pool on the local cluster, step by step. Included by the top Makefile.
#   make demo                        on the local test cluster, which it starts; Helm installs the operator where a node runs pods
#   make demo DEMO_CLUSTER=current   on the cluster of your kubeconfig's current context, with the operator as a process
#   make demo-down                   remove its objects, its operator and its namespaces
DEMO_CLUSTER ?= local
DEMO_IMAGE ?= $(if $(filter current,$(DEMO_CLUSTER)),docker.io/library/busybox:stable)

.PHONY: demo demo-down
demo: export DEMO_CLUSTER := $(DEMO_CLUSTER)
demo: export DEMO_IMAGE := $(DEMO_IMAGE)
demo: policies build ## Show a pool at work on the local cluster (or DEMO_CLUSTER=current)
ifneq ($(DEMO_CLUSTER),current)
	@$(MAKE) --no-print-directory operator-image
	@! $(CLUSTER_BIN) images list >/dev/null 2>&1 || hack/setup.sh chart
endif
	@hack/demo.sh up

demo-down: export DEMO_CLUSTER := $(DEMO_CLUSTER)
demo-down: ## Stop the demo and remove what it made
	@hack/demo.sh down
