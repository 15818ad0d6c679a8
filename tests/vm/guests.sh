# SPDX-License-Identifier: MIT
#
# What checks in guests have in common, for scripts of this folder to source: $here, $KERNELS ($DROPPABLE_VM_KERNELS), and $share, the
# folder that a guest sees as /mnt, which goes when the script ends. What a check says of itself is a line of OUT/results, for table.sh. A
# script counts its failures by it, and ends with conclude().
# shellcheck shell=bash disable=SC2034 # of who sources it

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
read -ra KERNELS <<<"${DROPPABLE_VM_KERNELS:-6.1 6.12}"
export VMRUN_PACKAGES="libuv1 liburing2 libcap2 libinih1 libjson-c5 check"

# Of the disk on which the service is installed. The others are without: the memory of what else runs there would be another.
INSTALLED_PACKAGES="udev libpam-systemd"

failures=0
share=$(mktemp -d)
trap 'rm -rf "$share"' EXIT

# Copies what has these names: programs, else what lies anywhere in the folder. (Tests have a stand-in for the service.)
share_files() { # BUILD-FOLDER NAME...
    local build=$1 name found
    shift
    for name; do
        found=$build/bin/$name
        if [[ ! -e $found ]]; then
            found=$(find "$build" -name "$name" ! -type d -print -quit)
        fi
        if [[ -z $found ]]; then
            echo "${0##*/}: there is no $name in $build" >&2
            return 1
        fi
        cp -L "$found" "$share/"
    done
}

# The whole of it, for install.sh to put in its place in the guest, as docs/service.md says.
share_install() { # BUILD-FOLDER OUT
    VMRUN_PACKAGES+=" $INSTALLED_PACKAGES"
    DESTDIR=$share/install cmake --install "$1" >"$2/install.log"
    cat >"$share/install.sh" <<'GUEST'
set -e
systemd-sysusers /mnt/install/usr/local/lib/sysusers.d/droppable.conf
cp -a /mnt/install/. /
ldconfig
udevadm control --reload
udevadm trigger --settle --name-match=userfaultfd
systemctl daemon-reload
systemctl enable --now droppabled.socket
GUEST
}

# Runs a command in a guest. The console is OUT/KERNEL-NAME.console.
guest() { # KERNEL NAME OUT VMRUN-ARGUMENT... -- COMMAND...
    local kernel=$1 name=$2 out=$3
    shift 3
    "$here/vmrun.sh" --kernel "$kernel" --cpus 2 --timeout "$GUEST_TIMEOUT" --share "$share" \
        --accel "${DROPPABLE_VM_ACCEL:-tcg}" --console "$out/$kernel-$name.console" "$@"
}

# ok, FAILED, skipped, or loose: a figure that is not judged here.
note_result() { # OUT KERNEL CHECK RESULT [TEXT]
    printf '%s\t%s\t%s\t%s\n' "$2" "$3" "$4" "${5:-}" >>"$1/results"
    if [[ $4 == FAILED ]]; then
        failures=$((failures + 1))
    fi
}

# A check that is a command, on each kernel: `COMMAND... KERNEL LOG` leaves in LOG, OUT/KERNEL-CHECK.log, what is printed then. It FAILED if its
# status is not 0. It may set $said, what is to be said of it, and $word, another result.
each_kernel() { # OUT CHECK COMMAND...
    local out=$1 check=$2 kernel log word said
    shift 2
    for kernel in "${KERNELS[@]}"; do
        log=$out/$kernel-$check.log word=ok said=''
        echo "==> vm: Linux $kernel, $check"
        : >"$log"
        "$@" "$kernel" "$log" || word=FAILED
        cat "$log"
        note_result "$out" "$kernel" "$check" "$word" "$said"
    done
}

# 1 if a check FAILED.
conclude() { # OUT
    if ((failures > 0)); then
        echo "==> FAILED: $failures check(s); everything is in $1"
        exit 1
    fi
}
