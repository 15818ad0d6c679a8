#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Whether droppable-bench works, not what it measures: one row of each theme, tiny, and its result file read again in each way
# that it is for. A regression must be seen.
#
# usage: smoke.sh BINARY-DIRECTORY
set -euo pipefail

bin=${1:?usage: smoke.sh BINARY-DIRECTORY}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

bench() {
    "$bin/droppablectl" run -- "$bin/droppable-bench" --tiny --rounds 2 "$@"
}

fail() {
    printf 'smoke: %s\n' "$*" >&2
    exit 1
}

rows='first/seq/4k/1|refill/random/4k/2|steady/4k|pin/1|read/1|drop/2m/4k|drop-busy/2m/4k|create/2m|fork/4k'
rows+='|latency/storm-1|clients/10|join/1|regions-(new|fault)/1|cycle/16|size-(new|first|refill|free)/(64k|16m|1t)'
rows+='|size-memory/1t/.*|cpu/.*|idle/1|memory/.*|reaction/.*|watch/.*|signal/.*'
bench --rows "^($rows)\$" --json "$scratch/result.json"
"$bin/droppable-bench" --curves "$scratch/result.json" >"$scratch/curves.tsv"
(($(grep -c $'^size-free\t[0-9]' "$scratch/curves.tsv") == 3)) || fail "three sizes are no curve of three points"
"$bin/droppable-bench" --tsv "$scratch/result.json" >"$scratch/result.tsv"
grep -q $'^refill/random/4k/2\tlibrary\tus/page\t[0-9]' "$scratch/result.tsv" || fail "no sample of the library in the table"

# Compared with ratios that nobody can have: far worse is no regression, far better is one. A row without a ratio has its value compared.
for ratio in 1000000 0.000001; do
    sed -E 's/"(median|best|min)":[-+.0-9e]+/"\1":'"$ratio"'/g' "$scratch/result.json" >"$scratch/$ratio.json"
done
bench --rows '^(create/2m|memory/region)$' --compare "$scratch/1000000.json" || fail "no regression, and yet one is seen"
for row in create/2m memory/region; do
    status=0
    bench --rows "^$row\$" --compare "$scratch/0.000001.json" || status=$?
    ((status == 1)) || fail "a regression in $row: exit status $status instead of 1"
done

status=0
DROPPABLE_SOCKET=$scratch/nothing "$bin/droppable-bench" --rows '^pin/1$' || status=$?
((status == 3)) || fail "no service: exit status $status instead of 3"
status=0
"$bin/droppable-bench" --rows '^nothing$' || status=$?
((status == 2)) || fail "no row: exit status $status instead of 2"
