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
"$bench" --curves "$result" >"$scratch/curves.tsv"
mkdir -p "$directory"

# A line for each row whose name matches: what remains of the name without the prefix, then median, min and max of each
# contender; of p50 and p99 the median alone. Contenders that have nothing in any of the rows are left out; the head names the others.
pivot() { # ROW-REGEX PREFIX [COLUMN]
    awk -F '\t' -v regex="$1" -v prefix="$2" -v column="${3:-median}" '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
        NR > 1 && $1 ~ regex && $at[column] != "NaN" {
            if (!($1 in seen_row)) { seen_row[$1]; rows[++n] = $1 }
            if (!($2 in seen_contender)) { seen_contender[$2]; contenders[++m] = $2 }
            cell[$1, $2] = column == "median" ? $4 "\t" $5 "\t" $6 : $at[column] "\t" $at[column] "\t" $at[column]
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

draw() { # NAME TITLE UNIT log|linear ROW-REGEX PREFIX [COLUMN]
    local data=$scratch/$1.tsv format terminal scale="set yrange [0:*]"
    pivot "${@:5}" >"$data"
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

# Curves of growth, each over its own first point: what stays level costs nothing.
draw_growth() { # NAME TITLE X-LABEL CURVE-REGEX
    local data=$scratch/$1.tsv format terminal count least
    awk -F '\t' -v regex="$4" '
        NR > 1 && $1 ~ regex {
            if ($1 != name) { if (name != "") printf "\n\n"; name = $1; first = $3; printf "\"%s, exponent %.2f\"\n", $1, $4 }
            print $2 "\t" $3 / first
        }' "$scratch/curves.tsv" >"$data"
    count=$(grep -c exponent "$data" || true)
    least=$(grep -v '"' "$data" | cut -f 1 | sort -g | grep -m 1 . || true)
    if ((count == 0)); then
        printf 'plot: nothing to draw in %s\n' "$1"
        return
    fi
    for format in svg png; do
        terminal="svg size 1000,420 font 'sans,12' background 'white'"
        if [[ $format == png ]]; then
            terminal="pngcairo size 1000,420 font 'sans,10'"
        fi
        gnuplot <<PLOT
set terminal $terminal
set output "$directory/$1.$format"
set title "$2"
set xlabel "$3"
set ylabel "times the first point"
set logscale xy
set yrange [0.1:100]
set format x "10^{%L}"
set grid
set key outside right top noenhanced autotitle columnhead
plot for [i=0:$((count - 1))] "$data" index i using 1:2 with linespoints linewidth 2 pointtype 7 pointsize 0.6, \
    x / $least with lines dashtype 2 linecolor rgb '#999999' title "linear"
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
draw latency "A fault that comes alone, while others storm: half of them are faster" "us" log '^latency/' latency/
draw latency-p99 "A fault that comes alone, while others storm: 99 of 100 are faster" "us" log '^latency/' latency/ p99
draw clients "500 faults a second in all, by number of clients: 99 of 100 are faster" "us" log '^clients/' clients/
draw size "Making a region, by its size" "us" log '^size-new/' size-new/
draw size-refill "A fault, by the region's size" "us" log '^size-refill/' size-refill/
draw memory "The service's memory for a region, by its size: made; and a page touched in some or in all spans" "MiB" log \
    '^size-memory/' size-memory/
draw_growth growth-number "Growth with the number of clients, regions, mappings" "number" '^(clients|regions|mappings)-'
draw_growth growth-size "Growth with the size of a region" "bytes" '^size-'
