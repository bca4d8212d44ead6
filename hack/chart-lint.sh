#!/usr/bin/env bash
# Checks the chart and what is made from it, without a cluster: it lints and renders with every set of values in
# deploy/tests/values, refuses those of deploy/tests/refused.txt, and no copy is stale; alerts do what their tests say.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/target/cluster/bin:$PATH
readonly CHART=deploy/helm/stoker OUT=target/chart
rm -rf $OUT && mkdir -p $OUT

fail() { echo "chart-lint: $*" >&2; exit 1; }
quietly() { "$@" >$OUT/said 2>&1 || { cat $OUT/said >&2; fail "$*"; }; }

for program in helm promtool lua5.1 python3; do
	command -v $program >/dev/null || fail "$program is missing; hack/setup.sh chart brings it, or says how"
done

# --- the chart --------------------------------------------------------------------------------------------

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
for key in version appVersion; do
	grep -qx "$key: $version" $CHART/Chart.yaml || fail "$CHART/Chart.yaml: $key is not the workspace's, $version"
done
diff -r crds $CHART/files/crds || fail "$CHART/files/crds is stale: run make chart and commit"

: >$OUT/none.yaml
for values in $OUT/none.yaml deploy/tests/values/*.yaml; do
	name=$(basename "$values" .yaml)
	helm lint --strict --quiet --namespace stoker-system $CHART --values "$values"
	helm template stoker $CHART --namespace stoker-system --values "$values" >"$OUT/$name.rendered.yaml"
done

# The CRDs come through as they are in crds/, but for the annotation that keeps them.
helm template stoker $CHART --show-only templates/crds.yaml |
	grep -vxE -- '---|# Source: .*|    helm\.sh/resource-policy: keep|' >$OUT/crds.yaml
cat crds/*.yaml | grep -vxE -- '---|' | diff - $OUT/crds.yaml || fail "the chart changes CRDs"
kept=$(helm template stoker $CHART --show-only templates/crds.yaml | grep -cx '    helm\.sh/resource-policy: keep')
[ "$kept" = "$(ls crds | wc -l)" ] || fail "$kept of the CRDs are kept when the release is uninstalled"

while IFS=$'\t' read -r values why; do
	[[ $values != \#* ]] || continue
	! said=$(helm template stoker $CHART --set "$values" 2>&1 >/dev/null) || fail "the chart takes $values"
	grep -q -- "$why" <<<"$said" || fail "the chart refuses $values, but does not say '$why': $said"
done <deploy/tests/refused.txt

# --- what is rendered from it -----------------------------------------------------------------------------

hack/render.sh $OUT/manifests
diff -r deploy/manifests $OUT/manifests || fail "deploy/manifests is stale: run make chart and commit"
for crd in crds/*.yaml; do
	grep -qF "  - helm/stoker/files/$crd" deploy/kustomization.yaml || fail "deploy/kustomization.yaml leaves out $crd"
done

# --- alerts and dashboard ---------------------------------------------------------------------------------

hack/monitoring-lint.py $OUT/dashboard-rules.yaml
quietly promtool check rules $CHART/files/alerts.yaml $OUT/dashboard-rules.yaml
quietly promtool test rules deploy/tests/alerts.yaml

# --- health for Argo CD -----------------------------------------------------------------------------------

# Argo CD's Lua is of this version.
lua5.1 deploy/tests/health.lua || fail "deploy/argocd/health.lua says something else"
