# Programs that do everything that ring 3 should not or seldom does; each outcome is one line.
# The kernel's command line may name some of them ("programs=faults,jail") and ask for their long
# forms ("long").
ALL=" $(sed -n 's/.*programs=\([^ ]*\).*/\1/p' /proc/cmdline | tr , ' ') "
LONG=
case " $(cat /proc/cmdline) " in *" long "*) LONG=1 ;; esac
wanted() {
    case "$ALL" in "  " | *" $1 "*) return 0 ;; esac
    return 1
}
wanted faults && { faults; faults hot; }
wanted jail && { jail; jail hot ${LONG:+all}; }
wanted selectors && { selectors ${LONG:+all}; selectors hot; }
wanted code && { code; code hot; }
wanted mappings && { mappings 2000 1; mappings ${LONG:+2}2000 2 hot; }
wanted state && state 4 ${LONG:+5}200
wanted debug && { debug; debug hot; }
wanted ports && { ports; ports hot; }
wanted many && many ${LONG:+3}40 ${LONG:+2}64
wanted hungry && hungry ${LONG:+2}64 100000

# The kernel and the shell are well.
set -- $(sha256sum /bin/busybox)
echo "R3:health:$1"
