#!/bin/sh
# First process of a guest under load. It compiles known.c with tcc and runs it, twice: the second time
# with what the compiler leaves as a program of its own. Then stress-ng works for as many seconds as
# `stress=N` of the kernel's command line says, and checks its own results. It prints
#   === KNOWN BEGIN, the program's output, === KNOWN END
#   === STRESS <exit status of stress-ng>
#   === DONE

export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
cd /tmp || exit 1
for word in $(cat /proc/cmdline); do
    case $word in stress=*) seconds=${word#stress=} ;; esac
done

echo "=== KNOWN BEGIN run"
tcc -run /bench/known.c
echo "=== KNOWN END"
tcc -o known /bench/known.c
echo "=== KNOWN BEGIN program"
./known
echo "=== KNOWN END"

signals="--sigabrt 1 --sigchld 1 --sigfpe 1 --sigio 1 --signal 1 --signest 1 --sigpending 1
    --sigpipe 1 --sigq 1 --sigrt 1 --sigsegv 1 --sigsuspend 1 --sigtrap 1"
sorts="--heapsort 1 --mergesort 1 --qsort 1 --radixsort 1 --shellsort 1 --tsearch 1"
# shellcheck disable=SC2086
stress-ng --verify --metrics-brief --timestamp --timeout "${seconds:-60}" --temp-path /tmp \
    --cpu 2 --vm 2 --vm-bytes 64M --fault 1 --fork 1 --vfork 1 $signals $sorts
echo "=== STRESS $?"
dmesg | grep -iE 'bug:|oops|panic|unhandled|segfault|general protection|invalid opcode' |
    grep -vE 'stress-ng|panic=' | head -20
echo "=== DONE"
poweroff -ff 2>/dev/null || echo o >/proc/sysrq-trigger
sleep 60
