#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Everything that is judged in guests, on each of Debian's kernels, and a table of it at the end: kernel x check. What the checks print is in OUT/*.log. 0 if
# none failed. Pressure is run once for each row; pressure.sh alone runs it as often as its bars say, and has rows that are figures only.
#
# usage: matrix.sh BUILD-FOLDER OUT PACKAGE-FOLDER   everything: two hours
#        matrix.sh BUILD-FOLDER OUT                  a minute or two: on the older kernel the service is installed, and started by its socket
#
#   DROPPABLE_VM_KERNELS   "6.1 6.12"
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${1:?usage: matrix.sh BUILD-FOLDER OUT [PACKAGE-FOLDER]}
out=${2:?usage: matrix.sh BUILD-FOLDER OUT [PACKAGE-FOLDER]}
packages=${3:-}
PRESSURE=(machine native memory.high control hog crowd gate overreaction stall reading cold priority)

# What fails has noted it; a script that ended before it could is seen by its status.
part() { # SCRIPT FOLDER ARGUMENT...
    local script=$1 folder=$2 log=$out/$1.log start=$SECONDS
    shift 2
    echo "==> vm: $script"
    if "$here/$script.sh" "$folder" "$out" "$@" >"$log" 2>&1; then
        echo "    ok, $((SECONDS - start)) s"
    else
        echo "    FAILED, $((SECONDS - start)) s: $log"
        tail -n 20 "$log"
        failed=yes
    fi
}

mkdir -p "$out"
: >"$out/results"
failed=
if [[ -z $packages ]]; then
    export DROPPABLE_VM_KERNELS=${DROPPABLE_VM_KERNELS:-6.1}
    GUEST_TIMEOUT=400 part systemd "$build" start
else
    part systemd "$build"
    part package "$packages"
    part swap "$build"
    part cache "$build"
    DROPPABLE_BAR_RUNS=${DROPPABLE_BAR_RUNS:-1} part pressure "$build" "${PRESSURE[@]}"
    part tests "$build"
    part conformance "$build"
fi
echo
"$here/table.sh" "$out" || failed=yes
[[ -z $failed ]]
