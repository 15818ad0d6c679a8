#!/bin/bash
# SPDX-License-Identifier: MIT
#
# examples/vm-cache: a QEMU guest whose cache its host drops, once for a budget, and once because a memory cgroup runs short (as root;
# cgroup v1 or v2).
#
# usage: cache.sh BUILD-FOLDER
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${1:?usage: cache.sh BUILD-FOLDER}/bin

# What QEMU has for itself lies between 120 and 200 MiB; the rest is for the process that takes memory: 30 to 110 of the cache's 128 MiB are to go.
LIMIT=$((512 << 20))
HOG_MIB=230

kernel=$("$here/vmrun.sh" --print-kernel)
scratch=$(mktemp -d)
group=
# shellcheck disable=SC2317 # by the trap
clean_up() {
    rm -rf "$scratch"
    if [[ -n $group ]]; then
        rmdir "$group"
    fi
}
trap clean_up EXIT

mkdir -p "$scratch/initrd"/{proc,sys,dev}
cp "$bin/vm-cache-guest" "$scratch/initrd/init"
mknod "$scratch/initrd/dev/console" c 5 1
(cd "$scratch/initrd" && find . | cpio -o -H newc --quiet | gzip -1) >"$scratch/initramfs"

vm_cache() { # ARGUMENT...
    "$bin/droppablectl" run -- "$bin/vm-cache" --kernel "$kernel" --initrd "$scratch/initramfs" "$@"
}

echo "== a budget"
vm_cache --size 64

echo "== a cgroup that runs short"
if [[ -d /sys/fs/cgroup/memory ]]; then
    group=/sys/fs/cgroup/memory/droppable-vm-cache-$$ limit=memory.limit_in_bytes
else
    group=/sys/fs/cgroup/droppable-vm-cache-$$ limit=memory.max
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control
fi
mkdir "$group"
echo "$LIMIT" >"$group/$limit"
(
    echo "$BASHPID" >"$group/cgroup.procs"
    vm_cache --size 128 --hog "$HOG_MIB"
)
