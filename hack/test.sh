#!/usr/bin/env bash
# Runs every check in order, tells how long each took, and ends with the test runners' own counts.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p target/test
began=$SECONDS
times=""

phase() {
  local name=$1 start=$SECONDS code
  shift
  printf '\n== %s\n' "$name"
  "$@" 2>&1 | tee "target/test/$name.log"
  code=${PIPESTATUS[0]}
  times+=$(printf '%-12s %4d s' "$name" $((SECONDS - start)))$'\n'
  if [ "$code" != 0 ]; then
    printf '\n%s\n== %s failed (exit code %s)\n' "$times" "$name" "$code"
    exit 1
  fi
}

phase setup make --no-print-directory setup
phase build make --no-print-directory build
phase lint make --no-print-directory lint
phase generated make --no-print-directory generated
phase unit make --no-print-directory unit
phase policies make --no-print-directory policies-test
phase fuzz make --no-print-directory fuzz
phase cluster make --no-print-directory cluster-up
phase e2e make --no-print-directory e2e
if [ -n "${CI:-}" ]; then
  phase down make --no-print-directory cluster-down
fi

printf '\n== times\n%s%-12s %4d s\n\n== counts\n' "$times" total $((SECONDS - began))
grep -hE '^(test result:|ok  )' target/test/{unit,policies,e2e}.log
