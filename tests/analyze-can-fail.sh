#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Shows that each analyzer of analyze.sh can fail: makes small source trees, a good one and one with a single mistake for each, and expects its
# word about it.
set -euo pipefail

folder=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

for tool in clang-tidy gcc cppcheck pkg-config; do
    if ! command -v "$tool" >/dev/null; then
        echo "SKIP: no $tool here"
        exit 77
    fi
done

mkdir -p "$scratch"/{protocol,daemon,client,examples,bench,include}
cp "$folder/../.clang-tidy" "$scratch/"

good_tree() {
    cat >"$scratch/daemon/x.c" <<'C'
#include <stdlib.h>
#include <string.h>

char *x_copy(const char *text);

char *x_copy(const char *text) {
    char *copy = malloc(strlen(text) + 1);

    if (!copy)
        return NULL;
    return strcpy(copy, text);
}
C
}

expect() { # pass|fail ANALYZER DESCRIPTION [EXPECTED-TEXT]
    local want=$1 analyzer=$2 what=$3 text=${4:-} got=pass output
    output=$("$folder/analyze.sh" "$scratch" "$analyzer" 2>&1) || got=fail
    if [[ $got != "$want" || ($want == fail && $output != *"$text"*) ]]; then
        printf 'FAILED: %s: %s: expected %s%s, got %s:\n%s\n' "$analyzer" "$what" "$want" "${text:+ with \"$text\"}" "$got" "$output"
        failures=$((failures + 1))
    else
        printf 'ok: %s: %s\n' "$analyzer" "$what"
    fi
}

expect_mistake() { # ANALYZER DESCRIPTION SED-SCRIPT EXPECTED-TEXT
    good_tree
    sed -i "$3" "$scratch/daemon/x.c"
    expect fail "$1" "$2" "$4"
}

good_tree
for analyzer in clang-tidy gcc cppcheck; do
    expect pass "$analyzer" 'a tree without a mistake'
done

expect_mistake clang-tidy 'one byte too few' 's/malloc(strlen(text) + 1)/malloc(strlen(text + 1))/' bugprone-misplaced-operator-in-strlen-in-alloc
expect_mistake clang-tidy 'names that differ' 's/^char \*x_copy(.*);/char *x_copy(const char *from);/' readability-inconsistent-declaration-parameter-name
expect_mistake gcc 'malloc() is not asked' 's/if (!copy)/if (!text)/' analyzer-possible-null-argument
expect_mistake gcc 'memory is freed twice' 's/return NULL;/return NULL;\n    if (copy[0]) { free(copy); free(copy); }/' analyzer-double-free
expect_mistake cppcheck 'an array is read beyond its end' 's/return NULL;/return NULL;\n    { char a[2] = {0}; copy[0] = a[2]; }/' arrayIndexOutOfBounds

exit $((failures > 0))
