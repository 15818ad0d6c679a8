#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Pressure on Debian's kernels, each check in a guest of its own: prints a table of kernel x check, and is 0 if all bars were kept. What
# the checks printed, and the kernels' logs, are in OUT. docs/kernels.md has a table, and tells about the checks.
#
# A guest has two CPUs, no swap, no limit but its memory, and cgroup v2 with the memory controller; the bars of the machine's
# memory are for 512 MiB.
#
# usage: pressure.sh BUILD-FOLDER OUT [CHECK...]
#
#   DROPPABLE_BAR_RUNS     how often, for those that say "of"
#   DROPPABLE_VM_KERNELS   "6.1 6.12"
set -euo pipefail

# shellcheck source=tests/vm/guests.sh
source "$(dirname "${BASH_SOURCE[0]}")/guests.sh"
build=${1:?usage: pressure.sh BUILD-FOLDER OUT [CHECK...]}
out=${2:?usage: pressure.sh BUILD-FOLDER OUT [CHECK...]}
shift 2

# name  guest's memory  program  its case (CK_RUN_CASE)  the disks' requests a second: those of a hard disk, without them nobody stalls
CHECKS=(
    "machine 512M test-machine machine"
    "native 512M test-machine native"
    "hard 512M test-machine hard"
    "memory.high 768M test-machine high"
    "commit 768M test-commit commit"
    "control 768M test-bars-pressure control"
    "hog 768M test-bars-pressure hog"
    "reading 768M test-bars-pressure reading"
    "crowd 768M test-bars-pressure crowd"
    "gate 768M test-bars-pressure gate"
    "overreaction 768M test-bars-fairness overreaction"
    "stall 768M test-bars-fairness stall 300"
    "cold 768M test-bars-fairness cold"
    "priority 768M test-bars-fairness priority"
    "memory 2560M test-bars-cost memory"
    "sampler 768M test-bars-cost sampler"
)
# Their figures are for a real machine: printed, not judged.
LOOSE=(hard memory sampler)
GUEST_TIMEOUT=580

mkdir -p "$out"

# The guest's times are an emulated machine's. The disk that is shared has no room for a test's files.
cat >"$share/check.sh" <<'GUEST'
cp -r /mnt /var/tmp/check
cd /var/tmp/check
export LD_LIBRARY_PATH=$PWD DROPPABLE_TEST_BINDIR=$PWD DROPPABLE_TEST_OWN_MACHINE=yes
export CK_TIMEOUT_MULTIPLIER=10 CK_RUN_CASE=$2 DROPPABLE_BAR_RUNS=$3
exec "./$1"
GUEST

# Is it among the names that were asked for, if there were any?
wanted() { # NAME NAMES...
    local name=$1 other
    shift
    if (($# == 0)); then
        return 0
    fi
    for other; do
        [[ $other != "$name" ]] || return 0
    done
    return 1
}

# What a check says of itself: "skipped" with its reason, "N of M ..." of each row, or how many of its tests failed.
summary_of() { # LOG
    grep -E ': skipped: |^SKIP: |: [0-9]+ of [0-9]+ ' "$1" | grep -v ', run [0-9]' || grep -E '^[0-9]+%: Checks: ' "$1" || echo "see $1"
}

mapfile -t programs < <(printf '%s\n' "${CHECKS[@]}" | awk '{ print $3 }' | sort -u)
share_files "$build" droppabled droppablectl libdroppable.so.0 "${programs[@]}"
"$here/vmrun.sh" --prepare

# shellcheck disable=SC2317,SC2034 # by each_kernel, which has $word and $said
check() { # MEMORY PROGRAM CASE LOOSE IOPS KERNEL LOG
    local log=$7 status=0
    guest "$6" "$name" "$out" --mem "$1" ${5:+--iops "$5"} -- sh check.sh "$2" "$3" "${DROPPABLE_BAR_RUNS:-}" >"$log" 2>&1 || status=1
    said=$(summary_of "$log" | sed 's/\t/ /g' | paste -sd';' | sed 's/;/; /g')
    if { grep -q '^SKIP: ' "$log" && ! grep -qE '^[0-9]+%: Checks: ' "$log"; } || { ((status == 0)) && grep -q ': skipped: ' "$log"; }; then
        word=skipped status=0
    elif ((status != 0)) && [[ $4 == yes ]] && grep -qE '^[0-9]+%: Checks: ' "$log"; then # not where the guest ended
        word=loose status=0
    fi
    return $status
}

for row in "${CHECKS[@]}"; do
    read -r name memory program case iops <<<"$row"
    wanted "$name" "$@" || continue
    loose=no
    if [[ " ${LOOSE[*]} " == *" $name "* ]]; then
        loose=yes
    fi
    each_kernel "$out" "$name" check "$memory" "$program" "$case" "$loose" "$iops"
done
"$here/table.sh" "$out" || true # what failed is counted
conclude "$out"
