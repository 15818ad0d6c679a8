#!/bin/bash
# SPDX-License-Identifier: MIT
#
# README.md shows examples as they are: the code block after each marker "<!-- example: FILE -->" equals the file.
# With --update, writes the files into README.md instead of complaining.
#
# usage: readme-example.sh [--update] SOURCE-TREE
set -euo pipefail

update=no
if [[ ${1:-} == --update ]]; then
    update=yes
    shift
fi
cd "${1:?usage: readme-example.sh [--update] SOURCE-TREE}"
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT

# README.md as it should be.
awk '
    /^<!-- example: .* -->$/ {
        file = $0
        sub(/^<!-- example: /, "", file)
        sub(/ -->$/, "", file)
        print
        markers++
        if ((getline line) <= 0 || line !~ /^```/) {
            print "README.md: no code block after the marker of " file > "/dev/stderr"
            exit 2
        }
        print line
        status = -1
        while ((status = (getline line < file)) > 0)
            print line
        if (status < 0) {
            print "README.md shows " file ", which does not exist" > "/dev/stderr"
            exit 2
        }
        close(file)
        while ((getline line) > 0 && line !~ /^```$/)
            ;
        print "```"
        next
    }
    { print }
    END {
        if (!markers) {
            print "README.md: no marker <!-- example: FILE -->" > "/dev/stderr"
            exit 2
        }
    }' README.md >"$fresh"

if cmp -s "$fresh" README.md; then
    echo "readme-example: ok"
elif [[ $update == yes ]]; then
    cat "$fresh" >README.md
    echo "readme-example: README.md updated"
else
    diff -u --label README.md README.md --label "README.md with the examples as they are" "$fresh" || true
    echo "readme-example: README.md shows an old example; run tests/readme-example.sh --update ."
    exit 1
fi
