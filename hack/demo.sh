#!/usr/bin/env bash
# Shows a pool at work: filled, busy, idle again, and with its policy swapped while the operator runs.
#
#   hack/demo.sh up      needs what `make demo` builds
#   hack/demo.sh down    removes the objects, the operator and the namespaces
#
# On the local cluster Helm installs the operator, as pods of the node that really runs some. Where there is no such node, and on
# a cluster of yours, it is a process of this machine.
#
# DEMO_CLUSTER  local (default: the test cluster of `make cluster-up`) or current (your kubeconfig's context)
# DEMO_IMAGE    image of the pods, if not the one in the example
set -euo pipefail
cd "$(dirname "$0")/.."

readonly NAMESPACE=stoker-demo POOL=game-ws CONFIG_MAP=demo-policy
readonly OPERATORS=stoker-demo-system CHART=deploy/helm/stoker
readonly DIR=target/demo STOKER=target/debug/stoker POLICIES=target/policies
readonly LOG=$DIR/operator.log PID_FILE=$DIR/operator.pid PODS=$DIR/pods.log
readonly BUSY=paia.tech/busy
readonly DEADLINE=60 # seconds for any one step; a real cluster may have to pull the image

DEMO_CLUSTER=${DEMO_CLUSTER:-local}
case $DEMO_CLUSTER in
local)
	export KUBECONFIG=$PWD/target/cluster/kubeconfig
	PATH=$PWD/target/cluster/bin:$PATH
	;;
current) ;;
*)
	echo "demo: DEMO_CLUSTER is local or current, not $DEMO_CLUSTER" >&2
	exit 2
	;;
esac

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'; else bold='' dim='' red='' plain=''; fi

k() { kubectl -n "$NAMESPACE" "$@"; }
now() { echo "${EPOCHREALTIME/[.,]/}"; } # microseconds
seconds() { LC_ALL=C awk -v us="$1" 'BEGIN { printf "%.2f s", us / 1e6 }'; }
say() { printf '   %s\n' "$*"; }
indented() { sed 's/^\(.\)/   \1/'; }

number=0
step() { # step TITLE
	number=$((number + 1))
	printf '\n%s%d. %s%s\n' "$bold" "$number" "$*" "$plain"
}

shown() { # shown LINE : what is typed
	printf '   %s$ %s%s\n' "$dim" "${1//$'\n'/$'\n'       }" "$plain"
}

began=0 # when the last command was given
typed=0 # how long it took by itself
typed() { # typed LINE : a command is shown, and just that is run
	shown "$1"
	began=$(now)
	bash -c "set -o pipefail; $1" >"$DIR/command.log" 2>&1 || fail "failed: $1 ($(cat "$DIR/command.log"))"
	typed=$(($(now) - began))
}

fail() { # fail WORDS... : says what is known, so that nobody has to guess
	set +e
	printf '\n%sdemo: %s%s\n' "$red" "$*" "$plain" >&2
	{
		echo "--- the pool"
		k get hsd "$POOL" -o yaml --show-managed-fields=false
		echo "--- its pods"
		k get pods -l "hsd.paia.tech/name=$POOL" -o wide
		echo "--- its Events"
		k get events.events.k8s.io --field-selector "regarding.uid=$(k get hsd "$POOL" -o jsonpath='{.metadata.uid}')"
		if [ "$by_helm" = yes ]; then
			echo "--- the operator's pods, their Events and the end of their logs"
			kubectl -n "$OPERATORS" get pods -o wide
			kubectl -n "$OPERATORS" get events
			kubectl -n "$OPERATORS" logs -l app.kubernetes.io/name=stoker --prefix --tail=20
		else
			echo "--- the end of $LOG"
			tail -n 20 "$LOG"
		fi
		echo
		echo "hint: 'make demo' starts anew; 'make demo-down' cleans up"
	} >&2
	exit 1
}

# --- the operator as a process ----------------------------------------------------------------------------

start_time() { # start_time PID: when the process started, in ticks since boot; tells it from a namesake
	sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20
}

operator_pid() { # prints the PID of the operator that this script started, if it still runs
	local pid started
	[ -e "$PID_FILE" ] && read -r pid started <"$PID_FILE" || return 1
	[ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

stop_process() {
	local pid
	if pid=$(operator_pid); then
		kill "$pid"
		for _ in {1..100}; do
			operator_pid >/dev/null || break
			sleep 0.1
		done
		operator_pid >/dev/null && kill -KILL "$pid"
	fi
	rm -f "$PID_FILE"
}

start_process() {
	typed "$STOKER crds | kubectl apply --server-side -f -"
	kubectl wait crd/hotstandbydeployments.stoker.dev --for=condition=Established --timeout="${DEADLINE}s" >/dev/null
	shown "$STOKER run --namespace $NAMESPACE --listen 127.0.0.1:0"
	began=$(now)
	setsid "$STOKER" run --namespace "$NAMESPACE" --listen 127.0.0.1:0 >"$LOG" 2>&1 </dev/null &
	local pid=$!
	echo "$pid $(start_time "$pid")" >"$PID_FILE"
	for _ in {1..200}; do
		address=$(sed -n 's/.*serving .*address=//p' "$LOG")
		# Ready means that the operator has seen every pod there is.
		if [ -n "$address" ] && curl -fsS "http://$address/readyz" >/dev/null 2>&1; then
			say "→ process $pid, ready after ${bold}$(seconds $(($(now) - began)))${plain}"
			return 0
		fi
		operator_pid >/dev/null || break
		sleep 0.05
	done
	echo "demo: the operator did not start; $LOG says:" >&2
	tail -n 5 "$LOG" >&2
	exit 1
}

# --- the operator as Helm installs it ---------------------------------------------------------------------

by_helm=no
decide_how() { # whether a node runs containers, so that Helm can install the operator
	local nodes
	[ "$DEMO_CLUSTER" = local ] || return 0
	nodes=$(kubectl get nodes -l stoker.dev/node=real -o name)
	[ -z "$nodes" ] || by_helm=yes
}

leader() { kubectl -n "$OPERATORS" get lease stoker -o jsonpath='{.spec.holderIdentity}' 2>/dev/null || true; }

await_leader() { # await_leader [NOT]: until a replica leads, and not this one
	local until=$((SECONDS + DEADLINE)) name=
	until [ -n "$name" ] && [ "$name" != "${1:-}" ]; do
		[ "$SECONDS" -lt "$until" ] || fail "no operator leads within $DEADLINE s"
		sleep 0.05
		name=$(leader)
	done
}

install() {
	typed "helm install stoker $CHART --take-ownership \\
--namespace $OPERATORS --create-namespace --values hack/demo-values.yaml"
	local since=$began
	say "(--take-ownership: an earlier demo or a test may have left the definitions)"
	typed "kubectl -n $OPERATORS rollout status deployment/stoker --timeout=${DEADLINE}s"
	await_leader
	say "→ two replicas are ready after ${bold}$(seconds $(($(now) - since)))${plain}, one of which leads:"
	show_operators
}

show_operators() {
	shown "kubectl -n $OPERATORS get pods,lease"
	kubectl -n "$OPERATORS" get pods,leases.coordination.k8s.io | indented
}

uninstall() {
	command -v helm >/dev/null || return 0
	helm uninstall stoker --namespace "$OPERATORS" --ignore-not-found --wait --timeout "${DEADLINE}s" >/dev/null
}

# --- either way -------------------------------------------------------------------------------------------

who_operates() { # prints what a restart would change
	if [ "$by_helm" = yes ]; then
		kubectl -n "$OPERATORS" get pods -l app.kubernetes.io/name=stoker \
			-o 'jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].restartCount}{"\n"}{end}'
		leader
	else
		operator_pid || true
	fi
}

remove_objects() { # while an operator runs, as it takes off finalizers
	local kinds
	kinds=$(kubectl api-resources --api-group=stoker.dev -o name | paste -sd,)
	[ -z "$kinds" ] || k delete "$kinds" --all --cascade=foreground --timeout="${DEADLINE}s" >/dev/null ||
		echo "demo: objects of $NAMESPACE hang in deletion; without an operator nobody takes off their finalizers" >&2
}

# --- watching what happens --------------------------------------------------------------------------------
# One watch of the pods runs all the time and notes after each change: microseconds, pods that are not
# terminating, those of them that are Ready. So a step's time is that of the change, not of a later look.

watcher=
watch_pods() {
	: >"$PODS"
	{
		declare -A ready=()
		# exec, so that killing this end of the pipe kills kubectl itself.
		exec kubectl -n "$NAMESPACE" get pods -l "hsd.paia.tech/name=$POOL" --watch --output-watch-events \
			-o 'jsonpath={.type}|{.object.metadata.name}|{.object.metadata.deletionTimestamp}|{.object.status.conditions[?(@.type=="Ready")].status}{"\n"}' |
			while IFS='|' read -r type name deleted is_ready; do
				if [ "$type" = DELETED ] || [ -n "$deleted" ]; then
					unset "ready[$name]"
				else
					ready[$name]=$is_ready
				fi
				up=0
				for r in "${ready[@]}"; do [ "$r" != True ] || up=$((up + 1)); done
				echo "$(now) ${#ready[@]} $up"
			done >>"$PODS"
	} 2>>"$DIR/watch.log" &
	watcher=$!
}

# The watch is a pipeline in a subshell: kubectl is one of the subshell's children.
end_watch() {
	local child
	[ -n "$watcher" ] || return 0
	for child in $(cat "/proc/$watcher/task/$watcher/children" 2>/dev/null); do kill "$child" 2>/dev/null || true; done
	kill "$watcher" 2>/dev/null || true
	wait "$watcher" 2>/dev/null || true
	watcher=
}
trap end_watch EXIT

# await_pods TOTAL: until there are that many pods, all Ready; prints when they existed and when they were Ready.
await_pods() {
	local total=$1 until=$((SECONDS + DEADLINE)) at exist='' ready=''
	while [ -z "$ready" ]; do
		[ "$SECONDS" -lt "$until" ] || fail "no $total Ready pods within $DEADLINE s"
		sleep 0.05
		# What was so before the command is no effect of it. Both at one reading: the file grows meanwhile.
		read -r exist ready < <(awk -v b="$began" -v n="$total" '
			$1 >= b && $2 == n && !exist { exist = $1 }
			$1 >= b && $2 == n && $3 == n { print exist, $1; exit }' "$PODS") || true
	done
	at="$total pods after ${bold}$(seconds $((exist - began)))${plain}"
	[ "$ready" = "$exist" ] || at+=", all Ready after $(seconds $((ready - began)))"
	say "→ $at ${dim}(of which kubectl itself took $(seconds "$typed"))${plain}"
}

# await_status TEXT JSONPATH: until the status says so. It is written at most once a second.
await_status() {
	local want=$1 path=$2 until=$((SECONDS + DEADLINE)) got=
	until [ "$got" = "$want" ]; do
		[ "$SECONDS" -lt "$until" ] || fail "the status says '$got' where '$want' was expected ($path)"
		sleep 0.1
		got=$(k get hsd "$POOL" -o "jsonpath=$path" 2>/dev/null || true)
	done
}

show_pool() { # the pool, and why it has so many
	k get hsd "$POOL" | indented
	k get hsd "$POOL" -o 'jsonpath={.status.lastDecision.by} decides: {.status.lastDecision.reason}{"\n"}' | indented
}
pods() { k get pods -l "hsd.paia.tech/name=$POOL" -o jsonpath='{.items[*].metadata.name}'; }

put_policy() { # put_policy FILE: the policy into the ConfigMap, as any user would
	typed "kubectl -n $NAMESPACE create configmap $CONFIG_MAP --from-file=policy.wasm=$1 --dry-run=client -o yaml |
kubectl -n $NAMESPACE apply --server-side -f -"
}

# --- the demo ---------------------------------------------------------------------------------------------

up() {
	command -v kubectl >/dev/null || { echo "demo: kubectl is missing; see https://kubernetes.io/docs/tasks/tools" >&2; exit 1; }
	[ -x "$STOKER" ] && [ -e "$POLICIES/percent-buffer.wasm" ] || { echo "demo: nothing is built; run 'make demo'" >&2; exit 1; }
	kubectl get --raw /readyz >/dev/null || { echo "demo: the cluster does not answer; see 'kubectl cluster-info'" >&2; exit 1; }
	mkdir -p "$DIR"
	decide_how
	if [ "$DEMO_CLUSTER" = current ]; then
		echo "The cluster is $(kubectl config current-context 2>/dev/null || echo "that of the environment"); the demo adds the CRDs to it, and works in one namespace."
		echo "The operator is a process of this machine here, with your rights; README.md says how Helm installs it."
		echo "What follows a \$ is what you could type yourself, in this folder."
	else
		[ "$by_helm" = yes ] || echo "No node of the local cluster runs containers (that takes root), so the operator is a process of this machine."
		echo "What follows a \$ is what you could type yourself, in this folder, after:"
		shown "export KUBECONFIG=$KUBECONFIG PATH=$PWD/target/cluster/bin:\$PATH"
	fi

	# What an earlier demo left.
	stop_process
	if [ "$DEMO_CLUSTER" = local ]; then uninstall; fi
	k delete hsd "$POOL" --ignore-not-found --cascade=foreground --timeout="${DEADLINE}s" >/dev/null 2>&1 || true
	kubectl create namespace "$NAMESPACE" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
	k delete configmap "$CONFIG_MAP" --ignore-not-found >/dev/null

	if [ "$by_helm" = yes ]; then
		step "Install the operator and its custom resource definitions by Helm"
		install
	else
		step "Install the custom resource definitions, start the operator"
		start_process
	fi
	local operates names name
	watch_pods

	step "A pool that keeps three pods idle"
	local example=examples/hot-standby-deployment/pool.yaml
	if [ -n "${DEMO_IMAGE:-}" ]; then
		typed "sed 's|docker.io/local/busybox:1|$DEMO_IMAGE|' $example | kubectl -n $NAMESPACE apply -f -"
	else
		typed "kubectl -n $NAMESPACE apply -f $example"
	fi
	await_pods 3
	await_status 3 '{.status.idleCount}'
	shown "kubectl -n $NAMESPACE get hsd"
	show_pool

	read -ra names <<<"$(pods)"
	step "Two of them turn busy: two more are started, so that three are idle again"
	typed "kubectl -n $NAMESPACE annotate pod ${names[*]:0:2} $BUSY=true"
	await_pods 5
	await_status '2 3' '{.status.busyCount} {.status.idleCount}'
	show_pool

	step "The two are done: the surplus goes after scaleDownDelaySeconds, which is 10 here"
	typed "kubectl -n $NAMESPACE annotate pod ${names[*]:0:2} $BUSY-"
	await_pods 3
	await_status '0 3' '{.status.busyCount} {.status.totalCount}'

	read -ra names <<<"$(pods)"
	step "A maximum of 1 while two are busy: the idle ones go after the same delay, a busy one never does"
	typed "kubectl -n $NAMESPACE annotate pod ${names[*]:0:2} $BUSY=true"
	await_status 5 '{.status.totalCount}'
	typed "kubectl -n $NAMESPACE patch hsd $POOL --type=merge -p '{\"spec\":{\"maxReplicas\":1}}'"
	await_pods 2
	await_status 'maximum 2' '{.status.lastDecision.limitedBy} {.status.totalCount}'
	for name in "${names[@]:0:2}"; do
		[ -z "$(k get pod "$name" -o jsonpath='{.metadata.deletionTimestamp}')" ] || fail "the busy pod $name is being deleted"
	done
	say "→ left are $(pods), the two busy ones, although the maximum is 1"
	show_pool

	step "Fifteen busy pods and one idle; who decides so is now a policy in a ConfigMap"
	typed "kubectl -n $NAMESPACE patch hsd $POOL --type=merge -p '{\"spec\":{\"maxReplicas\":50,\"idleTarget\":14}}'"
	await_status '16 0' '{.status.totalCount} {.status.startingCount}'
	put_policy "$POLICIES/buffer.wasm"
	typed "kubectl -n $NAMESPACE patch hsd $POOL --type=merge \\
-p '{\"spec\":{\"idleTarget\":1,\"policy\":{\"configMap\":{\"name\":\"$CONFIG_MAP\"}}}}'"
	# Within the delay, so that none of the sixteen goes.
	typed "kubectl -n $NAMESPACE annotate --overwrite \\
\$(kubectl -n $NAMESPACE get pods -l hsd.paia.tech/name=$POOL -o name | head -n 15) $BUSY=true"
	await_status "15 1 configMap/$CONFIG_MAP/policy.wasm" '{.status.busyCount} {.status.idleCount} {.status.lastDecision.by}'
	show_pool

	step "Swap the policy: other bytes in the ConfigMap, the same operator"
	operates=$(who_operates)
	put_policy "$POLICIES/percent-buffer.wasm"
	await_pods 18
	await_status '15 3' '{.status.busyCount} {.status.idleCount}'
	show_pool
	[ "$(who_operates)" = "$operates" ] || fail "the operator is another: before $operates, now $(who_operates)"
	if [ "$by_helm" = yes ]; then
		say "The operators are the same pods as before the swap, no container was restarted, and the same one leads:"
		show_operators
	else
		say "The operator is still process $operates: no restart."
	fi

	step "A broken policy (README.md is none): what worked goes on deciding, and the pool says what is wrong"
	put_policy README.md
	await_status False '{.status.conditions[?(@.type=="PolicyHealthy")].status}'
	say "→ PolicyHealthy=False after ${bold}$(seconds $(($(now) - began)))${plain}: $(k get hsd "$POOL" -o jsonpath='{.status.conditions[?(@.type=="PolicyHealthy")].message}')"
	show_pool
	say "Put right again:"
	put_policy "$POLICIES/percent-buffer.wasm"
	await_status True '{.status.conditions[?(@.type=="PolicyHealthy")].status}'

	local explain="$STOKER explain hsd/$POOL -n $NAMESPACE" log="tail -f $LOG" metrics="curl http://${address:-}/metrics"
	if [ "$by_helm" = yes ]; then
		name=$(leader)
		step "The operator that leads is deleted: the other goes on where it was"
		typed "kubectl -n $OPERATORS delete pod $name --wait=false"
		await_leader "$name"
		say "→ $(leader) leads after ${bold}$(seconds $(($(now) - began)))${plain}"
		name=$(leader)
		explain="$explain --operator-namespace $OPERATORS"
		log="kubectl -n $OPERATORS logs $name"
		metrics="kubectl -n $OPERATORS port-forward $name 8080     # and meanwhile: curl http://127.0.0.1:8080/metrics"
	fi

	cat <<-END

		${bold}All of it is left running.${plain} Look around and try more of it:
		   $explain
		   kubectl -n $NAMESPACE get hsd,pods
		   kubectl -n $NAMESPACE describe hsd $POOL
		   kubectl -n $NAMESPACE patch hsd $POOL --type=merge -p '{"spec":{"policy":{"config":{"percent":100}}}}'
		   $log
		   $metrics
		To remove it all: ${bold}make demo-down$([ "$DEMO_CLUSTER" = local ] || echo " DEMO_CLUSTER=$DEMO_CLUSTER")${plain}
	END
}

down() {
	if kubectl get --raw /readyz >/dev/null 2>&1; then
		remove_objects
		stop_process
		if [ "$DEMO_CLUSTER" = local ]; then
			uninstall
			kubectl delete namespace "$NAMESPACE" "$OPERATORS" --ignore-not-found --timeout=120s
		else
			kubectl delete namespace "$NAMESPACE" --ignore-not-found --timeout=120s
		fi
	else
		stop_process
		echo "demo: the cluster does not answer, so there is nothing else to remove"
	fi
	echo "The operator is gone. The custom resource definitions stay; to remove them, and every pool with them:"
	echo "   kubectl delete crd hotstandbydeployments.stoker.dev"
	if [ "$DEMO_CLUSTER" = local ]; then echo "The local cluster goes on running; 'make cluster-down' stops it."; fi
}

case ${1:-} in
up) up ;;
down) down ;;
*)
	echo "usage: $0 up|down" >&2
	exit 2
	;;
esac
