#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What bash completion offers.
#
# usage: completion.sh FILE
set -euo pipefail

# shellcheck source=/dev/null
source "${1:?usage: completion.sh FILE}"
status=0

expect() { # WANTED WORD...
    local wanted=$1 got
    shift
    COMP_WORDS=(droppablectl "$@")
    COMP_CWORD=$#
    _droppablectl
    got="${COMPREPLY[*]}"
    if [[ $got != "$wanted" ]]; then
        printf "completion: 'droppablectl %s' gives '%s', not '%s'\n" "$*" "$got" "$wanted"
        status=1
    fi
}

expect "status" st
expect "status" --json st
expect "status list why drop free limit probe run" ""
expect "status" --socket /x st
expect "--region" drop --r
expect "--all" --socket /x drop --a
expect "" list --a
expect "low" limit --region 3 --priority l
expect "infinity" limit --budget i
expect "root" limit --user roo
expect "--quota" limit --user root --q
cd "$(dirname "$1")"
expect "droppablectl.bash" --socket droppablectl.b
exit $status
