#!/bin/sh
# First process of the guest that looks at what its firmware tells. On the console it prints
#   === DMIDECODE     and what dmidecode says
#   === DMIDECODE-MEM and what dmidecode finds in memory, without the kernel's help
#   === ACPIDUMP      and all ACPI tables in hexadecimal
#   === INTERRUPTS    and /proc/interrupts
#   === DMESG         and all of the kernel's messages
#   === DONE
# and powers the machine off.

export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

echo "=== DMIDECODE"
dmidecode 2>&1
echo "=== DMIDECODE-MEM"
dmidecode --no-sysfs 2>&1
echo "=== ACPIDUMP"
acpidump 2>&1
echo "=== INTERRUPTS"
cat /proc/interrupts
echo "=== DMESG"
dmesg
echo "=== DONE"
stty opost
poweroff -f
