#!/bin/sh
# First process of the reference guest. On the console it prints
#   === GUEST UP <release> <machine> cpus <n>
#   === JOB <name> <seconds> s <result>         four times: loop, sha256, gzip, fork
#   === DONE
# and powers the machine off. With `quickexit` on the kernel's command line it does no jobs.
# The results are the same on every machine: 200000, the SHA-256 of 64 MiB of zeros, the size of
# 16 MiB of zeros after gzip -9, and 200.

export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

# Sets `now` to the hundredths of a second since the start of the kernel.
clock() {
    read -r up _ </proc/uptime
    hundredths=${up#*.}
    now=$((${up%.*} * 100 + ${hundredths#0}))
}

job() {
    clock
    begin=$now
    result=$("$1")
    clock
    spent=$((now - begin))
    fraction=$((spent % 100))
    [ "$fraction" -lt 10 ] && fraction=0$fraction
    echo "=== JOB $1 $((spent / 100)).$fraction s ${result%% *}"
}

loop() {
    i=0
    while [ "$i" -lt 200000 ]; do i=$((i + 1)); done
    echo "$i"
}

sha256() {
    dd if=/dev/zero bs=1M count=64 2>/dev/null | sha256sum
}

gzip() {
    dd if=/dev/zero bs=1M count=16 2>/dev/null | /bin/gzip -9 | wc -c
}

# The full path makes the shell fork and exec where it would run a command of busybox itself.
fork() {
    i=0
    while [ "$i" -lt 200 ]; do /bin/true && i=$((i + 1)); done
    echo "$i"
}

# Powers off once the console has sent everything; the kernel's own messages would cut into it.
finish() {
    stty opost
    poweroff -f
}

echo "=== GUEST UP $(uname -r) $(uname -m) cpus $(grep -c ^processor /proc/cpuinfo)"
read -r cmdline </proc/cmdline
case " $cmdline " in
*" quickexit "*) finish ;;
esac
for name in loop sha256 gzip fork; do job "$name"; done
echo "=== DONE"
finish
