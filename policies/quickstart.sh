#!/bin/sh
# Performs the steps of README.md up to the built and simulated components, with the code and the build commands that
# stand there, so that the page cannot be wrong for long.
#
#   policies/quickstart.sh FOLDER     leaves rush-hour-{cargo-component,plain-cargo}.wasm in FOLDER
#
# Needs stoker and cargo-component on the PATH.
set -eu
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
wit=$here/../wit/policy.wit

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# block MARK prints the fenced block of the README that follows the line <!-- MARK -->.
block() {
	awk -v mark="<!-- $1 -->" '
		$0 == mark { wanted = 1; next }
		/^```/ && inside { exit }
		/^```/ && wanted { inside = 1; next }
		inside { print }
	' "$here/README.md" >"$work/block"
	[ -s "$work/block" ] || { echo "quickstart: README.md has no block after <!-- $1 -->" >&2; exit 1; }
	cat "$work/block"
}

# build MARK NAME runs the block of commands and keeps the component. Cargo's target folder is the
# page's own `target`; where the caller has one that lasts, it stands in, to spare a cold build.
build() {
	commands=$(block "$1")
	if [ -n "${CARGO_TARGET_DIR:-}" ]; then
		mkdir -p "$CARGO_TARGET_DIR/$2"
		ln -s "$CARGO_TARGET_DIR/$2" target
	fi
	(unset CARGO_TARGET_DIR && sh -euc "$commands")
	cp "$(echo "$commands" | sed -n 's/^ls -l //p')" "$out/$2.wasm"
}

# as_made NAME tests, builds and tries a policy as `stoker policy new` made it, before a line of it is changed.
as_made() (
	cd "$1"
	cargo test --quiet
	stoker policy build
	file=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
	file=$file/wasm32-unknown-unknown/release/$(echo "$1" | tr - _).wasm
	stoker policy test "$file"
	stoker policy bench "$file" --rounds 10
)

cd "$work"
for decides in busyness warm-up scaling,busyness,warm-up; do
	name=made-$(echo "$decides" | tr , -)
	stoker policy new "$name" --decides "$decides"
	as_made "$name"
done
sh -euc "$(block new)"
as_made rush-hour
cd rush-hour
block 'file: src/lib.rs' >src/lib.rs
rm src/rule.rs
block 'file: cases.yaml' >cases.yaml
build run rush-hour-cargo-component
block 'file: pool.yaml' >pool.yaml
sh -euc "$(block simulate)"

mkdir "$work/plain"
cd "$work/plain"
cargo new --quiet --vcs none --lib rush-hour
cd rush-hour
mkdir wit
cp "$wit" wit/
block 'file: plain/Cargo.toml' >Cargo.toml
block 'file: plain/bindings.rs' >"$work/bindings"
sed -e "/^mod bindings;\$/{
r $work/bindings
d
}" "$work/rush-hour/src/lib.rs" >src/lib.rs
build run-plain rush-hour-plain-cargo
ls -l "$out"
