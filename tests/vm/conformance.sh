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

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${1:?usage: conformance.sh BUILD-FOLDER OUT [ARGUMENT...]}
out=${2:?usage: conformance.sh BUILD-FOLDER OUT [ARGUMENT...]}
shift 2

read -ra KERNELS <<<"${DROPPABLE_VM_KERNELS:-6.1 6.12}"
GUEST_TIMEOUT=3600
export VMRUN_PACKAGES="libuv1 liburing2 libcap2 libinih1 libjson-c5 check"

mkdir -p "$out"
share=$(mktemp -d)
trap 'rm -rf "$share"' EXIT

for name in droppabled droppablectl libdroppable-preload.so conformance conformance-compare native-6.18.txt expected-differences; do
    found=$(find "$build" -name "$name" ! -type d -print -quit)
    if [[ -z $found ]]; then
        echo "conformance.sh: there is no $name in $build" >&2
        exit 1
    fi
    cp -L "$found" "$share/"
done

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
    log=$out/$kernel-conformance.log
    echo "==> vm: Linux $kernel, conformance"
    "$here/vmrun.sh" --kernel "$kernel" --mem 2048M --cpus 2 --timeout "$GUEST_TIMEOUT" --share "$share" \
        --accel "${DROPPABLE_VM_ACCEL:-tcg}" --console "$out/$kernel-conformance.console" \
        -- sh compare.sh "$@" >"$log" 2>&1 || failures=$((failures + 1))
    cat "$log"
done
if ((failures > 0)); then
    echo "==> FAILED: on $failures kernel(s); everything is in $out"
    exit 1
fi
