# The "first light" workload: each step prints R3:<name>:<result>, which the host
# compares with what it computes itself, and T3:<name>:<centiseconds of guest uptime>.

now() {
    read up idle </proc/uptime
    frac=1${up#*.}
    NOW=$((${up%.*} * 100 + frac - 100))
}
begin() { now; T0=$NOW; }
timed() { now; echo "T3:$1:$((NOW - T0))"; }
result() { echo "R3:$1:$2"; }

result date-first "$(date +%s)"

begin
set -- $(yes 'ring3 first light' | head -c 67108864 | sha256sum)
timed sha256
result sha256 "$1"

begin
set -- $(yes 'ring3 first light' | head -c 67108864 | md5sum)
timed md5
result md5 "$1"

seq 1 1200000 | head -c 8388608 >/tmp/plain
set -- $(md5sum /tmp/plain)
result plain "$1"
begin
gzip -c /tmp/plain >/tmp/packed
gunzip -c /tmp/packed >/tmp/again
timed gzip
cmp /tmp/plain /tmp/again && result gzip same || result gzip differs
[ "$(wc -c </tmp/packed)" -lt 4194304 ] && result gzip-smaller yes || result gzip-smaller no

begin
i=0 ok=0
while [ $i -lt 300 ]; do
    /bin/busybox true && ok=$((ok + 1))
    i=$((i + 1))
done
timed fork
result fork $ok
/bin/busybox false
result exit-status $?

begin
dd if=/dev/zero of=/dev/null bs=1 count=300000 2>/tmp/dd
timed syscalls
result syscalls "$(sed -n 's/ records out//p' /tmp/dd)"

begin
i=0
while [ $i -lt 200000 ]; do i=$((i + 1)); done
timed loop
result loop $i

begin
result bc-power "$(echo '2^200' | bc)"
result bc-pi "$(echo 'scale=40; 4*a(1)' | bc -l)"
result bc-root "$(echo 'scale=60; sqrt(2)' | bc)"
timed bc
begin
result awk-sum "$(awk 'BEGIN { for (i = 1; i <= 20000; i++) s += 1 / (i * i); printf "%.9f", s }')"
result awk-exp "$(awk 'BEGIN { t = 1; for (i = 1; i < 30; i++) { e += t; t /= i }; printf "%.12f", e }')"
result awk-root "$(awk 'BEGIN { x = 2; for (i = 0; i < 20; i++) x = (x + 2 / x) / 2; printf "%.12f", x }')"
result awk-int "$(awk 'BEGIN { x = 1; for (i = 0; i < 1000; i++) x = (x * 16807) % 2147483647; print x }')"
timed awk

begin
result pipe-count "$(dd if=/dev/zero bs=64k count=256 2>/dev/null | tr '\0' A | dd bs=3000 2>/dev/null | wc -c)"
set -- $(dd if=/tmp/plain bs=4096 2>/dev/null | cat | dd bs=512 2>/dev/null | md5sum)
result pipe-md5 "$1"
timed pipes

sh -c 'trap "exit 42" TERM; echo ready >/tmp/ready; while :; do sleep 0.05; done' &
pid=$!
while [ ! -s /tmp/ready ]; do sleep 0.05; done
kill -TERM $pid
wait $pid
result signal-trap $?
sleep 1000 &
kill -TERM $!
wait $!
result signal-term $?
sleep 1000 &
kill -KILL $!
wait $!
result signal-kill $?
sh -c 'kill -SEGV $$'
result signal-segv $?
trap 'usr1=$((usr1 + 1))' USR1
usr1=0 i=0
while [ $i -lt 50 ]; do kill -USR1 $$; i=$((i + 1)); done
result signal-usr1 $usr1
sleep 1000 &
pid=$!
kill -STOP $pid
sleep 0.1
result signal-stop "$(sed -n 's/^State:[^A-Za-z]*\([A-Za-z]\).*/\1/p' /proc/$pid/status)"
kill -CONT $pid
sleep 0.1
result signal-cont "$(sed -n 's/^State:[^A-Za-z]*\([A-Za-z]\).*/\1/p' /proc/$pid/status)"
kill -KILL $pid

d0=$(date +%s)
result sleep-begin 1
begin
sleep 2
timed sleep
result sleep-end 1
d1=$(date +%s)
result sleep-date $((d1 - d0))

result date-last "$(date +%s)"
