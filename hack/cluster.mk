# The test cluster (tests/cluster): a real Kubernetes on this machine, in a network of its own.
#   make cluster-up [SIM_NODES=3] [REAL_NODE=1]   start it; a quick no-op while it runs
#   make cluster-down                             stop it, also after a crash
#   make cluster-exec CMD='curl …'                run a command inside its network
#   make kubectl ARGS='get pods -A'               kubectl against it
SIM_NODES ?= 3
REAL_NODE ?= 1

CLUSTER_BIN := target/cluster/bin/stoker-cluster

.PHONY: cluster-setup cluster-up cluster-down cluster-exec cluster-status kubectl

cluster-setup:
	@hack/setup.sh cluster

# The real node has the gate's image.
cluster-up: cluster-setup gate ## Start the local cluster (SIM_NODES=3, REAL_NODE=1); a quick no-op while it runs
	@$(CLUSTER_BIN) up --sim-nodes=$(SIM_NODES) --real-node=$(if $(filter 0 false no,$(REAL_NODE)),false,true)

# Taking down must work even if the sources do not compile: build only what was never built.
cluster-down: ## Stop the local cluster, also after a crash
	@if [ -x $(CLUSTER_BIN) ]; then $(CLUSTER_BIN) down; else echo "no cluster was ever set up here"; fi

# The command goes through the environment, so that it keeps its quotes. make turns any failure
# into its own exit code 2; target/cluster/bin/stoker-cluster exec keeps the command's code.
cluster-exec: export STOKER_CLUSTER_CMD = $(value CMD)
cluster-exec: ## Run a command inside its network (CMD='…')
	@$(CLUSTER_BIN) exec -- sh -c "$$STOKER_CLUSTER_CMD"

cluster-status: ## Tell what runs
	@$(CLUSTER_BIN) status

kubectl: ## kubectl against it (ARGS='get pods -A')
	@$(CLUSTER_BIN) kubectl $(ARGS)
