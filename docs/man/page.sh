#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Makes a manual page of what is documented elsewhere, so that nothing is written twice: of Markdown pages, of the comments in the public
# header, and of those in the configuration file. Needs lowdown.
#
# usage: page.sh NAME SECTION DESCRIPTION SOURCE... >PAGE
set -euo pipefail

usage="usage: page.sh NAME SECTION DESCRIPTION SOURCE... >PAGE"
name=${1:?$usage} section=${2:?$usage} description=${3:?$usage}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
shift 3

markdown() {
    printf '# NAME\n\n%s - %s\n\n' "$name" "$description"
    for source in "$@"; do
        case $source in
        *.md) awk -f "$here/from-markdown.awk" "$source" ;;
        *.h) awk -f "$here/from-header.awk" "$source" ;;
        *.conf) awk -f "$here/from-config.awk" "$source" ;;
        *) echo "page.sh: what is '$source'? (.md, .h, .conf)" >&2 && exit 1 ;;
        esac
    done
}

# mandoc(1) does not know groff's fC, nor a paragraph right after a heading.
markdown "$@" |
    lowdown -s -Tman --parse-no-intraemph --nroff-nolinks --out-no-smarty -m "title=$name" -m "section=$section" \
        -m "source=droppable" |
    sed -e 's/\\fC/\\fB/g' | awk '!(after && /^\.[LP]P$/); { after = /^\.S[HS]/ || (after && after < 2 && !/^\./ ? after + 1 : 0) }'
