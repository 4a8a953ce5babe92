/* Attacks on what may hold a program that runs directly: the host's 64-bit code segment, the
 * host's system calls by every entry, the address space above 4 GiB, the processor itself.
 *
 * On an i386 kernel each far jump to selector 33h is #GP(30h).  A monitor that lets the program
 * run on the bare processor may have to let it pass; then nothing that it does may have an effect
 * outside its own memory.  Each attack ends in a signal, and would leave evidence if it had one.
 *
 * Never to be run on a 64-bit host: there these are ordinary system calls, and are made.
 */
#include "guest.h"

volatile u32 evidence[4];
u8 buffer[256];
u8 frame[2048] __attribute__((aligned(64)));
u32 way_back[2];
extern u32 attempt_esp;

/* Into 64-bit code; ends in what follows, or in HLT. */
#define LONG(text) "ljmp $0x33, $1f\n1:\n.code64\n" text "\nhlt\n.code32\n"
/* EAX is the number; tempting arguments: descriptor 0, a buffer, 16 bytes. */
#define ARGUMENTS "xor %edi, %edi\nmov $buffer, %esi\nmov $16, %edx\nxor %r10d, %r10d\nxor %r8d, %r8d\nxor %r9d, %r9d\n"
#define EVIDENCE "mov $evidence, %ebx\nmovl $1, (%rbx)\nmov %eax, 4(%rbx)\n"

CODE(far_jump, "ljmp $0x33, $1f\n1: .byte 0x90\nnop");
CODE(far_call, "lcall $0x33, $1f\n1: .byte 0x90\nnop");
CODE(far_return, "push $0x33\npush $1f\nlret\n1: .byte 0x90\nnop");
CODE(interrupt_return, "pushf\npush $0x33\npush $1f\niret\n1: .byte 0x90\nnop");
CODE(syscall_64, LONG(ARGUMENTS "syscall\n" EVIDENCE));
CODE(int80_64, LONG(ARGUMENTS "int $0x80\n" EVIDENCE));
CODE(sysenter_64, LONG(ARGUMENTS "sysenter\n" EVIDENCE));
CODE(syscall_stepping, LONG(ARGUMENTS "pushfq\norl $0x100, (%rsp)\npopfq\nsyscall\n" EVIDENCE));
CODE(vsyscall, LONG("xor %edi, %edi\nmov %eax, %eax\nmov $-10485760, %rbx\nadd %rbx, %rax\ncall *%rax\n" EVIDENCE));
CODE(write_64, LONG("shl $32, %rdx\nmov %eax, %eax\nor %rdx, %rax\nmovl $0x41414141, (%rax)\n" EVIDENCE));
CODE(read_64, LONG("shl $32, %rdx\nmov %eax, %eax\nor %rdx, %rax\nmov (%rax), %eax\n" EVIDENCE));
CODE(segment_bases, LONG("mov $0x100000000, %rax\nwrfsbase %rax\nwrgsbase %rax\nmov %fs:0, %eax\n" EVIDENCE));
CODE(forged_64, LONG("mov $frame, %esp\nmov $15, %eax\nsyscall\n" EVIDENCE));
CODE(forged_x32, LONG("mov $frame, %esp\nmov $0x40000201, %eax\nsyscall\n" EVIDENCE));
CODE(jump_to_stub, LONG("mov %eax, %r11d\nmov $1, %eax\nshl $36, %rax\nadd %rax, %r11\n"
    "mov $9, %eax\nmov $0x30000000, %edi\nmov $4096, %esi\nmov $3, %edx\nmov $0x11, %r10d\n"
    "xor %r8d, %r8d\nxor %r9d, %r9d\nmov $frame, %ebx\njmp *%r11"));
CODE(read_30000000, "mov 0x30000000, %al");
/* Fills the area where the host may write signal frames, returns to 32-bit code and traps. */
CODE(scribble, LONG("mov $0x1000040000, %rdi\nmov $0x10000, %ecx\nmov $0x41, %al\nrep stosb\n" EVIDENCE
    "mov $way_back, %ebx\nljmp *(%rbx)"));
CODE(upper_registers, LONG("mov $-1, %r8\nmov %r8, %r9\nmov %r8, %r15\nmov $0x4444444400000000, %rbx\nmov %rbx, %rsp\n" EVIDENCE));
CODE(trap_32, "int3");
CODE(spin_64, LONG("2: jmp 2b"));
CODE(spin_64_blocking, LONG("mov $14, %eax\nxor %edi, %edi\nmov $frame, %esi\nxor %edx, %edx\nmov $8, %r10d\nsyscall\n2: jmp 2b"));
CODE(spin_cli, "pushf\nandl $~0x200, (%esp)\npopf\n2: jmp 2b");
CODE(spin_flags, "pushf\norl $0x44400, (%esp)\npopf\n2: jmp 2b");
CODE(spin_loop, "2: xor %ecx, %ecx\nloop .\njmp 2b");
CODE(spin_indirect, "mov $2f, %eax\n2: jmp *%eax");
CODE(spin_calls, "2: call 3f\njmp 2b\n3: ret");
CODE(spin_rep, "2: mov $buffer, %esi\nmov %esi, %edi\nmov $256, %ecx\nrep movsb\njmp 2b");

static int hot;
static void prepare(void)
{
    evidence[0] = 0;
    if (hot)
        warm();
}

/* How many of these ended in a signal without evidence. */
static void tally(const char *name, const u8 *code, const u32 *numbers, u32 count)
{
    u32 stopped = 0;
    for (u32 i = 0; i < count; i++) {
        if (i % 64 == 0)
            prepare();
        evidence[0] = 0;
        alarm_ms(10000); /* for one that does not end: a busy host takes its time */
        int sig = attempt_with(code, numbers[i], 0);
        alarm_ms(0);
        if (sig != 0 && sig != SIGALRM && evidence[0] == 0)
            stopped++;
        else
            result("CARRIED OUT", "%s %x: signal %d result %x", name, numbers[i], sig, evidence[1]);
    }
    result(name, "%u of %u stopped", stopped, count);
}

static u32 every_number(u32 *numbers)
{
    u32 n = 0;
    for (u32 i = 0; i <= 600; i++)
        numbers[n++] = i;
    for (u32 i = 0; i <= 600; i++)
        numbers[n++] = 0x40000000 + i;
    const u32 odd[] = { 0x3fffffff, 0x4000ffff, 0x7fffffff, 0x80000000, 0xfffffe00, 0xffffffff };
    for (u32 i = 0; i < 6; i++)
        numbers[n++] = odd[i];
    return n;
}

/* Ways into 64-bit code one by one: exact where the selector does not exist. */
static void ways_in(void)
{
    const struct { const char *name; const u8 *code; } ways[] = {
        { "far_jump", far_jump }, { "far_call", far_call }, { "far_return", far_return },
        { "interrupt_return", interrupt_return }, { "segment_bases", segment_bases },
        { "upper_registers", upper_registers }, { "forged_64", forged_64 }, { "forged_x32", forged_x32 },
    };
    for (u32 i = 0; i < sizeof ways / sizeof *ways; i++) {
        prepare();
        attempt(ways[i].code);
        report(ways[i].name, ways[i].code);
    }
}

static void addresses(void)
{
    u32 stopped = 0, tried = 0, survived = 0;
    for (u32 bit = 0; bit < 32; bit++)
        for (u32 kind = 0; kind < 4; kind++) {
            u64 address = 1ull << (32 + bit);
            if (kind == 1)
                address += 0x1000000000ull; /* beside the image */
            if (kind == 2)
                address = -address;
            if (kind == 3)
                address = 0x1000000000ull + bit * 0x1000;
            if (address >= 0x1000040000ull && address < 0x1000050000ull)
                continue; /* scratch memory of the executor */
            if (bit % 8 == 0)
                prepare();
            tried++;
            evidence[0] = 0;
            attempt_with(write_64, (u32)address, (u32)(address >> 32));
            if (outcome.sig == 0 || evidence[0])
                result("WRITTEN", "%x:%x", (u32)(address >> 32), (u32)address);
            else
                stopped++;
            attempt_with(read_64, (u32)address, (u32)(address >> 32));
            survived += outcome.sig != 0;
        }
    result("wild_writes_64", "%u of %u stopped", stopped, tried);
    result("wild_reads_64", "%u of %u ended", survived, tried);
    /* From 32-bit code: the kernel's part, a page of each MiB, and the last pages one by one. */
    static u8 *code;
    code = map(0, 4096, RWX, MAP_PRIVATE);
    u32 right = 0, all = 0;
    for (u32 address = 0xc0000000; address >= 0xc0000000;
         address += address < 0xffff0000 ? (address < 0xfff00000 ? 0x100000 : 0x10000) : 0x1000)
        for (int write = 0; write < 2; write++) {
            code[0] = write ? 0xa2 : 0xa0; /* mov [address], al or back */
            *(u32 *)(code + 1) = address;
            code[5] = 0xe9;
            *(u32 *)(code + 6) = (u32)attempt_end - (u32)(code + 10);
            if (hot && all % 256 == 0)
                warm();
            all++;
            attempt(code);
            if (outcome.sig == SIGSEGV && outcome.trapno == 14 && outcome.cr2 == address
                && outcome.addr == address && outcome.err == (write ? 7u : 5u) && outcome.eip == (u32)code)
                right++;
            else
                report("wild_32", code);
        }
    result("wild_32", "%u of %u", right, all);
}

static void stub(int step)
{
    /* A command of an executor: mmap of RAM at 30000000h, then the end. */
    const u32 command[] = { 9, 0, 0x30000000, 0, 4096, 0, 3, 0, 0x11, 0, 0, 0, 0, 0, 0, 0, 0xffffffff, 0xffffffff };
    memcpy(frame, command, sizeof command);
    u32 stopped = 0, tried = 0;
    for (u32 offset = 0; offset < 0x400; offset += (u32)step) {
        if (tried++ % 32 == 0)
            prepare();
        evidence[0] = 0;
        alarm_ms(100);
        int sig = attempt_with(jump_to_stub, offset, 0);
        alarm_ms(0);
        int mapped = attempt(read_30000000) == 0;
        if (sig != 0 && !mapped)
            stopped++;
        else
            result("STUB", "offset %x: signal %d mapped %d", offset, sig, mapped);
    }
    result("jump_to_stub", "%u of %u stopped", stopped, tried);
    way_back[0] = (u32)trap_32;
    way_back[1] = 0x23;
    prepare();
    int sig = attempt(scribble);
    result("scribble", sig ? "a signal" : "no signal");
    attempt(trap_32);
    report("trap_after_scribble", trap_32);
}

/* A child that does not let go is killed like any other, after `patience` hundredths of a second. */
static void spinning(const char *name, const u8 *code, u32 patience)
{
    int ready[2];
    char byte;
    sys(SYS_pipe, ready);
    int child = fork_();
    if (child == 0) {
        u32 all[2] = { 0xffffffff, 0xffffffff };
        sys(SYS_rt_sigprocmask, 2, all, 0, 8);
        const int fatal[] = { SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS };
        for (u32 i = 0; i < 6; i++) {
            u32 action[5] = { 0, 0, 0, 0, 0 };
            sys(SYS_rt_sigaction, fatal[i], action, 0, 8);
        }
        memset(frame, 0xff, 16);
        prepare();
        sys(SYS_write, ready[1], &byte, 1);
        if (hot)
            warm();
        attempt(code);
        quit(77);
    }
    sys(SYS_read, ready[0], &byte, 1);
    sys(SYS_close, ready[0]);
    sys(SYS_close, ready[1]);
    int status = -1;
    while (patience-- && sys(SYS_wait4, child, &status, 1 /* WNOHANG */, 0) == 0)
        sleep_ms(10);
    if (status == -1) {
        sys(SYS_kill, child, SIGKILL);
        status = wait_for(child);
    }
    result(name, status == SIGKILL ? "killed" : status == SIGSEGV ? "SEGV" : "status %x", status);
}

int main(int argc, char **argv)
{
    static u32 numbers[1300];
    static char system[65 * 6];
    sys(SYS_uname, system);
    /* A 64-bit kernel calls itself so, whoever asks. */
    if (!equal(system + 65 * 4, "i686")) {
        say("this is for i386 kernels only, not for %s", system + 65 * 4);
        return 2;
    }
    int step = 4;
    for (int i = 1; i < argc; i++) {
        hot |= equal(argv[i], "hot");
        if (equal(argv[i], "all"))
            step = 1;
    }
    phase = hot ? "hot-" : "";
    drop_privileges();
    ways_in();
    u32 count = every_number(numbers);
    tally("syscall_64", syscall_64, numbers, count);
    tally("int80_64", int80_64, numbers, count);
    tally("syscall_stepping", syscall_stepping, numbers, 601);
    tally("sysenter_64", sysenter_64, numbers, 64);
    const u32 entries[] = { 0, 0x400, 0x800 };
    tally("vsyscall", vsyscall, entries, 3);
    addresses();
    stub(step);
    spinning("spin_64", spin_64, 1000);
    spinning("spin_64_blocking", spin_64_blocking, 1000);
    spinning("spin_cli", spin_cli, 10);
    spinning("spin_flags", spin_flags, 10);
    spinning("spin_loop", spin_loop, 10);
    spinning("spin_indirect", spin_indirect, 10);
    spinning("spin_calls", spin_calls, 10);
    spinning("spin_rep", spin_rep, 10);
    return 0;
}
