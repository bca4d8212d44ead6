#!/bin/sh
# Installs what building and testing need and this machine lacks. Safe to run again: what is there
# is left alone, and a second run ends at once.
#
#   hack/setup.sh [all|packages|rust|cluster|chart|cargo-component|cargo-fuzz|cargo-deny|arm64]...     (default: all)
#
# packages         Debian packages (needs root; otherwise says what is missing)
# rust             rustup targets and components
# cluster          packages, and the test cluster's programs in target/cluster/bin
# chart            packages, and helm in target/cluster/bin
# cargo-component  the tool for authors of policies, in target/tools
# cargo-fuzz       the fuzzer, in target/tools
# cargo-deny       what checks licences and sources, in target/tools; not among all, as only `make deny` wants it
# arm64            a C compiler for arm64, and what runs its programs here; not among all, as only its image wants them
set -euf
cd "$(dirname "$0")/.."
root=$PWD
bin=$root/target/cluster/bin

packages='runc containernetworking-plugins nftables busybox-static iproute2 musl-tools iptables conntrack g++ redis-server prometheus lua5.1'
programs='python3:python3 node:nodejs' # for the examples of claims, from wherever they are
rust_targets='wasm32-unknown-unknown wasm32-wasip2 wasm32-wasip1 x86_64-unknown-linux-musl aarch64-unknown-linux-musl'
rust_components='rustfmt clippy'
cargo_component=0.21.1
cargo_fuzz=0.13.2
cargo_deny=0.20.2
containerd=v2.3.7
helm=v3.22.0
kubernetes=v1.36.3 # go.mod says which one is built; this is what it calls itself

# step WHAT COMMAND... runs a command quietly and says how long it took, or what it said if it fails.
step() {
	what=$1
	shift
	begin=$(date +%s)
	printf '%s ... ' "$what"
	log=$(mktemp)
	if "$@" >"$log" 2>&1; then
		echo "$(($(date +%s) - begin)) s"
		rm -f "$log"
	else
		code=$?
		echo "failed ($code):"
		tail -n 30 "$log" >&2
		rm -f "$log"
		return "$code"
	fi
}

need() { # need PROGRAM HINT
	command -v "$1" >/dev/null 2>&1 || {
		echo "setup: $1 is missing; $2" >&2
		return 1
	}
}

setup_packages() { # setup_packages [PACKAGE]... : these, or all that the tests need
	missing=
	for package in ${*:-$packages}; do
		# One stat each instead of asking dpkg-query, which takes half a second.
		[ -e "/var/lib/dpkg/info/$package.list" ] || missing="$missing $package"
	done
	for program in $programs; do
		command -v "${program%:*}" >/dev/null 2>&1 || missing="$missing ${program#*:}"
	done
	[ -n "$missing" ] || return 0
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "setup: not a Debian; install the equivalents of:$missing" >&2
	elif [ "$(id -u)" != 0 ]; then
		echo "setup: not root; the cluster comes up without a real node until somebody runs: apt-get install$missing" >&2
	else
		step 'package lists' apt-get update -q
		# shellcheck disable=SC2086
		step "packages$missing" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
	fi
}

setup_rust() {
	need rustup 'see https://rustup.rs'
	libraries=$(rustc --print sysroot)/lib/rustlib
	missing=
	for target in $rust_targets; do
		[ -d "$libraries/$target/lib" ] || missing="$missing $target"
	done
	if [ -n "$missing" ]; then
		# shellcheck disable=SC2086
		step "rust targets$missing" rustup target add $missing
	fi
	for component in $rust_components; do
		grep -q "^$component" "$libraries/components" 2>/dev/null ||
			step "rust component $component" rustup component add "$component"
	done
}

# cargo_tool NAME VERSION puts a cargo subcommand into target/tools.
cargo_tool() {
	need cargo 'see https://rustup.rs'
	if [ -x "target/tools/bin/$1" ] && grep -qs "\"$1 $2 " target/tools/.crates2.json; then
		return 0
	fi
	step "$1 $2 (some minutes)" \
		env CARGO_TARGET_DIR="$root/target/tools-build" \
		cargo install "$1" --locked --version "$2" --root target/tools
	rm -rf target/tools-build
}

# newer BINARY SOURCE... : is any source newer than the binary, or the binary missing?
newer() {
	[ -x "$1" ] || return 0
	[ -n "$(find "$2" -type f -newer "$1" $3 -print -quit)" ]
}

build_go() { # build_go OUTPUT PACKAGE FLAGS...
	output=$1 package=$2
	shift 2
	# To another name first: a running program's file cannot be overwritten, only replaced.
	(cd tests/cluster && go build "$@" -o "$output.new" "$package" && mv "$output.new" "$output")
}

setup_cluster() {
	setup_packages
	need go 'see https://go.dev/dl'
	mkdir -p "$bin"
	if [ ! -x "$bin/containerd" ] || [ ! -x "$bin/containerd-shim-runc-v2" ] || [ ! -x "$bin/ctr" ] ||
		[ "$(cat "$bin/.containerd-version" 2>/dev/null)" != "$containerd" ]; then
		step "containerd $containerd (1 min)" env GOBIN="$bin" go install -ldflags '-s -w' \
			github.com/containerd/containerd/v2/cmd/containerd@"$containerd" \
			github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2@"$containerd" \
			github.com/containerd/containerd/v2/cmd/ctr@"$containerd"
		echo "$containerd" >"$bin/.containerd-version"
	fi
	version=k8s.io/component-base/version
	if newer "$bin/stoker-cluster" tests/cluster '-not -path */busyserver/* -not -path */ociimage/* -not -name *_test.go'; then
		step 'stoker-cluster (the first time some minutes)' build_go "$bin/stoker-cluster" . \
			-ldflags "-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=36"
	fi
	[ -e "$bin/kubectl" ] || ln -s stoker-cluster "$bin/kubectl"
	if newer "$bin/busy-server" tests/cluster/busyserver '-not -name *_test.go'; then
		CGO_ENABLED=0
		export CGO_ENABLED
		step busy-server build_go "$bin/busy-server" ./busyserver -ldflags '-s -w'
		unset CGO_ENABLED
	fi
}

setup_chart() {
	setup_packages
	need go 'see https://go.dev/dl'
	mkdir -p "$bin"
	if [ ! -x "$bin/helm" ] || [ "$(cat "$bin/.helm-version" 2>/dev/null)" != "$helm" ]; then
		minor=${kubernetes#v1.}
		capabilities=helm.sh/helm/v3/pkg/chartutil
		step "helm $helm (1 to 2 min)" env GOBIN="$bin" go install -ldflags "-s -w \
			-X helm.sh/helm/v3/internal/version.version=$helm \
			-X $capabilities.k8sVersionMajor=1 -X $capabilities.k8sVersionMinor=${minor%.*}" \
			helm.sh/helm/v3/cmd/helm@"$helm"
		echo "$helm" >"$bin/.helm-version"
	fi
}

[ $# -gt 0 ] || set -- all
for part in "$@"; do
	case $part in
	packages) setup_packages ;;
	rust) setup_rust ;;
	cluster) setup_cluster ;;
	chart) setup_chart ;;
	cargo-component) cargo_tool cargo-component "$cargo_component" ;;
	cargo-fuzz) cargo_tool cargo-fuzz "$cargo_fuzz" ;;
	cargo-deny) cargo_tool cargo-deny "$cargo_deny" ;;
	arm64) setup_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static ;;
	all)
		setup_rust
		setup_cluster
		setup_chart
		cargo_tool cargo-component "$cargo_component"
		cargo_tool cargo-fuzz "$cargo_fuzz"
		;;
	*)
		echo "usage: $0 [all|packages|rust|cluster|chart|cargo-component|cargo-fuzz]..." >&2
		exit 2
		;;
	esac
done
