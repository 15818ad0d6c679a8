#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The library exports what droppable.h declares, in the version script's words, and nothing else.
#
# usage: exports.sh SOURCE-TREE LIBRARY [NM]
set -euo pipefail

source_tree=${1:?usage: exports.sh SOURCE-TREE LIBRARY [NM]}
library=${2:?usage: exports.sh SOURCE-TREE LIBRARY [NM]}
nm=${3:-nm}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export LC_ALL=C

# Comments go first, so that functions named in them do not count.
sed -e 's@//.*@@' -e 's@/\*.*\*/@@g' -e '/\/\*/,/\*\//d' "$source_tree/include/droppable/droppable.h" |
    grep -oE '\bdrp_[a-z_]+\(' | tr -d '(' | sort -u >"$scratch/header"
grep -oE '^[[:space:]]*drp_[a-z_]+;' "$source_tree/client/libdroppable.map" | tr -d '; \t' | sort >"$scratch/map"
"$nm" -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | sed 's/@.*//' | sort >"$scratch/library"

if [[ ! -s $scratch/header ]]; then
    echo "exports: no function found in droppable.h: this check is broken"
    exit 1
fi
status=0
diff -u --label droppable.h "$scratch/header" --label libdroppable.map "$scratch/map" || status=1
diff -u --label droppable.h "$scratch/header" --label "exported symbols" "$scratch/library" || status=1
if ((status == 0)); then
    echo "exports: $(wc -l <"$scratch/header") functions, declared, listed and exported"
fi
exit $status
