/* Debuggers in the guest: a process that steps itself, and one that traces another with
 * breakpoints of both kinds, watchpoints and single steps while it computes.
 */
#include "guest.h"

static volatile u32 steps, last_step, watched, counter;
static int hot;

static void on_step(int sig, struct siginfo *info, struct ucontext *context)
{
    (void)sig;
    steps++;
    last_step = context->mc.eip;
    if (info->code != 2)
        steps += 1000000;
}

/* Steps over this: the number of instructions is known. */
static void self_step(void)
{
    handle(SIGTRAP, on_step, SA_ONSTACK);
    if (hot)
        warm();
    steps = 0;
    __asm__ volatile("pushf\norl $0x100, (%%esp)\npopf\n"
                     "mov $100, %%ecx\n1: dec %%ecx\njnz 1b\n"
                     "pushf\nandl $~0x100, (%%esp)\npopf\n" : : : "ecx", "memory", "cc");
    /* mov, 100 x 2, pushf, and, popf: the trap after popf is pending from TF at its start */
    result("self_steps", "%u", steps);
    steps = 0;
    static u8 bytes[64];
    __asm__ volatile("pushf\norl $0x100, (%%esp)\npopf\n"
                     "mov %0, %%edi\nmov $20, %%ecx\nmov $7, %%al\nrep stosb\n"
                     "pushf\nandl $~0x100, (%%esp)\npopf\n" : : "r"(bytes) : "eax", "ecx", "edi", "memory", "cc");
    result("self_steps_string", "%u, last byte %u", steps, bytes[19]);
    steps = 0;
    u32 pid;
    __asm__ volatile("pushf\norl $0x100, (%%esp)\npopf\n"
                     "mov $20, %%eax\nint $0x80\nmov %%eax, %0\n"
                     "pushf\nandl $~0x100, (%%esp)\npopf\n" : "=r"(pid) : : "eax", "memory", "cc");
    result("self_steps_system_call", "%u, %s", steps, pid == (u32)sys(SYS_getpid) ? "right" : "wrong");
}

enum { TRACEME = 0, PEEK_TEXT = 1, PEEK_USER = 3, POKE_TEXT = 4, POKE_USER = 6, CONT = 7, KILL = 8, SINGLESTEP = 9 };
#define DEBUG_REGISTER(n) (252 + 4 * (n))
#define REGISTER_EIP (12 * 4)

void target(void);
void target_loop(void);
/* A place to break at, and a store to watch. */
__asm__(".globl target\ntarget:\nnop\nincl counter\nret\n"
        ".globl target_loop\ntarget_loop:\n"
        "mov $200000, %ecx\n1: dec %ecx\njnz 1b\n"
        "call target\nmovl $5, watched\nnop\n"
        "mov counter, %eax\ncmp $1000, %eax\njb target_loop\nret\n");
/* The assembler must see the names. */
void *const names[] = { (void *)&counter, (void *)&watched };

static long trace(long request, long pid, long address, long data)
{
    return sys(SYS_ptrace, request, pid, address, data);
}

static u32 peek(int pid, u32 what)
{
    u32 value = 0;
    trace(PEEK_USER, pid, (long)what, (long)&value);
    return value;
}

static void expect(const char *name, int pid, u32 eip)
{
    int status = wait_for(pid);
    u32 at = peek(pid, REGISTER_EIP), dr6 = peek(pid, DEBUG_REGISTER(6));
    result(name, "status %x, %s, dr6 %x", status, at == eip ? "in place" : "elsewhere", dr6 & 0x600f);
    trace(POKE_USER, pid, DEBUG_REGISTER(6), 0);
}

static void traced(void)
{
    int child = fork_();
    if (child == 0) {
        u32 action[5] = { 0, 0, 0, 0, 0 };
        sys(SYS_rt_sigaction, SIGTRAP, action, 0, 8);
        trace(TRACEME, 0, 0, 0);
        sys(SYS_kill, sys(SYS_getpid), SIGSTOP);
        warm();
        target_loop();
        quit(9);
    }
    int status = wait_for(child);
    result("stopped", "%x", status);
    const u32 begin = (u32)target;
    /* By register: an instruction. */
    trace(POKE_USER, child, DEBUG_REGISTER(0), (long)begin);
    trace(POKE_USER, child, DEBUG_REGISTER(7), 1);
    for (int i = 0; i < 3; i++) {
        trace(CONT, child, 0, 0);
        expect("breakpoint", child, begin);
    }
    /* By register: a write; the stop is after it. */
    trace(POKE_USER, child, DEBUG_REGISTER(7), 0);
    trace(POKE_USER, child, DEBUG_REGISTER(1), (long)&watched);
    trace(POKE_USER, child, DEBUG_REGISTER(7), 0xd << 20 | 4);
    for (int i = 0; i < 2; i++) {
        trace(CONT, child, 0, 0);
        status = wait_for(child);
        u32 value = 0;
        trace(PEEK_TEXT, child, (long)&watched, (long)&value);
        result("watchpoint", "status %x, value %u, dr6 %x", status, value, peek(child, DEBUG_REGISTER(6)) & 0x600f);
        trace(POKE_USER, child, DEBUG_REGISTER(6), 0);
    }
    trace(POKE_USER, child, DEBUG_REGISTER(7), 0);
    /* By INT3 written into warm code. */
    u32 text = 0;
    trace(PEEK_TEXT, child, (long)begin, (long)&text);
    trace(POKE_TEXT, child, (long)begin, (long)((text & ~0xffu) | 0xcc));
    for (int i = 0; i < 3; i++) {
        trace(CONT, child, 0, 0);
        expect("int3", child, begin + 1);
    }
    trace(POKE_TEXT, child, (long)begin, (long)text);
    /* Steps. */
    u32 inside = 0;
    for (int i = 0; i < 200; i++) {
        trace(SINGLESTEP, child, 0, 0);
        status = wait_for(child);
        u32 at = peek(child, REGISTER_EIP);
        inside += status == 0x057f && at >= begin && at < begin + 64;
    }
    result("steps", "%u of 200 in place", inside);
    trace(CONT, child, 0, 0);
    sleep_ms(30);
    sys(SYS_kill, child, SIGSTOP);
    status = wait_for(child);
    result("stopped_when_warm", "%x", status);
    trace(KILL, child, 0, 0);
    result("ended", "%x", wait_for(child));
}

int main(int argc, char **argv)
{
    hot = argc > 1 && equal(argv[1], "hot");
    phase = hot ? "hot-" : "";
    drop_privileges();
    self_step();
    traced();
    return 0;
}
