#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The Debian packages, in guests with Debian's kernels: installed, the first client starts the service, installed once more, removed without a trace.
#
# usage: package.sh BUILD-FOLDER OUT
#
#   DROPPABLE_VM_KERNELS   "6.1 6.12"
set -euo pipefail

# shellcheck source=tests/vm/guests.sh
source "$(dirname "${BASH_SOURCE[0]}")/guests.sh"
build=${1:?usage: package.sh BUILD-FOLDER OUT}
out=${2:?usage: package.sh BUILD-FOLDER OUT}

GUEST_TIMEOUT=400
VMRUN_PACKAGES+=" $INSTALLED_PACKAGES" # with all that the packages depend on

mkdir -p "$out"
cp "$build"/*.deb "$share/"
share_files "$build" example-cache
cat >"$share/check.sh" <<'GUEST'
set -e
packages="droppabled droppable-tools libdroppable0 libdroppable-dev libdroppable-preload"
state() { systemctl is-active "$1" || true; }
must() { # WHAT GOT WANTED
    echo "$1: $2"
    [ "$2" = "$3" ] || { echo "wanted: $3"; journalctl -b --no-pager -u droppabled | tail -n 40; exit 1; }
}

echo "install"
dpkg -i ./*.deb >/tmp/dpkg 2>&1 || { cat /tmp/dpkg; exit 1; }
for p in $packages; do dpkg -L "$p"; done | while read -r f; do [ -d "$f" ] || echo "$f"; done >/tmp/files
must "the socket" "$(state droppabled.socket)" active
must "the service, before the first client" "$(state droppabled.service)" inactive
must "the socket at boot" "$(systemctl is-enabled droppabled.socket)" enabled
must "/dev/userfaultfd" "$(stat -c %U /dev/userfaultfd)" droppable
must "the socket's group" "$(stat -c %G /run/droppabled.sock)" droppable

echo "the first client"
useradd --system --groups droppable guest
setpriv --reuid guest --regid guest --init-groups ./example-cache
must "the service, after it" "$(state droppabled.service)" active
setpriv --reuid guest --regid guest --init-groups droppablectl list >/dev/null

echo "install again"
before=$(systemctl show -P MainPID droppabled)
dpkg -i ./*.deb >/tmp/dpkg 2>&1 || { cat /tmp/dpkg; exit 1; }
must "the service, after it" "$(state droppabled.service)" active
after=$(systemctl show -P MainPID droppabled)
[ "$before" != "$after" ] || { echo "the old one still runs"; exit 1; }
setpriv --reuid guest --regid guest --init-groups ./example-cache

echo "remove, and install again"
dpkg -r droppabled >/tmp/dpkg 2>&1 || { cat /tmp/dpkg; exit 1; }
must "the socket" "$(state droppabled.socket)" inactive
must "the service" "$(state droppabled.service)" inactive
dpkg -i droppabled_*.deb >/tmp/dpkg 2>&1 || { cat /tmp/dpkg; exit 1; }
must "the socket" "$(state droppabled.socket)" active

echo "purge"
mkdir -p /etc/droppable
echo "[Daemon]" >/etc/droppable/droppabled.conf
# shellcheck disable=SC2086 # words
dpkg --purge $packages >/tmp/dpkg 2>&1 || { cat /tmp/dpkg; exit 1; }
must "the socket" "$(state droppabled.socket)" inactive
must "the service" "$(state droppabled.service)" inactive
left=$(while read -r f; do [ ! -e "$f" ] || echo "$f"; done </tmp/files
    find / -xdev '(' -path /proc -o -path /sys -o -path /mnt ')' -prune -o -name '*droppable*' -print
    pgrep -l droppabled || true)
must "what is left" "$left" ""
GUEST

# shellcheck disable=SC2317 # by each_kernel
check() { # KERNEL LOG
    guest "$1" package "$out" --init systemd --mem 768M -- sh check.sh >"$2" 2>&1
}

"$here/vmrun.sh" --prepare
each_kernel "$out" package check
conclude "$out"
