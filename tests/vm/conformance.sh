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

# The disk that is shared has no room for a check's files.
cat >"$share/compare.sh" <<'GUEST'
cp -r /mnt /var/tmp/compare
cd /var/tmp/compare
export CONFORMANCE_SECONDS=600 # for a check, on an emulated machine
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

"$here/vmrun.sh" --prepare

failures=0
for kernel in "${KERNELS[@]}"; do
    log=$out/$kernel-conformance.log word=ok
    echo "==> vm: Linux $kernel, conformance"
    guest "$kernel" conformance "$out" --mem 2048M -- sh compare.sh "$@" >"$log" 2>&1 || word=FAILED
    cat "$log"
    note_result "$out" "$kernel" conformance "$word"
    [[ $word == ok ]] || failures=$((failures + 1))
done
if ((failures > 0)); then
    echo "==> FAILED: on $failures kernel(s); everything is in $out"
    exit 1
fi
