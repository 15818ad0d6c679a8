#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Prints what the tests of a coverage build executed of protocol/ and daemon/, per file and in all, and fails below the bar. Beside:
# report/index.html, which shows each line, and report.json.
#
# usage: coverage.sh BUILD-FOLDER
#
# What does not count:
#   crash-point.c, and the way into it at each CRASH_POINT()   is not in what is shipped, and its process is killed before it can count
#   throw, unreachable branches                               gcc's own; no line of ours decides there
# A process that is killed -9 counts nothing of what it did since its last exit: crash tests show only in what comes after.
set -euo pipefail

readonly LINES_BAR=90 BRANCHES_BAR=75

source=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
mkdir -p "$build/report"

gcovr --root "$source" --object-directory "$build" -j "$(nproc)" \
    --filter "$source/protocol/" --filter "$source/daemon/" --exclude "$source/daemon/crash-point\.c" \
    --exclude-throw-branches --exclude-unreachable-branches --exclude-branches-by-pattern '.*CRASH_POINT\(.*' \
    --csv "$build/report.csv" --json "$build/report.json" --html-details "$build/report/index.html" \
    "$build/protocol" "$build/daemon" "$build/tests"

awk -F, -v lines_bar="$LINES_BAR" -v branches_bar="$BRANCHES_BAR" '
    function percent(part, whole) { return whole > 0 ? 100 * part / whole : 100 }
    function row(name, l, lc, b, bc) {
        printf "%-36s %6d %6.1f %%  %6d %6.1f %%\n", name, l, percent(lc, l), b, percent(bc, b)
    }
    NR == 1 { printf "%-36s %6s %8s  %6s %8s\n", "", "lines", "", "branches", ""; next }
    {
        folder = $1
        sub(/\/.*/, "/", folder)
        l[folder] += $2; lc[folder] += $3; b[folder] += $5; bc[folder] += $6
        row($1, $2, $3, $5, $6)
    }
    END {
        for (folder in l) {
            row(folder, l[folder], lc[folder], b[folder], bc[folder])
            if (percent(lc[folder], l[folder]) < lines_bar || percent(bc[folder], b[folder]) < branches_bar)
                low = low " " folder
            n++
        }
        if (n != 2) { print "coverage: FAILED: nothing was counted of protocol/ or daemon/"; exit 1 }
        if (low) { printf "coverage: FAILED: below %d %% of lines or %d %% of branches:%s\n", lines_bar, branches_bar, low; exit 1 }
        printf "coverage: ok, at least %d %% of lines and %d %% of branches\n", lines_bar, branches_bar
    }' "$build/report.csv"
