#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The conformance suite on Debian's kernels, each in a guest of its own, beside the kernel's own droppable memory where it has some (6.12), else beside
# the recording: 0 if on each of them those lines differ that are expected to, and no others. What it printed is in OUT.
#
# usage: conformance.sh BUILD-FOLDER OUT [ARGUMENT...]     ARGUMENTs are conformance-compare's
#
#   DROPPABLE_VM_KERNELS   "6.1 6.12"
set -euo pipefail

# shellcheck source=tests/vm/guests.sh
source "$(dirname "${BASH_SOURCE[0]}")/guests.sh"
build=${1:?usage: conformance.sh BUILD-FOLDER OUT [ARGUMENT...]}
out=${2:?usage: conformance.sh BUILD-FOLDER OUT [ARGUMENT...]}
shift 2

GUEST_TIMEOUT=3600

mkdir -p "$out"

share_files "$build" droppabled droppablectl libdroppable-preload.so conformance conformance-compare native-6.18.txt \
    expected-differences

# How many lines of how many sections.
sum_up() { # LOG
    awk '/^daemon: [0-9]+ of [0-9]+ lines differ/ { n += $4; differ += $2; explained += $9; sections++ }
         END { printf "%d of %d lines in %d sections differ, of which %d are explained", differ, n, sections, explained }' "$1"
}

# The disk that is shared has no room for a check's files.
cat >"$share/compare.sh" <<'GUEST'
cp -r /mnt /var/tmp/compare
cd /var/tmp/compare
# On an emulated machine a check may take long, and what is done thousands of times is done hundreds of times. A service that does not answer in time
# is no difference, but looks like one: then the library tells.
export CONFORMANCE_SECONDS=600 CONFORMANCE_PART=10 DROPPABLE_DEBUG=1
if [ $# -gt 0 ]; then
    exec ./conformance-compare "$@"
fi
# One after the other, so that it can be seen where a slow guest is.
status=0
for section in $(./conformance --list | cut -d' ' -f1); do
    echo "== $section"
    ./conformance-compare --section "$section" || status=1
done
exit $status
GUEST

# shellcheck disable=SC2317 # by each_kernel
check() { # ARGUMENT... KERNEL LOG
    local arguments=("${@:1:$#-2}") kernel=${*: -2:1} log=${*: -1} status=0
    guest "$kernel" conformance "$out" --mem 2048M -- sh compare.sh "${arguments[@]}" >"$log" 2>&1 || status=1
    said=$(sum_up "$log")
    return $status
}

"$here/vmrun.sh" --prepare
each_kernel "$out" conformance check "$@"
conclude "$out"
