#!/bin/bash
# SPDX-License-Identifier: MIT
#
# No swap and no core dump, on Debian's kernels: each in a guest with 512 MiB and a swap file of 1 GiB, which everything is pushed into; with a
# service of the test's own, and with the installed one. What is searched for in the swap file's bytes, test-swap.c tells. 0 if nothing of a region
# was found, and all that should be.
#
# usage: swap.sh BUILD-FOLDER OUT [CHECK...]     CHECKs: swap, unit
#
#   DROPPABLE_VM_KERNELS   "6.1 6.12"
set -euo pipefail

# shellcheck source=tests/vm/guests.sh
source "$(dirname "${BASH_SOURCE[0]}")/guests.sh"
build=${1:?usage: swap.sh BUILD-FOLDER OUT [CHECK...]}
out=${2:?usage: swap.sh BUILD-FOLDER OUT [CHECK...]}
shift 2

CHECKS=(swap unit)
GUEST_TIMEOUT=1400

if (($# > 0)); then
    CHECKS=("$@")
fi
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
if [ "$1" = unit ]; then
    mkdir /etc/droppable
    printf '[Pressure]\nMachineReserve=4K\n' >/etc/droppable/droppabled.conf
    sh /mnt/install.sh
    export DROPPABLE_SWAP_UNIT=yes
fi
status=0
./test-swap || status=$?
if [ "$1" = unit ]; then
    droppablectl status
    journalctl -b --no-pager -u droppabled
fi
exit $status
GUEST

share_files "$build" droppabled droppablectl libdroppable.so.0 libdroppable-preload.so test-swap
share_install "$build" "$out"
"$here/vmrun.sh" --prepare

# shellcheck disable=SC2317 # by each_kernel
check() { # CHECK KERNEL LOG
    local status=0
    guest "$2" "swap-$1" "$out" --init systemd --mem 512M -- sh check.sh "$1" >"$3" 2>&1 || status=1
    said=$(grep -oE ' (region|huge|joint|preload) [0-9]+' "$3" | awk '{ sum += $2 } END { print sum + 0 }' || true)
    said+=" pages of regions in the swap file"
    return $status
}

for name in "${CHECKS[@]}"; do
    each_kernel "$out" "swap-$name" check "$name"
done
conclude "$out"
