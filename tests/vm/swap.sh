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

# shellcheck source=tests/vm/guests.sh
source "$(dirname "${BASH_SOURCE[0]}")/guests.sh"
build=${1:?usage: swap.sh BUILD-FOLDER OUT}
out=${2:?usage: swap.sh BUILD-FOLDER OUT}

GUEST_TIMEOUT=580

mkdir -p "$out"

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

share_files "$build" droppabled droppablectl libdroppable.so.0 libdroppable-preload.so test-swap
"$here/vmrun.sh" --prepare

failed=()
for kernel in "${KERNELS[@]}"; do
    log=$out/$kernel-swap.log
    echo "==> vm: Linux $kernel, swap"
    guest "$kernel" swap "$out" --mem 512M -- sh check.sh >"$log" 2>&1 || failed+=("$kernel")
    cat "$log"
done
if ((${#failed[@]} > 0)); then
    echo "==> FAILED on: ${failed[*]}; everything is in $out"
    exit 1
fi
