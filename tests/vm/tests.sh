#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Tests that ctest runs, on Debian's kernels: those of what clients may rely on, also when the service dies, and of who may do what. 0 if all passed, or said
# why they cannot run there. What a test printed is in OUT. Not here: speed and fairness, chance (soak, races, attacks), failing system calls, crash points
# (systemd.sh has them).
#
# usage: tests.sh BUILD-FOLDER OUT [TEST...]   with TESTs, all of them in one guest
#
#   DROPPABLE_VM_KERNELS   "6.1 6.12"
set -euo pipefail

# shellcheck source=tests/vm/guests.sh
source "$(dirname "${BASH_SOURCE[0]}")/guests.sh"
build=${1:?usage: tests.sh BUILD-FOLDER OUT [TEST...]}
out=${2:?usage: tests.sh BUILD-FOLDER OUT [TEST...]}
shift 2

# Each line is a guest. A test takes eight times what it takes on its host, one that mostly waits less.
GUESTS=(
    "test-region test-fork test-signal test-secrets test-preload"
    "test-crash test-comeback test-handover test-supervised test-control test-reload test-lost"
    "test-shared test-shared-storm test-shared-lost test-permissions test-container test-lending test-noswap test-quotas test-probe test-pins"
    "test-mapping test-pieces test-volatile test-refill test-descriptors test-one-page test-state-page test-fork-options test-shared-signal"
    "test-backends test-asked test-native test-domains test-commitments test-hostile"
)
GUEST_TIMEOUT=1400
if (($# > 0)); then
    GUESTS=("$*")
fi

mkdir -p "$out"
share_files "$build" droppabled droppablectl libdroppable.so.0 libdroppable-preload.so
for row in "${GUESTS[@]}"; do
    read -ra tests <<<"$row"
    share_files "$build" "${tests[@]}"
done

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

run_guest() { # KERNEL TEST...
    local kernel=$1 name=tests-${2#test-} log=$out/$1-tests-${2#test-}.log test word text
    shift
    echo "==> vm: Linux $kernel, $*"
    guest "$kernel" "$name" "$out" --mem 2048M -- sh tests.sh "$@" >"$log" 2>&1 || true # what it noted tells
    for test; do
        read -r word text < <(verdict "$log" "$test")
        echo "    $test: $word${text:+, $text}"
        note_result "$out" "$kernel" "$test" "$word" "$text"
    done
}

for kernel in "${KERNELS[@]}"; do
    for row in "${GUESTS[@]}"; do
        read -ra tests <<<"$row"
        run_guest "$kernel" "${tests[@]}"
    done
done
conclude "$out"
