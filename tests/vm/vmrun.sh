#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Runs one command in a throw-away QEMU guest under another Linux kernel. `vmrun.sh --help` tells the options.
#
# The guest has no network. Its command's two outputs and its status leave over serial ports of their own, so that kernel
# messages cannot mix with them; so the command sees pipes, no terminal. NVMe, ext4 and 8250 are built into Debian's cloud
# kernels: the initramfs needs no module, and is the same for all of them.
#
# A root disk is never written to: each run has a snapshot of it. Who fills the cache holds its lock.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: vmrun.sh [OPTIONS] -- COMMAND [ARGUMENT...]
       vmrun.sh --prepare
       vmrun.sh [--kernel VERSION] --print-kernel

Boots a Debian 12 kernel in QEMU, runs COMMAND there as root, prints what it prints, and exits with its status.

  --kernel VERSION  6.1 (Debian 12's, the default) or 6.12 (its backport)
  --init KIND       script   a shell script is the first process (the default)
                    systemd  systemd boots to multi-user.target first
  --share FOLDER    copy it to the guest's /mnt and start there; what the guest changes there is lost
  --out FOLDER      copy what the guest leaves in /out into it afterwards
  --mem SIZE        guest memory (512M)
  --cpus N          guest CPUs (1)
  --iops N          the guest's disks carry out no more than N requests in a second
  --append ARGS     more kernel arguments, e.g. 'psi=0'
  --timeout S       stop the guest after S seconds, its boot included (120)
  --console FILE    keep the guest's kernel log in FILE
  --accel NAME      QEMU's accelerator: tcg (the default), or kvm, where /dev/kvm can run an unmodified kernel (in a virtual
                    machine it may be there and hang)
  --prepare         only fill the cache
  --print-kernel    only fetch the kernels, and print the path of one

Exit status: COMMAND's; 124 the time was up; 125 this failed, or the guest went down (panic, reset) before COMMAND ended: the
end of its log goes to stderr.

Environment:
  VMRUN_CACHE     kernels and root disks (${XDG_CACHE_HOME:-~/.cache}/droppable/vm); remove the folder to take up newer packages
  VMRUN_PACKAGES  more Debian packages for the root disk, by name; each such list gets a root disk of its own
  VMRUN_MIRROR    the Debian mirror to bootstrap from (this machine's own)

Filling the cache takes root (debootstrap), two minutes and a gigabyte. Without kvm the guest is emulated: expect a fifth of the machine's
speed, and allow for it in tests that measure time. What is printed leaves at about half a megabyte per second: use --out for
more than that.
USAGE
}

die() {
    echo "vmrun: $*" >&2
    exit 125
}

set -E
trap 'die "failed at line $LINENO"' ERR

# ---- arguments ----

kernel=6.1 init=script mem=512M cpus=1 iops='' limit=120 accel=tcg share='' out='' append='' console='' prepare='' print_kernel=''
while (($# > 0)); do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --prepare)
        prepare=1
        shift
        continue
        ;;
    --print-kernel)
        print_kernel=1
        shift
        continue
        ;;
    --)
        shift
        break
        ;;
    --*) (($# >= 2)) || die "$1 needs a value" ;;
    *) break ;;
    esac
    case $1 in
    --kernel) kernel=$2 ;;
    --init) init=$2 ;;
    --share) share=$2 ;;
    --out) out=$2 ;;
    --mem) mem=$2 ;;
    --cpus) cpus=$2 ;;
    --iops) iops=$2 ;;
    --append) append=$2 ;;
    --timeout) limit=$2 ;;
    --console) console=$2 ;;
    --accel) accel=$2 ;;
    *) die "unknown option $1 (see --help)" ;;
    esac
    shift 2
done
case $kernel in 6.1 | 6.12) ;; *) die "--kernel is 6.1 or 6.12" ;; esac
case $init in script | systemd) ;; *) die "--init is script or systemd" ;; esac
[[ $limit =~ ^[1-9][0-9]*$ ]] || die "--timeout is a whole number of seconds"
[[ -z $share || -d $share ]] || die "--share: no folder $share"
if [[ -z $prepare$print_kernel ]] && (($# == 0)); then
    usage >&2
    exit 125
fi

PATH=$PATH:/usr/sbin:/sbin missing=''
for need in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio debootstrap:debootstrap \
    mke2fs:e2fsprogs debugfs:e2fsprogs flock:util-linux; do
    command -v "${need%%:*}" >/dev/null || [[ $missing == *" ${need##*:}"* ]] || missing+=" ${need##*:}"
done
[[ -z $missing ]] || die "missing programs; run: apt-get install --no-install-recommends$missing"

# ---- the cache: kernels, an initramfs, root disks ----

cache=${VMRUN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/droppable/vm}
# shellcheck disable=SC2016 # the fields are apt's, not the shell's
mirror=${VMRUN_MIRROR:-$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "bookworm" && !n++ { print $2 }')}
packages=$(printf '%s\n' systemd systemd-sysv dbus kmod procps "${VMRUN_PACKAGES:-}" |
    tr -s ' ' '\n' | sed '/^$/d' | sort -u | paste -sd,)
root=$cache/root-$(cksum <<<"$packages" | cut -d' ' -f1).ext4

# Unpacks, without installing it, the newest kernel that a metapackage names.
fetch_kernel() { # VERSION METAPACKAGE
    local to=$cache/kernel-$1 package
    if [[ -e $to ]]; then
        return
    fi
    echo "vmrun: fetching Linux $1" >&2
    package=$(apt-cache depends "$2" | awk '/Depends: linux-image-/ && !n++ { print $2 }')
    [[ -n $package ]] || die "apt does not know $2; run: apt-get update"
    mkdir "$tmp/kernel"
    (cd "$tmp/kernel" && apt-get -qq download "$package" 2>../apt.log && dpkg-deb -x ./*.deb . && rm ./*.deb) || {
        cat "$tmp/apt.log" >&2
        die "cannot fetch $package; run: apt-get update"
    }
    mv "$tmp/kernel" "$to"
}

# Busybox and two scripts; /vmrun/{mode,disks,cmd} are added for each run (-initrd takes archives one after the other).
make_initramfs() {
    local d=$tmp/base
    mkdir -p "$d"/{bin,dev,proc,sys,tmp,root,vmrun}
    cp "$(command -v busybox)" "$d/bin/busybox"
    cat >"$d/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
# Disks go by their labels: with several disks the order of names is not fixed.
disk() { # LABEL FOLDER OPTIONS
    n=0
    until dev=$(findfs "LABEL=$1" 2>/dev/null); do
        n=$((n + 1))
        [ $n -lt 100 ] || { echo "vmrun: no disk $1"; return 1; }
        usleep 100000
    done
    mount -t ext4 -o "$3" "$dev" "$2"
}
disk vmroot /root rw
while read -r label folder options; do disk $label /root$folder $options; done </vmrun/disks
mkdir -p /root/vmrun
cp /vmrun/* /root/vmrun/
mount --move /dev /root/dev
mount --move /proc /root/proc
mount --move /sys /root/sys
mount -t tmpfs run /root/run
if [ "$(cat /vmrun/mode)" = systemd ]; then # vmrun.target: multi-user.target, then the command
    units=/root/run/systemd/system
    mkdir -p $units
    for n in serial-getty@.service getty@.service apt-daily.timer apt-daily-upgrade.timer \
        dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do ln -s /dev/null $units/$n; done
    printf '%s\n' '[Unit]' 'Requires=multi-user.target' 'After=multi-user.target' \
        'Wants=vmrun.service' >$units/vmrun.target
    printf '%s\n' '[Unit]' 'After=multi-user.target' '[Service]' 'ExecStart=/bin/sh /vmrun/run' \
        'OOMPolicy=continue' 'Delegate=yes' >$units/vmrun.service
    exec switch_root /root /sbin/init
fi
mount -t tmpfs tmp /root/tmp
mkdir -p /root/dev/shm /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount -t devpts pts /root/dev/pts
mount -t cgroup2 cgroup /root/sys/fs/cgroup
exec switch_root /root /bin/sh -c 'sh /vmrun/run; echo b >/proc/sysrq-trigger'
INIT
    cat >"$d/vmrun/run" <<'RUN'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
for n in 1 2 3; do stty -F /dev/ttyS$n raw -echo clocal; done
mkdir -p /run/vmrun
cd /run/vmrun
mkfifo out err
cat out >/dev/ttyS1 &
c1=$!
cat err >/dev/ttyS2 &
c2=$!
echo 'vmrun: the command begins' >/dev/ttyS0
# The OOM killer is to take the command, not this.
echo -1000 >/proc/self/oom_score_adj
(cd /mnt; echo 0 >/proc/self/oom_score_adj; exec sh /vmrun/cmd) >out 2>err </dev/null
status=$?
# The copiers end with the last writer; something that the command left running may hold the pipes open, so they get three
# seconds to pass on what is in them.
n=0
while { kill -0 $c1 || kill -0 $c2; } 2>/dev/null && [ $n -lt 30 ]; do
    n=$((n + 1))
    sleep 0.1
done
sync
for n in 1 2; do stty -F /dev/ttyS$n raw; done # waits until all is sent
echo $status >/dev/ttyS3
stty -F /dev/ttyS3 raw
echo b >/proc/sysrq-trigger # a reset ends QEMU (-no-reboot)
RUN
    chmod +x "$d/init" "$d/vmrun/run"
    (cd "$d" && find . | cpio -o -H newc --quiet | gzip -1) >"$tmp/initramfs"
    mv "$tmp/initramfs" "$cache/initramfs"
}

# Debian with systemd, and the modules of all kernels.
make_root() {
    local d=$tmp/root modules
    if [[ -e $root ]]; then
        return
    fi
    ((EUID == 0)) || die "run once as root to build the root disk: $0 --prepare"
    echo "vmrun: building the root disk (about a minute)" >&2
    debootstrap --variant=minbase --include="$packages" bookworm "$d" "$mirror" >"$tmp/debootstrap.log" 2>&1 || {
        tail "$tmp/debootstrap.log" >&2
        die "debootstrap failed"
    }
    rm -rf "$d"/var/cache/apt/* "$d"/var/lib/apt/lists/* "$d"/usr/share/{doc,man,locale}/*
    mkdir -p "$d/mnt" "$d/out" "$d/lib/modules"
    for modules in "$cache"/kernel-*/lib/modules/*; do
        cp -a "$modules" "$d/lib/modules/"
        chroot "$d" depmod "${modules##*/}"
    done
    mke2fs -q -t ext4 -O ^has_journal -L vmroot -d "$d" "$tmp/root.ext4" 4G >/dev/null # sparse
    mv "$tmp/root.ext4" "$root"
}

mkdir -p "$cache"
tmp=$(mktemp -d "$cache/tmp.XXXXXX")
pids=()
# shellcheck disable=SC2317 # by the trap
clean_up() {
    if ((${#pids[@]} > 0)); then
        kill "${pids[@]}" 2>/dev/null || true
        wait
    fi
    rm -rf --one-file-system "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

exec 9>"$cache/lock"
flock 9
fetch_kernel 6.1 linux-image-cloud-amd64
fetch_kernel 6.12 linux-image-6.12-cloud-amd64
if [[ -n $print_kernel ]]; then
    echo "$cache"/kernel-"$kernel"/boot/vmlinuz-*
    exit 0
fi
if [[ ! $cache/initramfs -nt ${BASH_SOURCE[0]} ]]; then
    make_initramfs
fi
make_root
exec 9>&-
if [[ -n $prepare ]]; then
    exit 0
fi

# ---- one run ----

# One more namespace on the NVMe controller.
disks=(-device 'nvme,serial=vmrun,id=nvme') namespaces=0
add_disk() { # LABEL IMAGE [DRIVE-OPTIONS]
    namespaces=$((namespaces + 1))
    disks+=(-drive "file=$2,format=raw,if=none,id=$1,cache=unsafe${iops:+,throttling.iops-total=$iops}${3:-}"
        -device "nvme-ns,drive=$1,bus=nvme,nsid=$namespaces")
}

mkdir -p "$tmp/initrd/vmrun"
add_disk vmroot "$root" ,snapshot=on
: >"$tmp/initrd/vmrun/disks"
if [[ -n $share ]]; then
    mke2fs -q -t ext4 -O ^has_journal -m 0 -i 4096 -L vmshare -d "$share" "$tmp/share" \
        $(($(du -sm "$share" | cut -f1) * 3 / 2 + 512))M >/dev/null
    add_disk vmshare "$tmp/share"
    echo 'vmshare /mnt rw' >>"$tmp/initrd/vmrun/disks"
fi
if [[ -n $out ]]; then
    mkdir -p "$out"
    mke2fs -q -t ext4 -O ^has_journal -m 0 -L vmout "$tmp/out" 4G >/dev/null
    add_disk vmout "$tmp/out"
    echo 'vmout /out sync' >>"$tmp/initrd/vmrun/disks"
fi
echo "$init" >"$tmp/initrd/vmrun/mode"
{
    printf 'exec'
    for argument; do
        printf " '%s'" "${argument//\'/\'\\\'\'}"
    done
    echo
} >"$tmp/initrd/vmrun/cmd"
{
    cat "$cache/initramfs"
    (cd "$tmp/initrd" && find vmrun | cpio -o -H newc --quiet | gzip -1)
} >"$tmp/initramfs"

mkfifo "$tmp/stdout" "$tmp/stderr"
ports=(-serial "file:$tmp/console")
for port in 'stdout 0x2f8 3 1' 'stderr 0x3e8 5 2' 'status 0x2e8 7 3'; do
    read -r name io irq i <<<"$port"
    ports+=(-chardev "file,id=$name,path=$tmp/$name" -device "isa-serial,chardev=$name,iobase=$io,irq=$irq,index=$i")
done
cpu=host
if [[ $accel == tcg ]]; then
    # Without erms the C library does not use "rep stosb", which this runs ten times slower.
    accel=tcg,thread=multi cpu=max,-erms
fi

# Boots it, and waits until it is down. Sets status: QEMU's.
run_guest() {
    local out_copier err_copier qemu
    : >"$tmp/console"
    cat "$tmp/stdout" &
    out_copier=$!
    cat "$tmp/stderr" >&2 &
    err_copier=$!
    pids=("$out_copier" "$err_copier")
    # shellcheck disable=SC2086 # one file
    TMPDIR=$tmp timeout -k 5 "$limit" qemu-system-x86_64 -M pc -accel "$accel" -cpu "$cpu" -smp "$cpus" -m "$mem" \
        -kernel "$(echo $cache/kernel-$kernel/boot/vmlinuz-*)" -initrd "$tmp/initramfs" \
        -append "console=ttyS0 panic=-1 random.trust_cpu=on systemd.unit=vmrun.target $append" \
        -nodefaults -no-user-config -nic none -display none -no-reboot \
        "${disks[@]}" "${ports[@]}" </dev/null >"$tmp/qemu.log" 2>&1 &
    qemu=$!
    pids+=("$qemu")
    status=0
    wait "$qemu" || status=$?
    : <>"$tmp/stdout" <>"$tmp/stderr" # ends the copiers if QEMU never opened these
    wait "$out_copier" "$err_copier" || true
    pids=()
}

# While a kernel patches its own code, as it does at boot, one of the emulator's CPUs may still carry out the breakpoint of a moment ago (QEMU's threads do not
# wait for one another there, as processors do). Seen once in some hundred boots of 6.12.
met_stale_breakpoint() {
    [[ $accel == tcg* && ! -s $tmp/status ]] && grep -q 'Oops: int3: ' "$tmp/console" && ! grep -q 'vmrun: the command begins' "$tmp/console"
}

run_guest
if met_stale_breakpoint; then
    echo "vmrun: the emulator has tripped over the kernel's own patches at boot (Oops: int3): once more" >&2
    run_guest
fi

if [[ -n $console ]]; then
    cp "$tmp/console" "$console"
fi
if [[ -n $out ]]; then
    debugfs -R "rdump / \"$out\"" "$tmp/out" >"$tmp/debugfs.log" 2>&1
    rmdir "$out/lost+found"
fi
if [[ -s $tmp/status ]]; then
    exit "$(cat "$tmp/status")"
fi
if ((status == 124)); then
    echo "vmrun: time is up after $limit s" >&2
    exit 124
fi
cat "$tmp/qemu.log" >&2
tail -n 20 "$tmp/console" >&2
die "the guest went down before the command ended (QEMU: $status)"
