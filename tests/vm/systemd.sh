#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The service under systemd, in guests with Debian's kernels: `cmake --install`, `systemctl enable --now droppabled.socket`, and then
#
#   security   systemd-analyze: the units are well formed, and the exposure is what docs/service.md says at most
#   start, life, restarts, watchdog
#              test-systemd: the first client starts it; who may, native memory, reload, giving up; 20 restarts under load; threads that stand still
#   crash      test-crash-systemd: the service of the dev build, which lies beside BUILD-FOLDER, dies at its crash points
#   user       all that of the units of an ordinary user's manager
#   io_uring, userfaultfd, psi
#              test-without: where these cannot be had (PSI in a guest of its own)
#
# usage: systemd.sh BUILD-FOLDER OUT [CHECK...]
#
#   DROPPABLE_VM_KERNELS   "6.1 6.12"
set -euo pipefail

# shellcheck source=tests/vm/guests.sh
source "$(dirname "${BASH_SOURCE[0]}")/guests.sh"
build=${1:?usage: systemd.sh BUILD-FOLDER OUT [CHECK...]}
out=${2:?usage: systemd.sh BUILD-FOLDER OUT [CHECK...]}
shift 2

# Each line is a guest.
GUESTS=(
    "security start life restarts watchdog"
    "crash"
    "user"
    "io_uring userfaultfd"
    "psi"
)
GUEST_TIMEOUT=${GUEST_TIMEOUT:-1400}
EXPOSURE=25 # tenths

for check; do
    if [[ " ${GUESTS[*]} " != *" $check "* ]]; then
        echo "systemd: there is no check $check (${GUESTS[*]})" >&2
        exit 2
    fi
done
mkdir -p "$out"
share_install "$build" "$out"
share_files "$build" test-systemd test-without test-crash-systemd
if (($# == 0)) || [[ " $* " == *" crash "* ]]; then
    "$here/../crash-points.sh" "$build/../dev/bin/droppabled" yes
    cp "$build/../dev/bin/droppabled" "$share/droppabled-crash-points"
fi

# Every check says how it went by a last line of its own.
cat >"$share/check.sh" <<'GUEST'
exposure=$1
shift

security() {
    # Without recursive-errors what is unknown is warned of, and no error.
    systemd-analyze verify --man=no --recursive-errors=no droppabled.service droppabled.socket droppable.slice &&
        XDG_RUNTIME_DIR=/run systemd-analyze verify --user --man=no --recursive-errors=no /usr/local/lib/systemd/user/droppabled.service &&
        systemd-analyze security --no-pager --threshold="$exposure" droppabled.service >/tmp/security
    status=$?
    grep -v '^✓' /tmp/security
    return $status
}

crash() {
    install droppabled-crash-points /usr/local/bin/ && ./test-crash-systemd
}

as_somebody() {
    runuser -u somebody -- env XDG_RUNTIME_DIR=/run/user/1234 "$@"
}

user() {
    systemctl start user@1234.service &&
        as_somebody systemctl --user enable --now droppabled.socket &&
        as_somebody ./test-systemd
    status=$?
    as_somebody droppablectl status
    systemctl stop user@1234.service
    return $status
}

sh ./install.sh || exit 1
useradd -m -u 1234 -G systemd-journal somebody
useradd -G droppable member
export CK_TIMEOUT_MULTIPLIER=10 DROPPABLE_TEST_BINDIR=/usr/local/bin
failures=0
for check; do
    word=ok
    echo "== $check"
    case $check in
    security | crash | user) $check ;;
    start | life | restarts | watchdog) CK_RUN_CASE=$check ./test-systemd ;;
    io_uring | userfaultfd | psi) CK_RUN_CASE=$check ./test-without ;;
    *) false ;;
    esac || word=FAILED
    if [ $word = FAILED ]; then
        failures=$((failures + 1))
        journalctl -b --no-pager -n 60 -u droppabled -u droppabled.socket -u systemd-udevd -u user@1234
    fi
    echo "result $check $word"
done
exit $failures
GUEST

# The results of checks that it did not get to are failures.
run_guest() { # KERNEL CHECK...
    local kernel=$1 name=systemd-$2 log=$out/$1-systemd-$2.log options=() check word
    shift
    if [[ $1 == psi ]]; then
        options=(--append psi=0)
    fi
    echo "==> vm: Linux $kernel, $*"
    guest "$kernel" "$name" "$out" --init systemd --mem 768M "${options[@]}" -- sh check.sh "$EXPOSURE" "$@" >"$log" 2>&1 || true
    cat "$log"
    for check; do
        word=$(awk -v check="$check" '$1 == "result" && $2 == check { print $3 }' "$log")
        note_result "$out" "$kernel" "$check" "${word:-FAILED}" "$(summary_of "$check" "$log")"
    done
}

# The figures of a check: of its part of the log.
summary_of() { # CHECK LOG
    sed -n "/^== $1\$/,/^result $1 /p" "$2" |
        sed -nE 's/.*Overall exposure level.*: ([0-9.]+) .*/exposure \1/p
                 s/.*(slowest access took .* ms)$/\1/p
                 s/^(a .*) that stands still: (a new .* ms).*/\1: \2/p
                 s/^native memory of (an ordinary user: .*)/native: \1/p
                 s/^(died at [0-9]+ crash points)$/\1/p
                 s/^(dropped for a hog: .*)/\1/p' | paste -sd';' | sed 's/;/; /g'
}

"$here/vmrun.sh" --prepare
for kernel in "${KERNELS[@]}"; do
    for row in "${GUESTS[@]}"; do
        checks=()
        for check in $row; do
            if (($# == 0)) || [[ " $* " == *" $check "* ]]; then
                checks+=("$check")
            fi
        done
        if ((${#checks[@]} > 0)); then
            run_guest "$kernel" "${checks[@]}"
        fi
    done
done
conclude "$out"
