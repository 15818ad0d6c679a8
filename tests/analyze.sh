#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Static analysis of what is shipped, for `./run lint`, file by file and without a build: what each finds is an error.
#
# usage: analyze.sh SOURCE-FOLDER clang-tidy | gcc | cppcheck
#
# clang-tidy: .clang-tidy says what is off, and why. Its clang also warns of what the preset fuzz would not be built with.
# gcc: -fanalyzer follows paths within a file. Off, of gcc 12's:
#   null-dereference, null-argument, use-of-uninitialized-value   it takes -errno for what may be positive, so that `if (r < 0) return r;` has a
#                                                                 way on; at -O2 gcc itself warns of what is surely uninitialized
# cppcheck: its errors and what it warns of. Off:
#   missingIncludeSystem   it looks at ours only
#   uninitvar              it does not see that LIST_FOREACH() sets its variable; gcc -Wmaybe-uninitialized watches for it
#   ctuuninitvar           the same across functions, which it looks at with one job only: a struct whose members are set one by one
set -euo pipefail

readonly ANALYZER_OFF=(-Wno-analyzer-null-dereference -Wno-analyzer-null-argument -Wno-analyzer-use-of-uninitialized-value)

cd "$1"
# As cmake/DroppableTargets.cmake has them, with the folders of all targets; no two headers of ours have one name.
read -ra flags < <(pkg-config --cflags libuv liburing libcap inih json-c)
flags+=(-std=gnu11 -fno-strict-aliasing -Wall -Wextra -Wformat=2 -D_GNU_SOURCE= '-DDROPPABLE_VERSION="lint"' -DDROPPABLE_CRASH_POINTS
    -Iinclude -Iprotocol -Idaemon -Iclient -Iclient/ctl -Iclient/preload)
jobs=${JOBS:-$(nproc)}

each_file() { # COMMAND..., with {} for the file
    find protocol daemon client -name '*.c' -print0 | xargs -0 -P "$jobs" -I '{}' "$@"
}

case $2 in
clang-tidy)
    each_file clang-tidy --quiet '{}' -- "${flags[@]}" 2> >(grep -v 'warnings\? generated\.$' >&2)
    ;;
gcc) each_file gcc -Werror -fanalyzer "${ANALYZER_OFF[@]}" "${flags[@]}" -c -o /dev/null '{}' ;;
cppcheck)
    cppcheck --quiet --std=c11 --language=c --inline-suppr --enable=warning,performance,portability -j "$jobs" \
        --error-exitcode=1 --suppress=missingIncludeSystem --suppress=uninitvar --suppress=ctuuninitvar \
        -D_GNU_SOURCE -DDROPPABLE_VERSION='"lint"' -Iinclude -Iprotocol protocol client daemon examples bench
    ;;
*)
    echo "analyze: unknown analyzer '$2'" >&2
    exit 2
    ;;
esac
