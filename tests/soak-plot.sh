#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Draws what test-soak wrote: FOLDER/samples.tsv becomes FOLDER/soak.svg, its JSON line in FOLDER/log becomes FOLDER/figures.json.
#
# usage: soak-plot.sh FOLDER
set -euo pipefail

folder=${1:?usage: soak-plot.sh FOLDER}

grep -m 1 '^{' "$folder/log" >"$folder/figures.json" || echo "soak: no figures, it did not come to its end"
gnuplot <<GNUPLOT
set terminal svg size 1000,800 font 'sans,12'
set output '$folder/soak.svg'
set datafile separator '\t'
set key outside top center horizontal
set xlabel 'minutes'
set grid
set multiplot layout 3,1
set ylabel 'KiB'
set yrange [0:*]
plot '$folder/samples.tsv' skip 1 using (\$1/60):4 with lines linecolor rgb '#1b9e77' title 'resident', \
     '' skip 1 using (\$1/60):5 with lines linecolor rgb '#e6ab02' title 'anonymous', \
     '' skip 1 using (\$9 == 1 ? \$1/60 : NaN):5 with points pointtype 7 pointsize 0.5 linecolor rgb '#444444' title 'without clients'
set ylabel 'descriptors'
plot '$folder/samples.tsv' skip 1 using (\$1/60):6 with lines linecolor rgb '#8c6bb1' title 'in all tables', \
     '' skip 1 using (\$9 == 1 ? \$1/60 : NaN):6 with points pointtype 7 pointsize 0.5 linecolor rgb '#444444' title 'without clients'
set ylabel 'MiB, services'
plot '$folder/samples.tsv' skip 1 using (\$1/60):8 with lines linecolor rgb '#a6761d' title "the clients' cgroup", \
     '' skip 1 using (\$1/60):2 with steps linecolor rgb '#444444' title 'services so far'
unset multiplot
GNUPLOT
echo "soak: $folder/soak.svg"
