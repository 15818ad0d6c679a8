#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Draws a result file: one drawing for each question, as SVG and PNG. Bars are medians of the rounds, whiskers reach from the
# best round to the worst.
#
# usage: plot.sh DROPPABLE-BENCH RESULT.json DIRECTORY
set -euo pipefail

bench=${1:?usage: plot.sh DROPPABLE-BENCH RESULT.json DIRECTORY}
result=${2:?usage: plot.sh DROPPABLE-BENCH RESULT.json DIRECTORY}
directory=${3:?usage: plot.sh DROPPABLE-BENCH RESULT.json DIRECTORY}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$bench" --tsv "$result" >"$scratch/all.tsv"
mkdir -p "$directory"

# A line for each row whose name matches: what remains of the name without the prefix, then median, min and max of each
# contender. Contenders that have nothing in any of the rows are left out; the head names the others.
pivot() { # ROW-REGEX PREFIX
    awk -F '\t' -v regex="$1" -v prefix="$2" '
        NR > 1 && $1 ~ regex && $4 != "NaN" {
            if (!($1 in seen_row)) { seen_row[$1]; rows[++n] = $1 }
            if (!($2 in seen_contender)) { seen_contender[$2]; contenders[++m] = $2 }
            cell[$1, $2] = $4 "\t" $5 "\t" $6
        }
        END {
            if (n == 0) exit
            printf "row"
            for (c = 1; c <= m; c++) printf "\t%s\tmin\tmax", contenders[c]
            printf "\n"
            for (r = 1; r <= n; r++) {
                name = rows[r]
                sub("^" prefix, "", name)
                printf "%s", name
                for (c = 1; c <= m; c++)
                    printf "\t%s", (rows[r], contenders[c]) in cell ? cell[rows[r], contenders[c]] : "NaN\tNaN\tNaN"
                printf "\n"
            }
        }' "$scratch/all.tsv"
}

# The same contender has the same colour everywhere.
declare -A colours=([native]='#444444' [pageout]='#777777' [dontneed]='#a9a9a9' [free]='#d3d3d3' [memfd]='#8c6bb1'
    [textbook]='#e6ab02' [server]='#a6761d' [library]='#1b9e77' [preload]='#7fcdbb' [cas]='#444444' [load]='#444444' [calls]='#444444')

bars() { # TABLE
    local contender column=2 comma=''
    for contender in $(head -n 1 "$1" | cut -f 2- | tr '\t' '\n' | awk 'NR % 3 == 1'); do
        printf '%s"%s" using %d:%d:%d:xtic(1) title columnheader(%d) linecolor rgb "%s"' "$comma" "$1" "$column" $((column + 1)) \
            $((column + 2)) "$column" "${colours[$contender]}"
        column=$((column + 3))
        comma=', '
    done
}

draw() { # NAME TITLE UNIT log|linear ROW-REGEX PREFIX
    local data=$scratch/$1.tsv format terminal scale="set yrange [0:*]"
    pivot "$5" "$6" >"$data"
    if [[ ! -s $data ]]; then
        printf 'plot: nothing to draw in %s\n' "$1"
        return
    fi
    if [[ $4 == log ]]; then
        scale="set logscale y"
    fi
    for format in svg png; do
        terminal="svg size 1000,420 font 'sans,12' background 'white'"
        if [[ $format == png ]]; then
            terminal="pngcairo size 1000,420 font 'sans,10'"
        fi
        gnuplot <<PLOT
set terminal $terminal
set output "$directory/$1.$format"
set datafile separator "\t"
set datafile missing "NaN"
set title "$2"
set ylabel "$3"
$scale
set grid ytics
set key outside right top noenhanced
set xtics noenhanced
set style data histogram
set style histogram errorbars gap 1.5 linewidth 1
set style fill solid 0.9 border -1
set boxwidth 0.9
plot $(bars "$data")
PLOT
    done
}

draw first "First touch of a page, one thread" "us per page" log '^first/.*/4k/1$' first/
draw refill "Touch of a page that was dropped, one thread" "us per page" log '^refill/.*/4k/1$' refill/
draw refill-huge "The same with huge pages" "us per touched page" log '^refill/.*/huge/1$' refill/
draw threads "Touch of a page that was dropped, by number of threads" "us per page" log '^refill/(seq|random)/4k/' refill/
draw steady "Read of memory that is there, random order" "ns" linear '^steady/' steady/
draw pins "Pin and unpin, beside two compare-and-swaps" "ns" linear '^pin/' pin/
draw drop "Throughput of dropping, by size of one drop" "GB/s" log '^drop/' drop/
draw drop-busy "Throughput of dropping while another thread touches the memory" "GB/s" log '^drop-busy/' drop-busy/
draw create "Making and freeing memory" "us" log '^create/' create/
draw fork "fork, exit and wait of a process that has 1 GiB of it" "ms" log '^fork/' fork/
