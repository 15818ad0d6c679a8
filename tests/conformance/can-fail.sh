#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Plain memory, as the library gives it, must not pass for droppable memory: it has to be found out where it matters most, and by the exit status.
#
# usage: can-fail.sh CONFORMANCE-COMPARE RECORDING
set -euo pipefail

compare=${1:?usage: can-fail.sh CONFORMANCE-COMPARE RECORDING}
recording=${2:?usage: can-fail.sh CONFORMANCE-COMPARE RECORDING}
LINES=(advice.pageout-filled advice.dodump-filled fork.once lock.mlock core.dodump)

status=0
output=$("$compare" --against "$recording" --backend none --section advice --section fork --section lock --section core) || status=$?
if ((status != 1)); then
    printf '%s\n' "$output"
    echo "plain memory: exit status $status, not 1"
    exit 1
fi
for line in "${LINES[@]}"; do
    if ! grep -qx "none $line" <<<"$output"; then
        printf '%s\n' "$output"
        echo "plain memory was not found out by $line"
        exit 1
    fi
done
echo "plain memory was found out"
