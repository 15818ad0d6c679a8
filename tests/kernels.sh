#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The integration tests as if on older kernels (tests/support/as-kernel.c): profile x test. 0 if all passed, or said why they cannot run there. What a
# test printed is in OUT.
#
# usage: kernels.sh BUILD-FOLDER OUT [PROFILE...]
#
#   DROPPABLE_KERNEL_TESTS   "region fork ..."
set -euo pipefail

build=$(realpath "${1:?usage: kernels.sh BUILD-FOLDER OUT [PROFILE...]}")
out=${2:?usage: kernels.sh BUILD-FOLDER OUT [PROFILE...]}
shift 2
if (($# == 0)); then
    # Of vendors' kernels; 6.18 hides nothing that matters here; then what may be missing by configuration.
    set -- 4.14 4.18-psi 4.19 5.4 5.10 5.15 6.1 6.6 6.12 6.18 4.19-userfaultfd 5.15-io_uring-psi 6.1-mounts 6.12-userfaultfd-io_uring
fi
# Without those that are about time, or speak of one mechanism at length.
read -ra tests <<<"${DROPPABLE_KERNEL_TESTS:-region mapping pieces fork backends native probe lost volatile shared signal preload noswap secrets
    refill domains control state-page lending permissions container quotas reload}"

mkdir -p "$out"
export DROPPABLE_TEST_BINDIR=$build/bin DROPPABLE_TEST_SOURCEDIR
DROPPABLE_TEST_SOURCEDIR=$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")

word_of() { # STATUS
    case $1 in
    0) echo ok ;;
    77) echo skipped ;;
    124 | 137) echo "TIMED OUT" ;;
    *) echo FAILED ;;
    esac
}

{
    printf '| test |'
    printf ' %s |' "$@"
    printf '\n| --- |'
    printf ' --- |%.0s' "$@"
    printf '\n'
} | tee "$out/table.md"
for test in "${tests[@]}"; do
    printf '| %s |' "$test"
    for profile; do
        status=0
        timeout -k 10 300 "$build/tests/support/as-kernel" "$profile" -- "$build/tests/integration/test-$test" \
            >"$out/$profile-$test.log" 2>&1 </dev/null || status=$?
        printf ' %s |' "$(word_of $status)"
    done
    printf '\n'
done | tee -a "$out/table.md"
if grep -qE 'FAILED|TIMED' "$out/table.md"; then
    echo "==> FAILED: what they printed is in $out"
    exit 1
fi
