#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Kernel x check: a table of what the checks noted (note_result() of guests.sh) in OUT/results. The later of two lines counts. 1 if one FAILED.
#
# usage: table.sh OUT
set -euo pipefail

awk -F'\t' '
    function note(list, n, item,    i) {
        for (i = 1; i <= n; i++)
            if (list[i] == item)
                return n
        list[n + 1] = item
        return n + 1
    }
    {
        n_kernels = note(kernels, n_kernels, $1)
        n_checks = note(checks, n_checks, $2)
        result[$1, $2] = $3
        said[$1, $2] = $4
        if (length($2) > width)
            width = length($2)
    }
    END {
        printf "%-" width "s", "check"
        for (k = 1; k <= n_kernels; k++)
            printf "  %-8s", kernels[k]
        print ""
        for (c = 1; c <= n_checks; c++) {
            line = ""
            printf "%-" width "s", checks[c]
            for (k = 1; k <= n_kernels; k++) {
                word = result[kernels[k], checks[c]]
                text = said[kernels[k], checks[c]]
                failed = failed || word == "FAILED"
                printf "  %-8s", word == "" ? "-" : word
                if (text != "")
                    line = line (line == "" ? "" : " | ") kernels[k] ": " text
            }
            print line == "" ? "" : "  " line
        }
        exit failed
    }' "${1:?usage: table.sh OUT}/results"
