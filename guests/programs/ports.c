/* Port I/O from ring 3: by ioperm (the TSS's bitmap), by iopl (which Linux gives by a full bitmap),
 * without either, and after it was taken away again.  As root until the end.
 */
#include "guest.h"

static int hot;

/* POST's port: reads and writes do nothing. The RTC: its index and data. */
CODE(in_80, "in $0x80, %al");
CODE(out_80, "out %al, $0x80");
CODE(in_81, "in $0x81, %al");
CODE(in_word_80, "in $0x80, %ax");
CODE(in_long_7e, "mov $0x7e, %edx\nin %dx, %eax");
CODE(rtc, "mov $0x0b, %al\nout %al, $0x70\nin $0x71, %al\nand $2, %eax");
CODE(string_in, "mov $buffer, %edi\nmov $4, %ecx\nmov $0x80, %edx\nrep insb");
CODE(high_port, "mov $0x3ff, %edx\nin %dx, %al");
CODE(beyond_3ff, "mov $0x5000, %edx\nin %dx, %al");
CODE(disable, "cli");
CODE(flags, "pushf\npop %eax\nand $0x3000, %eax");
u8 buffer[16];

static void one(const char *name, const u8 *code)
{
    if (hot)
        warm();
    attempt(code);
    report(name, code);
}

int main(int argc, char **argv)
{
    hot = argc > 1 && equal(argv[1], "hot");
    phase = hot ? "hot-" : "";
    one("before", in_80);
    result("ioperm", "%d", sys(SYS_ioperm, 0x80, 1, 1));
    one("byte", in_80);
    one("byte_out", out_80);
    one("strings", string_in);
    one("next", in_81);
    one("word_over_the_end", in_word_80);
    one("long_over_the_begin", in_long_7e);
    /* It lives on over a computation and other processes. */
    sys(SYS_sched_yield);
    warm();
    one("later", in_80);
    int child = fork_();
    if (child == 0)
        quit(attempt(in_80));
    result("in_a_child", "%x", wait_for(child));
    result("ioperm_two", "%d", sys(SYS_ioperm, 0x70, 2, 1));
    if (hot)
        warm();
    attempt(rtc);
    result("rtc_24_hours", "signal %d, %x", outcome.sig, outcome.eax);
    sys(SYS_ioperm, 0x80, 1, 0);
    one("taken_back", in_80);
    result("iopl", "%d", sys(SYS_iopl, 3));
    one("all", high_port);
    one("all_beyond", beyond_3ff);
    one("still_no_cli", disable);
    attempt(flags);
    result("iopl_in_flags", "%x", outcome.eax);
    drop_privileges();
    one("kept_as_user", high_port);
    result("iopl_down", "%d", sys(SYS_iopl, 0));
    one("user_without", high_port);
    result("iopl_as_user", "%d", sys(SYS_iopl, 3));
    result("ioperm_as_user", "%d", sys(SYS_ioperm, 0x80, 1, 1));
    return 0;
}
