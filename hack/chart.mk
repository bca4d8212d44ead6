# The Helm chart, the manifests rendered from it, and their checks. Included by the top Makefile.

.PHONY: setup-chart
setup-chart:
	@hack/setup.sh chart

.PHONY: chart
chart: setup-chart ## Write the chart's copy of the CRDs, and deploy/manifests
	rm -f deploy/helm/stoker/files/crds/*.yaml
	cp crds/*.yaml deploy/helm/stoker/files/crds/
	hack/render.sh

.PHONY: chart-lint
chart-lint: setup-chart ## Check the chart, its values, what is rendered from it, alerts and health scripts
	@hack/chart-lint.sh
