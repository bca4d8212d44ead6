#!/bin/sh
# Prints RESULTS.md: all policies that decide sizes on all loads of this folder.
set -eu
cd "$(dirname "$0")"
stoker=${STOKER_BIN:-stoker}
cat <<'END'
# All size policies on all loads

Written by `make simulate-results`; a test compares it. The pool is `web.yaml`: `idleTarget` 3, and a surplus must last two
minutes. Half of the pods start within 20 s, 99 of a hundred within a minute. `above best` is in pod-hours, beside what
hindsight would have needed to serve every request at once; who serves fewer at once may cost less. The signal of `queue-depth`
is how many requests wait: it comes late for those, and is for what follows.

END
"$stoker" simulate -f web.yaml -o markdown \
  --load evening.csv --load builds.csv --load batch.csv --load crowd.csv \
  --policy builtin:buffer \
  --policy 'builtin:percent-buffer={"percent": 25}' \
  --policy 'builtin:scheduled-buffer={"windows": [{"start": "0 9 * * 1-5", "duration": "9h", "idleTarget": 8}, {"start": "0 18 * * *", "duration": "6h", "idleTarget": 6}]}' \
  --policy 'builtin:expression={"desired": "busy + max(idleTarget, int(busy * 0.5))"}' \
  --policy builtin:queue-depth \
  --policy 'builtin:predictive={"season": "day"}' \
  --policy 'builtin:predictive={"season": "week"}'
