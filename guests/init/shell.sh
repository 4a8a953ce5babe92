# An interactive shell on the first serial port; leaving it powers the machine off.
cat <<'BANNER'

ring3: Debian's kernel, a busybox shell.  `poweroff -f` or exit ends the machine;
Ctrl-A x ends the monitor.
BANNER
cd /
setsid cttyhack sh
poweroff -f
