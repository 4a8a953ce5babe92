/* Code that ring 3 writes, moves, protects and forks while it runs. */
#include "guest.h"

static int hot;

/* mov eax, n; ret */
static void write_return(u8 *at, u32 n)
{
    at[0] = 0xb8;
    *(u32 *)(at + 1) = n;
    at[5] = 0xc3;
}

static u32 call(const u8 *at)
{
    return ((u32(*)(void))at)();
}

static void rewritten(void)
{
    u8 *code = map(0, 4096, RWX, MAP_PRIVATE);
    u32 wrong = 0;
    for (u32 i = 0; i < 20000; i++) {
        write_return(code + i % 64 * 16, i);
        wrong += call(code + i % 64 * 16) != i;
    }
    result("rewritten", "%u wrong", wrong);
}

/* Writes while a loop over the code is warm: a byte of an instruction that has run often. */
static void patched_when_warm(void)
{
    u8 *code = map(0, 4096, RWX, MAP_PRIVATE);
    /* mov ecx,100000; 1: add eax,1; dec ecx; jnz 1b; ret */
    static const u8 loop[] = { 0xb9, 0xa0, 0x86, 1, 0, 0x05, 1, 0, 0, 0, 0x49, 0x75, 0xf8, 0xc3 };
    memcpy(code, loop, sizeof loop);
    u32 wrong = 0;
    for (u32 i = 0; i < 64; i++) {
        code[6] = (u8)i;
        u32 sum;
        __asm__ volatile("xor %%eax, %%eax\ncall *%1" : "=&a"(sum) : "r"(code) : "ecx", "cc", "memory");
        wrong += sum != 100000 * i;
    }
    result("patched_when_warm", "%u wrong", wrong);
}

/* An instruction that changes the next one, in the same straight line. */
static void changes_the_next(void)
{
    u8 *code = map(0, 4096, RWX, MAP_PRIVATE);
    u32 wrong = 0;
    /* mov byte [code+12], cl; nop x5 ; mov eax, imm; ret */
    code[0] = 0x88, code[1] = 0x0d;
    *(u32 *)(code + 2) = (u32)code + 8;
    code[6] = 0x90;
    write_return(code + 7, 0);
    for (u32 i = 0; i < 256; i++) {
        if (hot && i % 64 == 0)
            warm();
        u32 got;
        __asm__ volatile("call *%2" : "=a"(got) : "c"(i), "r"(code) : "cc", "memory");
        wrong += (got & 0xff) != i;
    }
    result("changes_the_next", "%u wrong", wrong);
}

/* Written through one address, executed at another. */
static void aliased(void)
{
    long fd = sys(SYS_memfd_create, "code", 0);
    sys(93 /* ftruncate */, fd, 8192);
    u8 *writable = (u8 *)sys(SYS_mmap2, 0, 8192, RW, MAP_SHARED, fd, 0);
    u8 *executable = (u8 *)sys(SYS_mmap2, 0, 8192, RX, MAP_SHARED, fd, 0);
    u32 wrong = 0;
    for (u32 i = 0; i < 5000; i++) {
        if (hot && i % 1000 == 0)
            warm();
        write_return(writable + 4090 + i % 8, i);
        wrong += call(executable + 4090 + i % 8) != i;
    }
    result("aliased", "%u wrong", wrong);
    /* By a system call: the kernel writes. */
    u8 bytes[6];
    for (u32 i = 0; i < 200; i++) {
        if (hot && i % 50 == 0)
            warm();
        write_return(bytes, i + 7);
        sys(181 /* pwrite64 */, fd, bytes, 6, 64, 0);
        wrong += call(executable + 64) != i + 7;
    }
    result("written_by_the_kernel", "%u wrong", wrong);
}

/* Writable, then executable, then writable: each flip by mprotect. */
static void write_xor_execute(void)
{
    u8 *code = map(0, 8192, RW, MAP_PRIVATE);
    u32 wrong = 0, faults = 0;
    for (u32 i = 0; i < 400; i++) {
        if (hot && i % 100 == 50)
            warm();
        sys(SYS_mprotect, code, 8192, RW);
        write_return(code + 100, i);
        sys(SYS_mprotect, code, 8192, RX);
        wrong += call(code + 100) != i;
        if (i % 8 == 0) {
            /* and a write is refused now */
            extern const u8 store[];
            faults += attempt_with(store, (u32)code, 0) == SIGSEGV && outcome.err == 7
                && outcome.cr2 == (u32)code;
        }
    }
    result("write_xor_execute", "%u wrong, %u of 50 writes refused", wrong, faults);
}
CODE(store, "mov %edx, (%eax)");
CODE(enter, "jmp *%eax");

/* A child changes its copy of the code, the parent's stays. */
static void forked(void)
{
    u8 *code = map(0, 4096, RWX, MAP_PRIVATE);
    u32 wrong = 0;
    for (u32 i = 0; i < 40; i++) {
        write_return(code, i);
        call(code);
        int child = fork_();
        if (child == 0) {
            if (hot && i % 10 == 0)
                warm();
            u32 bad = call(code) != i;
            write_return(code, i + 1000);
            bad += call(code) != i + 1000;
            quit((int)bad);
        }
        if (i & 1) {
            write_return(code, i + 2000);
            wrong += call(code) != i + 2000;
        }
        wrong += wait_for(child) != 0;
        wrong += call(code) != (i & 1 ? i + 2000 : i);
    }
    result("forked", "%u wrong", wrong);
}

/* Unmapped code, other code mapped in its place. */
static void replaced(void)
{
    u32 wrong = 0, faults = 0;
    u8 *code = (u8 *)0x30000000;
    for (u32 i = 0; i < 100; i++) {
        if (hot && i % 25 == 0)
            warm();
        map((u32)code, 4096, RWX, MAP_PRIVATE | MAP_FIXED);
        write_return(code, i);
        wrong += call(code) != i;
        sys(SYS_munmap, code, 4096);
        attempt_with(enter, (u32)code, 0);
        faults += outcome.sig == SIGSEGV && outcome.trapno == 14 && outcome.eip == (u32)code
            && outcome.cr2 == (u32)code;
    }
    result("replaced", "%u wrong, %u of 100 entries refused", wrong, faults);
}

int main(int argc, char **argv)
{
    hot = argc > 1 && equal(argv[1], "hot");
    phase = hot ? "hot-" : "";
    drop_privileges();
    rewritten();
    patched_when_warm();
    changes_the_next();
    aliased();
    write_xor_execute();
    forked();
    replaced();
    return 0;
}
