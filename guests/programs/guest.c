/* See guest.h. */
#include "guest.h"

__asm__(".globl _start\n_start:\n"
        "mov %esp, %eax\nand $-16, %esp\nsub $12, %esp\npush %eax\ncall start\n"
        ".globl sys\nsys:\n"
        "push %ebp\npush %edi\npush %esi\npush %ebx\n"
        "mov 20(%esp), %eax\nmov 24(%esp), %ebx\nmov 28(%esp), %ecx\nmov 32(%esp), %edx\n"
        "mov 36(%esp), %esi\nmov 40(%esp), %edi\nmov 44(%esp), %ebp\nint $0x80\n"
        "pop %ebx\npop %esi\npop %edi\npop %ebp\nret\n"
        "restore:\nmov $173, %eax\nint $0x80\n"
        /* int attempt_with(code, eax, edx): the stack pointer is kept where the handler finds it */
        ".globl attempt_with\nattempt_with:\n"
        "push %ebp\npush %edi\npush %esi\npush %ebx\n"
        "mov %esp, attempt_esp\nmovl $1, attempting\n"
        "mov 24(%esp), %eax\nmov 28(%esp), %edx\n"
        "mov $0x11111111, %ecx\nmov $0x22222222, %ebx\nmov $0x33333333, %esi\n"
        "mov $0x44444444, %edi\nmov $0x55555555, %ebp\n"
        "jmp *20(%esp)\n"
        ".globl attempt_end\nattempt_end:\n"
        "cmpl $0, %ss:reload_segments\nje 1f\n"
        "mov %ss:data_selector, %ecx\nmov %ecx, %ds\nmov %ecx, %es\n1:\n"
        "mov attempt_esp, %esp\n"
        "pushl $0x202\npopf\n"
        "movl $0, outcome\nmov %eax, outcome+36\n"
        "attempt_over:\n"
        "movl $0, attempting\n"
        "cld\n"
        "pop %ebx\npop %esi\npop %edi\npop %ebp\nmov outcome, %eax\nret\n"
        ".comm attempt_esp, 4\n.comm attempting, 4\n.comm data_selector, 4\n"
        ".comm code_selector, 4\n.comm reload_segments, 4\n");

extern void restore(void);
extern u8 attempt_over[];
extern u32 attempt_esp, attempting;
/* What the kernel gave; read from a signal frame, since a monitor that runs this code on the bare
 * processor cannot make an instruction that reads a selector tell the guest's. */
extern u32 data_selector, code_selector;
struct outcome outcome;
const char *program = "";
u32 *auxv;

static u8 signal_stack[65536] __attribute__((aligned(16)));

static void on_signal(int sig, struct siginfo *info, struct ucontext *context)
{
    struct sigcontext *mc = &context->mc;
    if (sig == SIGALRM && !attempting)
        return;
    outcome = (struct outcome){
        .sig = sig, .code = info->code, .addr = info->addr, .trapno = mc->trapno, .err = mc->err,
        .eip = mc->eip, .cr2 = mc->cr2, .eflags = mc->eflags, .esp = mc->esp, .eax = mc->eax,
        .cs = mc->cs & 0xffff, .ds = mc->ds & 0xffff, .ss = mc->ss & 0xffff,
    };
    mc->eip = (u32)attempt_over;
    mc->esp = attempt_esp;
    mc->cs = code_selector;
    mc->ss = mc->ds = mc->es = data_selector;
    mc->fs = mc->gs = 0;
    mc->eflags = 0x202;
}

static void on_first_signal(int sig, struct siginfo *info, struct ucontext *context)
{
    (void)sig, (void)info;
    code_selector = context->mc.cs & 0xffff;
    data_selector = context->mc.ss & 0xffff;
}

void handle(int sig, void (*handler)(int, struct siginfo *, struct ucontext *), u32 flags)
{
    struct { u32 handler, flags, restorer, mask[2]; } action = {
        (u32)handler, flags | SA_SIGINFO | SA_RESTORER, (u32)restore, {0, 0}
    };
    sys(SYS_rt_sigaction, sig, &action, 0, 8);
}

static void start(u32 *stack) __attribute__((used));
static void start(u32 *stack)
{
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    u32 *p = stack + argc + 2;
    while (*p++)
        ;
    auxv = p;
    program = argv[0];
    for (const char *s = argv[0]; *s; s++)
        if (*s == '/')
            program = s + 1;
    struct { u32 sp, flags, size; } alternate = { (u32)signal_stack, 0, sizeof signal_stack };
    sys(SYS_sigaltstack, &alternate, 0);
    handle(SIGUSR1, on_first_signal, 0);
    sys(SYS_kill, sys(SYS_getpid), SIGUSR1);
    const int faults[] = { SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS, SIGALRM };
    for (u32 i = 0; i < sizeof faults / sizeof *faults; i++)
        handle(faults[i], on_signal, SA_ONSTACK | SA_NODEFER);
    quit(main(argc, argv));
}

void quit(int status)
{
    for (;;)
        sys(SYS_exit_group, status);
}

void *memset(void *to, int byte, u32 size)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(byte) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, u32 size)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
    return to;
}

int equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

u32 number(const char *text)
{
    u32 n = 0;
    while (*text >= '0' && *text <= '9')
        n = n * 10 + (u32)(*text++ - '0');
    return n;
}

struct line { char text[512]; u32 length; };

static void put(struct line *line, char c)
{
    if (line->length < sizeof line->text - 1)
        line->text[line->length++] = c;
}

static void put_text(struct line *line, const char *text)
{
    while (*text)
        put(line, *text++);
}

static void put_number(struct line *line, u32 value, u32 base)
{
    char digits[12];
    u32 n = 0;
    do
        digits[n++] = "0123456789abcdef"[value % base];
    while (value /= base);
    while (n)
        put(line, digits[--n]);
}

static void put_format(struct line *line, const char *format, __builtin_va_list arguments)
{
    for (; *format; format++) {
        if (*format != '%') {
            put(line, *format);
            continue;
        }
        switch (*++format) {
        case 's': put_text(line, __builtin_va_arg(arguments, const char *)); break;
        case 'u': put_number(line, __builtin_va_arg(arguments, u32), 10); break;
        case 'x': put_number(line, __builtin_va_arg(arguments, u32), 16); break;
        case 'd': {
            int value = __builtin_va_arg(arguments, int);
            if (value < 0)
                put(line, '-');
            put_number(line, value < 0 ? -(u32)value : (u32)value, 10);
            break;
        }
        default: put(line, '?');
        }
    }
}

void say(const char *format, ...)
{
    struct line line = { .length = 0 };
    __builtin_va_list arguments;
    __builtin_va_start(arguments, format);
    put_format(&line, format, arguments);
    __builtin_va_end(arguments);
    put(&line, '\n');
    sys(SYS_write, 1, line.text, line.length);
}

/* What stands before a result's name: which way of running it this is. */
const char *phase = "";

void result(const char *name, const char *format, ...)
{
    struct line line = { .length = 0 };
    __builtin_va_list arguments;
    put_text(&line, "R3:");
    put_text(&line, phase);
    put_text(&line, program);
    put(&line, '/');
    put_text(&line, name);
    put(&line, ':');
    __builtin_va_start(arguments, format);
    put_format(&line, format, arguments);
    __builtin_va_end(arguments);
    put(&line, '\n');
    sys(SYS_write, 1, line.text, line.length);
}

static const char *signal_name(int sig)
{
    switch (sig) {
    case SIGILL: return "ILL";
    case SIGTRAP: return "TRAP";
    case SIGBUS: return "BUS";
    case SIGFPE: return "FPE";
    case SIGSEGV: return "SEGV";
    case SIGSYS: return "SYS";
    case SIGALRM: return "ALRM";
    default: return "?";
    }
}

void report(const char *name, const void *code)
{
    const struct outcome *o = &outcome;
    if (o->sig == 0) {
        result(name, "ran");
        return;
    }
    int at = (int)(o->eip - (u32)code);
    if (at < -4096 || at > 4096)
        /* not in the attempt: absolute */
        result(name, "%s code %d trap %u err %x eip %x cr2 %x", signal_name(o->sig), o->code,
               o->trapno, o->err, o->eip, o->trapno == 14 ? o->cr2 : 0);
    else if (o->trapno == 14)
        result(name, "%s code %d trap %u err %x eip %d addr %x cr2 %x", signal_name(o->sig),
               o->code, o->trapno, o->err, at, o->addr, o->cr2);
    else if (o->addr == o->eip)
        result(name, "%s code %d trap %u err %x eip %d addr eip", signal_name(o->sig), o->code,
               o->trapno, o->err, at);
    else
        result(name, "%s code %d trap %u err %x eip %d addr %x", signal_name(o->sig), o->code,
               o->trapno, o->err, at, o->addr);
}

void *map(u32 address, u32 size, int prot, int flags)
{
    return (void *)sys(SYS_mmap2, address, size, prot, flags | MAP_ANONYMOUS, -1, 0);
}

int fork_(void)
{
    return (int)sys(SYS_fork);
}

/* The status word of a child, as wait4 gives it. */
int wait_for(int pid)
{
    int status = -1;
    long got;
    do
        got = sys(SYS_wait4, pid, &status, 0, 0);
    while (got == -4); /* EINTR */
    return got < 0 ? (int)got : status;
}

u32 now_ms(void)
{
    struct { int seconds, nanoseconds; } time;
    sys(SYS_clock_gettime, 1, &time);
    return (u32)time.seconds * 1000 + (u32)time.nanoseconds / 1000000;
}

/* Rounds of a generator: a computation that touches no memory. */
u32 rounds(u32 n, u32 seed)
{
    while (n--) {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
    }
    return seed;
}

u32 warm(void)
{
    static u32 seed = 1;
    return seed = rounds(6u << 20, seed);
}

void alarm_ms(u32 ms)
{
    struct { u32 seconds, microseconds; } timer[2] = { { 0, 0 }, { ms / 1000, ms % 1000 * 1000 } };
    sys(SYS_setitimer, 0, timer, 0);
}

void sleep_ms(u32 ms)
{
    struct { u32 seconds, nanoseconds; } time = { ms / 1000, ms % 1000 * 1000000 };
    sys(SYS_nanosleep, &time, &time);
}

void drop_privileges(void)
{
    sys(SYS_setgroups32, 0, 0);
    sys(SYS_setgid32, 1000);
    sys(SYS_setuid32, 1000);
    /* Else no tracer of this user may look at the memory. */
    sys(172 /* prctl */, 4 /* PR_SET_DUMPABLE */, 1, 0, 0, 0);
}
