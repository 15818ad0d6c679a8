#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The manual pages: well-formed, and true. What a program's --help names is in its page, and nothing else is; libdroppable(3) has every
# function that the library exports. Completion offers what --help names, too: options, and verbs with their own.
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
for source in daemon/droppabled.bash client/ctl/droppablectl.bash; do
    program=$(basename "$source" .bash)
    diff -u --label "$program --help" <("$programs/$program" --help | options) \
        --label completion <(options <"$source_tree/$source") || status=1
done
# "      --pid=P     drop, limit: one process" is an option of two verbs.
verbs_of_help() {
    "$programs/droppablectl" --help | sed -n '/^Verbs:/,/^$/s/^  \([a-z]\+\).*/\1/p' | sort -u
}
verb_options_of_help() {
    "$programs/droppablectl" --help | sed -nE 's/^ +(--?[a-z]+)[= A-Z]* +([a-z]+(, [a-z]+)*):.*/\1 \2/p' | tr -d , |
        while read -r option verbs; do
            # shellcheck disable=SC2086 # words
            printf "%s $option\n" $verbs
        done | sort
}
verb_options_of_completion() {
    # shellcheck source=client/ctl/droppablectl.bash
    source "$source_tree/client/ctl/droppablectl.bash"
    for verb in $(verbs_of_help); do
        # shellcheck disable=SC2046 # words
        printf "$verb %s\n" $(_droppablectl_options "$verb") | grep ' -' || true
    done | sort
}
diff -u --label "droppablectl --help: verbs" <(verbs_of_help) --label completion \
    <(sed -nE 's/^.* verbs="(.*)"$/\1/p' "$source_tree/client/ctl/droppablectl.bash" | tr ' ' '\n' | sort) || status=1
diff -u --label "droppablectl --help: options of verbs" <(verb_options_of_help) --label completion \
    <(verb_options_of_completion) || status=1
exit $status
