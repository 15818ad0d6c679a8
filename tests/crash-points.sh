#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Does a droppabled have crash points in it (daemon/crash-point.h)? By what each of them leaves, a pointer in a section of its own, and what arms them, the
# name of a variable. What is shipped must have neither.
#
# usage: crash-points.sh PROGRAM yes|no [READELF]
set -euo pipefail

program=${1:?usage: crash-points.sh PROGRAM yes|no [READELF]}
wanted=${2:?usage: crash-points.sh PROGRAM yes|no [READELF]}
readelf=${3:-readelf}

bytes=$("$readelf" --wide --section-headers "$program" | sed -nE 's/.* crash_points +[A-Z]+ +[0-9a-f]+ +[0-9a-f]+ +([0-9a-f]+) .*/\1/p')
points=$((16#${bytes:-0} / 8))
variable=no
if grep -q DROPPABLE_CRASH_POINT "$program"; then
    variable=yes
fi
echo "crash points: $points; a variable that arms them: $variable"
case $wanted in
yes) ((points > 0)) && [[ $variable == yes ]] ;;
no) ((points == 0)) && [[ $variable == no ]] ;;
*) exit 2 ;;
esac
