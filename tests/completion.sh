#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What bash completion offers.
#
# usage: completion.sh SOURCE-TREE
set -euo pipefail

cd "${1:?usage: completion.sh SOURCE-TREE}"
source client/ctl/droppablectl.bash
source daemon/droppabled.bash
status=0
program=droppablectl

expect() { # WANTED WORD...
    local wanted=$1 got
    shift
    COMP_WORDS=("$program" "$@")
    COMP_CWORD=$#
    "_$program"
    got="${COMPREPLY[*]}"
    if [[ $got != "$wanted" ]]; then
        printf "completion: '%s %s' gives '%s', not '%s'\n" "$program" "$*" "$got" "$wanted"
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
expect "client/ctl/droppablectl.bash" --socket client/ctl/droppablectl.b

program=droppabled
expect "--config --log-level --record --socket --help --usage --version" ""
expect "--record" --config /x --re
expect "notice" --socket /x -l no
expect "daemon/droppabled.bash" -c daemon/droppabled.b
exit $status
