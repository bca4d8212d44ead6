#!/usr/bin/env bash
# Shows a pool at work: filled, busy, idle again, and with its policy swapped while the operator runs.
#
#   hack/demo.sh up      needs target/debug/stoker and target/policies (make demo builds them)
#   hack/demo.sh down    stops the operator and removes the namespace
#
# DEMO_CLUSTER  local (default: the test cluster of `make cluster-up`) or current (your kubeconfig's context)
# DEMO_IMAGE    image of the pods, if not the one in the example
set -euo pipefail
cd "$(dirname "$0")/.."

readonly NAMESPACE=stoker-demo POOL=game-ws CONFIG_MAP=demo-policy
readonly DIR=target/demo STOKER=target/debug/stoker POLICIES=target/policies
readonly LOG=$DIR/operator.log PID_FILE=$DIR/operator.pid PODS=$DIR/pods.log
readonly BUSY=paia.tech/busy
readonly DEADLINE=60 # seconds for any one step; a real cluster may have to pull the image

DEMO_CLUSTER=${DEMO_CLUSTER:-local}
case $DEMO_CLUSTER in
local)
	export KUBECONFIG=$PWD/target/cluster/kubeconfig
	PATH=$PWD/target/cluster/bin:$PATH
	kubectl_words="export KUBECONFIG=$KUBECONFIG PATH=$PWD/target/cluster/bin:\$PATH"
	;;
current) kubectl_words= ;;
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

number=0
step() { # step TITLE
	number=$((number + 1))
	printf '\n%s%d. %s%s\n' "$bold" "$number" "$*" "$plain"
}

shown() { # shown WORDS... : what is typed, as it could be typed by hand
	printf '   %s$ %s%s\n' "$dim" "$*" "$plain"
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
		echo "--- the end of $LOG"
		tail -n 20 "$LOG"
		echo
		echo "hint: 'make demo' starts anew; 'make demo-down' cleans up"
	} >&2
	exit 1
}

# --- the operator -----------------------------------------------------------------------------------------

start_time() { # start_time PID: when the process started, in ticks since boot; tells it from a namesake
	sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20
}

operator_pid() { # prints the PID of the operator that this script started, if it still runs
	local pid started
	[ -e "$PID_FILE" ] && read -r pid started <"$PID_FILE" || return 1
	[ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

stop_operator() {
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

start_operator() {
	setsid "$STOKER" run --namespace "$NAMESPACE" --listen 127.0.0.1:0 >"$LOG" 2>&1 </dev/null &
	local pid=$!
	echo "$pid $(start_time "$pid")" >"$PID_FILE"
	for _ in {1..200}; do
		address=$(sed -n 's/.*serving .*address=//p' "$LOG")
		# Ready means that the operator has seen every pod there is.
		[ -n "$address" ] && curl -fsS "http://$address/readyz" >/dev/null 2>&1 && return 0
		operator_pid >/dev/null || break
		sleep 0.05
	done
	echo "demo: the operator did not start; $LOG says:" >&2
	tail -n 5 "$LOG" >&2
	exit 1
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

began=0 # when the command of this step was given
typed=0 # how long kubectl itself took
run() { # run COMMAND... : the command whose effect is measured
	began=$(now)
	"$@" >"$DIR/command.log" 2>&1 || fail "failed: $* ($(cat "$DIR/command.log"))"
	typed=$(($(now) - began))
}

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

show_pool() { k get hsd "$POOL" -o wide | sed 's/^/   /'; }
pods() { k get pods -l "hsd.paia.tech/name=$POOL" -o jsonpath='{.items[*].metadata.name}'; }

put_policy() { # put_policy FILE: the policy into the ConfigMap, as any user would
	k create configmap "$CONFIG_MAP" --from-file=policy.wasm="$1" --dry-run=client -o yaml |
		k apply --server-side -f -
}

show_put_policy() {
	shown "kubectl create configmap $CONFIG_MAP --from-file=policy.wasm=$1 --dry-run=client -o yaml | kubectl apply --server-side -f -"
}

# --- the demo ---------------------------------------------------------------------------------------------

up() {
	command -v kubectl >/dev/null || { echo "demo: kubectl is missing; see https://kubernetes.io/docs/tasks/tools" >&2; exit 1; }
	[ -x "$STOKER" ] && [ -e "$POLICIES/percent-buffer.wasm" ] || { echo "demo: nothing is built; run 'make demo'" >&2; exit 1; }
	kubectl get --raw /readyz >/dev/null || { echo "demo: the cluster does not answer; see 'kubectl cluster-info'" >&2; exit 1; }
	mkdir -p "$DIR"
	if [ "$DEMO_CLUSTER" = current ]; then
		echo "The cluster is $(kubectl config current-context 2>/dev/null || echo "that of the environment"); the demo adds the CRDs to it, and works in one namespace."
	fi
	echo "What follows a \$ is what you could type yourself. Each kubectl also gets: -n $NAMESPACE"

	step "Install the custom resource definitions, start the operator"
	shown "stoker crds | kubectl apply --server-side -f -"
	"$STOKER" crds | kubectl apply --server-side -f - >/dev/null
	kubectl wait crd/hotstandbydeployments.stoker.dev --for=condition=Established --timeout="${DEADLINE}s" >/dev/null
	stop_operator
	# What an earlier demo left.
	kubectl create namespace "$NAMESPACE" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
	k delete hsd "$POOL" --ignore-not-found --cascade=foreground --timeout="${DEADLINE}s" >/dev/null
	k delete configmap "$CONFIG_MAP" --ignore-not-found >/dev/null
	shown "stoker run --namespace $NAMESPACE --listen 127.0.0.1:0"
	began=$(now)
	start_operator
	local pid
	pid=$(operator_pid)
	say "→ process $pid, ready after $(seconds $(($(now) - began)))"
	watch_pods

	step "A pool that keeps three pods idle"
	local example=examples/hot-standby-deployment/pool.yaml manifest=$DIR/pool.yaml
	cp "$example" "$manifest"
	[ -z "${DEMO_IMAGE:-}" ] || sed -i "s|image: docker.io/local/busybox:1|image: $DEMO_IMAGE|" "$manifest"
	shown "kubectl apply -f $example"
	run k apply -f "$manifest"
	await_pods 3
	await_status 3 '{.status.idleCount}'
	show_pool

	local names
	read -ra names <<<"$(pods)"
	step "Two of them turn busy: two more are started, so that three are idle again"
	shown "kubectl annotate pod ${names[*]:0:2} $BUSY=true"
	run k annotate pod "${names[@]:0:2}" "$BUSY=true"
	await_pods 5
	await_status '2 3' '{.status.busyCount} {.status.idleCount}'
	show_pool

	step "The two are done: the surplus goes after scaleDownDelaySeconds, which is 10 here"
	shown "kubectl annotate pod ${names[*]:0:2} $BUSY-"
	run k annotate pod "${names[@]:0:2}" "$BUSY-"
	await_pods 3
	await_status '0 3' '{.status.busyCount} {.status.totalCount}'

	read -ra names <<<"$(pods)"
	step "A maximum of 1 while two are busy: the idle ones go, a busy one never does"
	shown "kubectl annotate pod ${names[*]:0:2} $BUSY=true"
	shown "kubectl patch hsd $POOL --type=merge -p '{\"spec\":{\"maxReplicas\":1}}'"
	k annotate pod "${names[@]:0:2}" "$BUSY=true" >/dev/null
	await_status 5 '{.status.totalCount}'
	run k patch hsd "$POOL" --type=merge -p '{"spec":{"maxReplicas":1}}'
	await_pods 2
	await_status 'maximum 2' '{.status.lastDecision.limitedBy} {.status.totalCount}'
	local name
	for name in "${names[@]:0:2}"; do
		[ -z "$(k get pod "$name" -o jsonpath='{.metadata.deletionTimestamp}')" ] || fail "the busy pod $name is being deleted"
	done
	say "→ left are $(pods), the two busy ones, although the maximum is 1"
	show_pool

	step "Fifteen busy pods and one idle; who decides so is now a policy in a ConfigMap"
	shown "kubectl patch hsd $POOL --type=merge -p '{\"spec\":{\"maxReplicas\":50,\"idleTarget\":14}}'"
	run k patch hsd "$POOL" --type=merge -p '{"spec":{"maxReplicas":50,"idleTarget":14}}'
	await_status '16 0' '{.status.totalCount} {.status.startingCount}'
	read -ra names <<<"$(pods)"
	show_put_policy "$POLICIES/buffer.wasm"
	put_policy "$POLICIES/buffer.wasm" >/dev/null
	shown "kubectl patch hsd $POOL --type=merge -p '{\"spec\":{\"idleTarget\":1,\"policy\":{\"configMap\":{\"name\":\"$CONFIG_MAP\"}}}}'"
	k patch hsd "$POOL" --type=merge -p "{\"spec\":{\"idleTarget\":1,\"policy\":{\"configMap\":{\"name\":\"$CONFIG_MAP\"}}}}" >/dev/null
	# Within the delay, so that none of the sixteen goes.
	shown "kubectl annotate pod POD… $BUSY=true     (fifteen of the sixteen)"
	k annotate pod "${names[@]:0:15}" --overwrite "$BUSY=true" >/dev/null
	await_status "15 1 configMap/$CONFIG_MAP/policy.wasm" '{.status.busyCount} {.status.idleCount} {.status.lastDecision.by}'
	show_pool

	step "Swap the policy: other bytes in the ConfigMap, the same operator"
	show_put_policy "$POLICIES/percent-buffer.wasm"
	run put_policy "$POLICIES/percent-buffer.wasm"
	await_pods 18
	await_status '15 3' '{.status.busyCount} {.status.idleCount}'
	show_pool
	[ "$(operator_pid)" = "$pid" ] || fail "the operator is not process $pid any more"
	say "The operator is still process $pid: no restart."

	step "A broken policy (README.md is none): what worked goes on deciding, and the pool says what is wrong"
	show_put_policy README.md
	run put_policy README.md
	await_status False '{.status.conditions[?(@.type=="PolicyHealthy")].status}'
	say "→ PolicyHealthy=False after $(seconds $(($(now) - began))): $(k get hsd "$POOL" -o jsonpath='{.status.conditions[?(@.type=="PolicyHealthy")].message}')"
	show_pool
	put_policy "$POLICIES/percent-buffer.wasm" >/dev/null
	await_status True '{.status.conditions[?(@.type=="PolicyHealthy")].status}'

	cat <<-END

		${bold}All of it is left running.${plain} Look around and try more of it:
		${kubectl_words:+   $kubectl_words
		}   kubectl -n $NAMESPACE get hsd,pods
		   kubectl -n $NAMESPACE describe hsd $POOL
		   kubectl -n $NAMESPACE patch hsd $POOL --type=merge -p '{"spec":{"policy":{"config":{"percent":100}}}}'
		   curl http://$address/metrics
		The operator's log is in $LOG. To remove it all: ${bold}make demo-down${plain}
	END
}

down() {
	stop_operator
	if kubectl get --raw /readyz >/dev/null 2>&1; then
		kubectl delete namespace "$NAMESPACE" --ignore-not-found --timeout=120s
	else
		echo "demo: the cluster does not answer, so there is no namespace to remove"
	fi
	echo "The operator is stopped. The custom resource definitions stay; to remove them, and every pool with them:"
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
