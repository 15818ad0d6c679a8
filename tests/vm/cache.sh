#!/bin/bash
# SPDX-License-Identifier: MIT
#
# examples/vm-cache: a QEMU guest whose cache its host drops, once for a budget, and once because a memory cgroup runs short (as root;
# cgroup v1 or v2).
#
# usage: cache.sh BUILD-FOLDER OUT
#
#   DROPPABLE_VM_KERNELS   "6.1 6.12"
set -euo pipefail

# shellcheck source=tests/vm/guests.sh
source "$(dirname "${BASH_SOURCE[0]}")/guests.sh"
bin=${1:?usage: cache.sh BUILD-FOLDER OUT}/bin
out=${2:?usage: cache.sh BUILD-FOLDER OUT}

# What QEMU has for itself lies between 120 and 200 MiB; the rest is for the process that takes memory: 30 to 110 of the cache's 128 MiB are to go.
LIMIT=$((512 << 20))
HOG_MIB=230

scratch=$(mktemp -d)
group=
# shellcheck disable=SC2317 # by the trap
clean_up() {
    rm -rf "$share" "$scratch"
    if [[ -n $group ]]; then
        rmdir "$group"
    fi
}
trap clean_up EXIT

mkdir -p "$out" "$scratch/initrd"/{proc,sys,dev}
cp "$bin/vm-cache-guest" "$scratch/initrd/init"
mknod "$scratch/initrd/dev/console" c 5 1
(cd "$scratch/initrd" && find . | cpio -o -H newc --quiet | gzip -1) >"$scratch/initramfs"

if [[ -d /sys/fs/cgroup/memory ]]; then
    group=/sys/fs/cgroup/memory/droppable-vm-cache-$$ limit=memory.limit_in_bytes
else
    group=/sys/fs/cgroup/droppable-vm-cache-$$ limit=memory.max
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control
fi
mkdir "$group"
echo "$LIMIT" >"$group/$limit"

vm_cache() { # KERNEL-IMAGE ARGUMENT...
    "$bin/droppablectl" run -- "$bin/vm-cache" --kernel "$1" --initrd "$scratch/initramfs" "${@:2}"
}

in_group() { # COMMAND...
    (echo "$BASHPID" >"$group/cgroup.procs" && "$@")
}

# shellcheck disable=SC2317 # by each_kernel
check() { # KERNEL LOG
    local image status=0
    image=$("$here/vmrun.sh" --kernel "$1" --print-kernel)
    {
        echo "== a budget"
        vm_cache "$image" --size 64 || status=1
        echo "== a cgroup that runs short"
        in_group vm_cache "$image" --size 128 --hog "$HOG_MIB" || status=1
    } >"$2" 2>&1
    return $status
}

each_kernel "$out" cache check
conclude "$out"
