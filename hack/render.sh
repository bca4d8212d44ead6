#!/bin/sh
# Renders what deploy/kustomization.yaml refers to from the chart, so that `kubectl apply -k deploy` installs the same.
#
#   hack/render.sh [DIR]     into DIR, by default deploy/manifests, which is made anew
set -eu
cd "$(dirname "$0")/.."
dir=${1:-deploy/manifests}
PATH=$PWD/target/cluster/bin:$PATH
command -v helm >/dev/null || { echo "render: helm is missing; run hack/setup.sh chart" >&2; exit 1; }

# render OPTION...: the chart's objects, with no word of Helm, which does not look after these.
render() {
	echo "# Made by hack/render.sh from the chart; do not edit."
	helm template stoker deploy/helm/stoker --namespace stoker-system --set crds.install=false "$@" |
		grep -vE '^# Source: |^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): '
}

# The chart would make another key each time.
with_reports='--set reports.enabled=true --set reports.key.existingSecret=stoker-reports'
rm -rf "$dir"
mkdir -p "$dir/reports"
cat >"$dir/namespace.yaml" <<-'END'
	# Made by hack/render.sh; do not edit.
	apiVersion: v1
	kind: Namespace
	metadata:
	  name: stoker-system
	  labels: {pod-security.kubernetes.io/enforce: restricted}
END
render >"$dir/operator.yaml"

cat >"$dir/reports/kustomization.yaml" <<-'END'
	# Made by hack/render.sh; do not edit. The report service, and an operator that knows of it. Both need the key:
	#   kubectl -n stoker-system create secret generic stoker-reports --from-literal=key="$(openssl rand -base64 32)"
	apiVersion: kustomize.config.k8s.io/v1alpha1
	kind: Component
	resources: [reports.yaml]
	patches: [{path: operator.yaml}]
END
# shellcheck disable=SC2086
render $with_reports --show-only templates/reports.yaml --show-only templates/reports-rbac.yaml \
	--show-only templates/reports-networkpolicy.yaml >"$dir/reports/reports.yaml"
# shellcheck disable=SC2086
render $with_reports --show-only templates/deployment.yaml >"$dir/reports/operator.yaml"
