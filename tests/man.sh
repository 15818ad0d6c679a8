#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The manual pages: well-formed, and true. What a program's --help names is in its page, and nothing else is; libdroppable(3) has every
# function that the library exports.
#
# usage: man.sh SOURCE-TREE FOLDER-OF-PAGES FOLDER-OF-PROGRAMS
set -euo pipefail

source_tree=${1:?usage: man.sh SOURCE-TREE FOLDER-OF-PAGES FOLDER-OF-PROGRAMS}
pages=${2:?usage: man.sh SOURCE-TREE FOLDER-OF-PAGES FOLDER-OF-PROGRAMS}
programs=${3:?usage: man.sh SOURCE-TREE FOLDER-OF-PAGES FOLDER-OF-PROGRAMS}
export LC_ALL=C
status=0

if ! command -v mandoc >/dev/null; then
    echo "man: mandoc is not installed"
    exit 77
fi

# Dates would differ from build to build, and a long line is no mistake.
for page in "$pages"/*.[1-8]; do
    if mandoc -T lint -W warning "$page" | grep -v 'missing date'; then
        status=1
    fi
done

options() {
    grep -oE -e '--[a-z][a-z-]+' | sort -u
}
text_of() { # PAGE
    mandoc -T ascii "$1" | col -b
}
# usage and version are in every program; `--cap' and the like are of other programs.
for pair in droppabled.8 droppablectl.1; do
    program=${pair%.*}
    diff -u --label "$program --help" <("$programs/$program" --help | options | grep -vE '^--(help|usage|version)$') \
        --label "$pair" <(text_of "$pages/$pair" | options | grep -vE '^--(help|usage|version)$') || status=1
done
diff -u --label libdroppable.map <(grep -oE '^[[:space:]]*drp_[a-z_]+;' "$source_tree/client/libdroppable.map" | tr -d '; \t' | sort) \
    --label "libdroppable.3" <(grep -E '^[a-z][^(]*[ *]drp_[a-z_]+\(.*[;,]$' "$pages/libdroppable.3" |
        sed -E 's/^[^(]*[ *](drp_[a-z_]+)\(.*/\1/' | sort -u) || status=1

# Completion offers what there is.
diff -u --label "droppablectl --help" <("$programs/droppablectl" --help | options) \
    --label completion <(options <"$source_tree/client/ctl/droppablectl.bash") || status=1
exit $status
