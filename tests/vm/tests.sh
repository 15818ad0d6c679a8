#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Integration tests on Debian's kernels, each kernel in a guest of its own: 0 if all passed, or said why they cannot run there.
# What a test printed is in OUT.
#
# usage: tests.sh BUILD-FOLDER OUT [TEST...]
#
#   DROPPABLE_VM_KERNELS   "6.1 6.12"
set -euo pipefail

# shellcheck source=tests/vm/guests.sh
source "$(dirname "${BASH_SOURCE[0]}")/guests.sh"
build=${1:?usage: tests.sh BUILD-FOLDER OUT [TEST...]}
out=${2:?usage: tests.sh BUILD-FOLDER OUT [TEST...]}
shift 2
if (($# == 0)); then
    set -- test-region test-fork test-signal test-secrets test-preload
fi

GUEST_TIMEOUT=1400

mkdir -p "$out"
share_files "$build" droppabled droppablectl libdroppable.so.0 libdroppable-preload.so "$@"

cat >"$share/tests.sh" <<'GUEST'
cp -r /mnt /var/tmp/tests
cd /var/tmp/tests
export LD_LIBRARY_PATH=$PWD DROPPABLE_TEST_BINDIR=$PWD CK_TIMEOUT_MULTIPLIER=10
for test; do
    echo "== $test"
    began=$(date +%s) status=0
    timeout -k 10 600 "./$test" || status=$?
    echo "@ $test $status $(($(date +%s) - began))"
done
GUEST

"$here/vmrun.sh" --prepare

# "RESULT", and what there is to be said.
verdict() { # LOG TEST
    local status seconds
    read -r status seconds < <(sed -n "s/^@ $2 //p" "$1") || true
    case ${status:-} in
    0) echo "ok $seconds s" ;;
    77) echo "skipped" ;;
    124 | 137) echo "FAILED timed out" ;;
    '') echo "FAILED not reached" ;;
    *) echo "FAILED status $status" ;;
    esac
}

for kernel in "${KERNELS[@]}"; do
    log=$out/$kernel-tests.log
    echo "==> vm: Linux $kernel, tests"
    guest "$kernel" tests "$out" --mem 2048M -- sh tests.sh "$@" >"$log" 2>&1 || true # what it noted tells
    for test; do
        read -r word text < <(verdict "$log" "$test")
        echo "    $test: $word${text:+, $text}"
        note_result "$out" "$kernel" "$test" "$word" "$text"
    done
done
conclude "$out"
