#!/bin/bash
# SPDX-License-Identifier: MIT
#
# No swap and no core dump, on Debian's kernels: each in a guest with 512 MiB and a swap file of 1 GiB, which everything is pushed into. What is
# searched for in its bytes, test-swap.c tells. 0 if nothing of a region was found, and all that should be.
#
# usage: swap.sh BUILD-FOLDER OUT
#
#   DROPPABLE_VM_KERNELS   "6.1 6.12"
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${1:?usage: swap.sh BUILD-FOLDER OUT}
out=${2:?usage: swap.sh BUILD-FOLDER OUT}

read -ra KERNELS <<<"${DROPPABLE_VM_KERNELS:-6.1 6.12}"
GUEST_TIMEOUT=580
export VMRUN_PACKAGES="libuv1 liburing2 libcap2 libinih1 libjson-c5 check"

mkdir -p "$out"
share=$(mktemp -d)
trap 'rm -rf "$share"' EXIT

cat >"$share/check.sh" <<'GUEST'
set -e
cp -r /mnt /var/tmp/check
cd /var/tmp/check
dd if=/dev/zero of=/var/tmp/swap bs=1M count=1024 status=none
chmod 600 /var/tmp/swap
mkswap /var/tmp/swap >mkswap.log
swapon /var/tmp/swap
echo 100 >/proc/sys/vm/swappiness
export LD_LIBRARY_PATH=$PWD DROPPABLE_TEST_BINDIR=$PWD DROPPABLE_SWAP_FILE=/var/tmp/swap CK_TIMEOUT_MULTIPLIER=10
exec ./test-swap
GUEST

for name in droppabled droppablectl libdroppable.so.0 libdroppable-preload.so test-swap; do
    found=$(find "$build" -name "$name" ! -type d -print -quit)
    if [[ -z $found ]]; then
        echo "swap.sh: there is no $name in $build" >&2
        exit 1
    fi
    cp -L "$found" "$share/"
done
"$here/vmrun.sh" --prepare

failed=()
for kernel in "${KERNELS[@]}"; do
    log=$out/$kernel-swap.log
    echo "==> vm: Linux $kernel, swap"
    "$here/vmrun.sh" --kernel "$kernel" --mem 512M --cpus 2 --timeout "$GUEST_TIMEOUT" --share "$share" \
        --accel "${DROPPABLE_VM_ACCEL:-tcg}" --console "$out/$kernel-swap.console" -- sh check.sh >"$log" 2>&1 || failed+=("$kernel")
    cat "$log"
done
if ((${#failed[@]} > 0)); then
    echo "==> FAILED on: ${failed[*]}; everything is in $out"
    exit 1
fi
