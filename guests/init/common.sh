#!/bin/busybox sh
# Start of every /init: file systems, applet links, a quiet console.
export PATH=/bin HOME=/ TERM=linux
/bin/busybox mount -t devtmpfs dev /dev 2>/dev/null
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox --install -s /bin
read up idle </proc/uptime
frac=1${up#*.}
echo "T3:boot:$((${up%.*} * 100 + frac - 100))"
echo "R3:init:$(uname -r)"
