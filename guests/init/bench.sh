# The benchmarks' workload. Also runs on the host with the same busybox and programs, so it touches
# nothing but the current directory. Amounts are such that hundredths of a second are fine enough.
BUSYBOX=${BUSYBOX:-/bin/busybox}
[ -w . ] && [ -n "$RING3_NATIVE" ] || cd /tmp

now() {
    read up idle </proc/uptime
    frac=1${up#*.}
    NOW=$((${up%.*} * 100 + frac - 100))
}
begin() { now; T0=$NOW; }
timed() { now; echo "T3:$1:$((NOW - T0))"; }

begin
i=0
while [ $i -lt 600 ]; do $BUSYBOX true; i=$((i + 1)); done
timed fork

begin
dd if=/dev/zero of=/dev/null bs=1 count=500000 2>/dev/null
timed syscalls

begin
i=0
while [ $i -lt 500000 ]; do i=$((i + 1)); done
timed loop

begin
yes 'ring3 first light' | head -c 33554432 | sha256sum >/dev/null
timed sha256

dd if=/dev/zero of=large bs=1024k count=128 2>/dev/null
begin
sha256sum large large >/dev/null
timed sha256-file
numeric stream <large
rm -f large

seq 1 4000000 | head -c 25165824 >plain
begin
gzip -c plain >packed
gunzip -c packed >again
timed gzip
begin
dd if=/dev/zero bs=64k count=512 2>/dev/null | tr '\0' A | dd bs=3000 2>/dev/null | wc -c >/dev/null
timed pipes
rm -f plain packed again

numeric
