#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The integration tests as if on older kernels (tests/support/as-kernel.c), and a table of it at the end: test x profile. 0 if all passed, or said why
# they cannot run there. What a test printed is in OUT/PROFILE-TEST.log; how it went, and in how many seconds, in OUT/results, where the later of two
# lines counts: what is run again, or in parts, comes into the same table.
#
# usage: kernels.sh BUILD-FOLDER OUT [PROFILE...]   without PROFILEs all, anew
#
#   DROPPABLE_KERNEL_TESTS   "region fork ...", in the place of those that are worth it
set -euo pipefail

build=$(realpath "${1:?usage: kernels.sh BUILD-FOLDER OUT [PROFILE...]}")
out=${2:?usage: kernels.sh BUILD-FOLDER OUT [PROFILE...]}
shift 2

# Each version is the first of vendors' kernels that has what the one before lacks: 5.4 a private tmpfs, pidfds and PSI; 5.10 locked segments and io_uring
# with fallocate(2); 5.15 MADV_POPULATE_WRITE and userfaultfds for user mode; 6.1 write-protect mode on shared memory; 6.6 tmpfs with noswap;
# 6.12 MAP_DROPPABLE. 4.18 and 4.19 are as 4.14, and what comes after 6.12 is nothing of ours. Then what may be missing by configuration.
PROFILES=(4.14 5.4 5.10 5.15 6.1 6.6 6.12 4.19-userfaultfd 5.15-io_uring-psi 6.1-mounts 6.12-userfaultfd-io_uring 6.1-docker)
# How memory is had, lost, dropped and seen: on each.
MEANS=(region mapping pieces fork fork-options backends asked native native-claims probe lost volatile shared shared-lost signal shared-signal noswap secrets refill)
# What the service allows, counts and says, which is the same whatever its means: on those that have least of them, each in its way. Preload is one of
# them because it takes the longest.
RULES=(preload domains control state-page lending permissions container quotas reload)
# Likewise: what clients that mean harm, or a service that dies, may do.
HARM=(hostile shared-hostile descriptors handover comeback crash one-page)
LEAST=' 4.14 5.10 6.1-mounts 6.12-userfaultfd-io_uring 6.1-docker '
# Not here: tests about time, and those that speak of one means at length.

tests_of() { # PROFILE
    if [[ -n ${DROPPABLE_KERNEL_TESTS:-} ]]; then
        echo "$DROPPABLE_KERNEL_TESTS"
    elif [[ $LEAST == *" $1 "* ]]; then
        echo "${MEANS[*]} ${RULES[*]} ${HARM[*]}"
    else
        echo "${MEANS[*]}"
    fi
}

word_of() { # STATUS
    case $1 in
    0) echo ok ;;
    77) echo skipped ;;
    124 | 137) echo "TIMED OUT" ;;
    *) echo FAILED ;;
    esac
}

run_test() { # PROFILE TEST
    local log=$out/$1-$2.log start=$SECONDS status=0 word
    timeout -k 10 600 "$build/tests/support/as-kernel" "$1" -- "$build/tests/integration/test-$2" >"$log" 2>&1 </dev/null || status=$?
    word=$(word_of $status)
    printf '%s\t%s\t%s\t%d\n' "$1" "$2" "$word" $((SECONDS - start)) >>"$out/results"
    printf '    %-26s %-12s %-9s %4d s\n' "$1" "$2" "$word" $((SECONDS - start))
}

# 1 if one failed.
print_table() {
    awk -F'\t' -v order="${PROFILES[*]}" -v rows_order="${MEANS[*]} ${RULES[*]} ${HARM[*]}" '
        # Those of them that are in the list, then what is not.
        function arrange(order, there, ret,    all, n_all, i, n, item, known) {
            n_all = split(order, all, " ")
            for (i = 1; i <= n_all; i++) {
                known[all[i]] = 1
                if (all[i] in there)
                    ret[++n] = all[i]
            }
            for (item in there)
                if (!(item in known))
                    ret[++n] = item
            return n
        }
        { word[$1, $2] = $3; time[$1, $2] = $4; seen[$1] = 1; tests[$2] = 1 }
        END {
            n = arrange(order, seen, profiles)
            n_rows = arrange(rows_order, tests, rows)
            line = "| test |"; rule = "| --- |"; sums = "| seconds |"
            for (p = 1; p <= n; p++) {
                line = line " " profiles[p] " |"
                rule = rule " --- |"
                sum = 0
                for (i = 1; i <= n_rows; i++)
                    sum += time[profiles[p], rows[i]]
                sums = sums " " sum " |"
            }
            print line "\n" rule
            for (i = 1; i <= n_rows; i++) {
                line = "| " rows[i] " |"
                for (p = 1; p <= n; p++) {
                    cell = word[profiles[p], rows[i]]
                    failed = failed || cell == "FAILED" || cell == "TIMED OUT"
                    line = line " " (cell == "" ? "–" : cell) " |"
                }
                print line
            }
            print sums
            exit failed
        }' "$out/results"
}

mkdir -p "$out"
export DROPPABLE_TEST_BINDIR=$build/bin DROPPABLE_TEST_SOURCEDIR
DROPPABLE_TEST_SOURCEDIR=$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")
if (($# == 0)); then
    set -- "${PROFILES[@]}"
    : >"$out/results"
fi
for profile; do
    for name in $(tests_of "$profile"); do
        run_test "$profile" "$name"
    done
done
if ! print_table | tee "$out/table.md"; then
    echo "==> FAILED: what they printed is in $out"
    exit 1
fi
