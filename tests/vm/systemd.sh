#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The service under systemd, in guests with Debian's kernels: `cmake --install`, `systemctl enable --now droppabled.socket`, and test-systemd.
#
# usage: systemd.sh BUILD-FOLDER OUT
#
#   DROPPABLE_VM_KERNELS   "6.1 6.12"
set -euo pipefail

# shellcheck source=tests/vm/guests.sh
source "$(dirname "${BASH_SOURCE[0]}")/guests.sh"
build=${1:?usage: systemd.sh BUILD-FOLDER OUT}
out=${2:?usage: systemd.sh BUILD-FOLDER OUT}

GUEST_TIMEOUT=580
EXPOSURE=2.5
# Not those of pressure.sh: udev and what comes with it would change its memory.
VMRUN_PACKAGES+=" udev"

mkdir -p "$out"

DESTDIR=$share/install cmake --install "$build" >"$out/install.log"
cp "$(find "$build" -name test-systemd -type f -print -quit)" "$share/"
cat >"$share/check.sh" <<'GUEST'
set -e
cp -a /mnt/install/. /
ldconfig
systemd-sysusers
udevadm control --reload
udevadm trigger --settle --name-match=userfaultfd
systemctl daemon-reload
systemd-analyze verify droppabled.service droppabled.socket droppable.slice 2>&1 | sed 's/^/verify: /'
systemctl enable --now droppabled.socket
systemd-analyze security --no-pager --threshold="$1" droppabled.service >/tmp/security || { cat /tmp/security; exit 1; }
tail -n 1 /tmp/security
status=0
CK_FORK=no ./test-systemd || status=$?
droppablectl status || true
if [ $status -ne 0 ]; then journalctl -b --no-pager -u droppabled -u droppabled.socket | tail -n 60; fi
exit $status
GUEST

failures=0
"$here/vmrun.sh" --prepare
for kernel in "${KERNELS[@]}"; do
    echo "==> vm: Linux $kernel, systemd"
    guest "$kernel" systemd "$out" --init systemd --mem 768M -- sh check.sh "${EXPOSURE/./}" ||
        failures=$((failures + 1))
done
if ((failures > 0)); then
    echo "==> FAILED on $failures kernel(s); their consoles are in $out"
    exit 1
fi
