/* Every selector into every segment register, far transfers through every selector, local and
 * thread-local descriptors, virtual-8086 mode, and what ring 3 can read of the system registers.
 *
 * `selectors all` loads all 65536 values; without it those that a descriptor table may have and a
 * sample of the others.
 */
#include "guest.h"

static int hot, all;

/* In pages of its own: a monitor that runs programs on the bare processor cannot make an
 * instruction that reads a selector trap, and may have to treat the whole page in another way. */
#define APART __attribute__((section("apart"), aligned(4096), noinline))

CODE(load_ds, "mov %eax, %ds");
CODE(load_es, "mov %eax, %es");
CODE(load_fs, "mov %eax, %fs");
CODE(load_gs, "mov %eax, %gs");
CODE(load_ss, "mov data_selector, %ecx\nmov %eax, %ss\nmov %ecx, %ss");
CODE(pop_ds, "push %eax\npop %ds");
CODE(pop_es, "push %eax\npop %es");
CODE(pop_gs, "push %eax\npop %gs");
CODE(load_far_pointer, "push %eax\npush $0\nlfs (%esp), %ecx");

static void note(u32 *list, u32 *count, u32 selector)
{
    if (*count < 12)
        list[*count] = selector;
    ++*count;
}

static void told(const char *name, const u32 *list, u32 count, u32 right, u32 tried)
{
    static char text[200];
    char *at = text;
    for (u32 i = 0; i < count && i < 12; i++) {
        *at++ = ' ';
        for (int shift = 12; shift >= 0; shift -= 4)
            *at++ = "0123456789abcdef"[list[i] >> shift & 15];
    }
    *at = 0;
    result(name, "%u of %u refused as they should, %u taken:%s", right, tried, count, text);
}

/* What can be loaded, and whether all else is #GP with the selector. */
static void every_selector(const char *name, const u8 *code, u32 offset)
{
    u32 list[12], taken = 0, right = 0, tried = 0;
    for (u32 s = 0; s < 0x10000; s += s < 0x400 || all ? 1 : 251) {
        if (hot && tried % 256 == 0)
            warm();
        tried++;
        attempt_with(code, s, 0);
        if (outcome.sig == 0)
            note(list, &taken, s);
        else if (outcome.sig == SIGSEGV && outcome.trapno == 13 && outcome.err == (s & 0xfffc)
                 && outcome.eip == (u32)code + offset && outcome.code == 0x80)
            right++;
        else
            report("other", code);
    }
    told(name, list, taken, right, tried);
}

/* A far transfer to each selector; the target's address is of no use to code of another kind. */
static void every_target(const char *name, int call)
{
    u8 *code = map(0, 4096, RWX, MAP_PRIVATE);
    u32 list[12], taken = 0, right = 0, tried = 0;
    for (u32 s = 0; s < 0x10000; s += s < 0x400 || all ? 1 : 251) {
        code[0] = call ? 0x9a : 0xea;
        *(u32 *)(code + 1) = (u32)code + 16;
        *(u16 *)(code + 5) = (u16)s;
        code[16] = 0xe9;
        *(u32 *)(code + 17) = (u32)attempt_end - (u32)(code + 21);
        /* The host's 64-bit segment is the business of another program. */
        if ((s | 3) == 0x33)
            continue;
        if (hot && tried % 256 == 0)
            warm();
        tried++;
        attempt(code);
        if (outcome.sig == 0)
            note(list, &taken, s);
        else if (outcome.sig == SIGSEGV && outcome.trapno == 13 && outcome.err == (s & 0xfffc)
                 && outcome.eip == (u32)code)
            right++;
        else
            report("other", code);
    }
    told(name, list, taken, right, tried);
}

/* asm/ldt.h */
struct user_desc { u32 entry, base, limit, flags; };
enum { SEG_32 = 1, CONTENTS_CODE = 4, READ_EXEC_ONLY = 8, LIMIT_IN_PAGES = 16, NOT_PRESENT = 32, USEABLE = 64, EXPAND_DOWN = 2 };

static u32 words[4] = { 0x11112222, 0x33334444, 0x55556666, 0x77778888 };

CODE(gs_first, "mov %eax, %gs\nmov %gs:0, %eax");
CODE(gs_last, "mov %eax, %gs\nmov %gs:12, %eax");
CODE(gs_beyond, "mov %eax, %gs\nmov %gs:13, %eax");
CODE(gs_write, "mov %eax, %gs\nmovl $5, %gs:4");
CODE(ds_first, "mov %eax, %ds\nmov 4, %eax");
CODE(es_string, "mov %eax, %es\nxor %edi, %edi\nmov $4, %ecx\nmov $0x99999999, %eax\nrep stosl");
CODE(ss_load, "mov %eax, %ss");
CODE(ss_use, "mov data_selector, %ecx\nmov %esp, %edx\nmov %eax, %ss\nmov $16, %esp\npush $7\nmov %ecx, %ss\nmov %edx, %esp");
CODE(ldt_code, "push %eax\npush $0\nljmp *(%esp)");
CODE(ldt_code_16, "push %eax\npush $0\nljmp *(%esp)");

static void attempt_selector(const char *name, const u8 *code, u32 selector)
{
    if (hot)
        warm();
    if (attempt_with(code, selector, 0) == 0)
        result(name, "ran, eax %x", outcome.eax);
    else
        report(name, code);
}

/* As the GNU C library does it to make a thread. */
static APART u32 selector_in_gs(void)
{
    u32 selector;
    __asm__ volatile("mov %%gs, %0" : "=r"(selector));
    return selector;
}

static void descriptors(void)
{
    struct user_desc d = { 0xffffffff, (u32)words, 15, SEG_32 | USEABLE };
    result("set_thread_area", "%d", sys(SYS_set_thread_area, &d));
    u32 tls = d.entry * 8 + 3;
    result("tls_selector", "%x", tls);
    attempt_selector("tls_first", gs_first, tls);
    attempt_selector("tls_last", gs_last, tls);
    attempt_selector("tls_beyond", gs_beyond, tls);
    attempt_selector("tls_write", gs_write, tls);
    result("tls_written", "%x", words[1]);
    /* Kept over a computation and a system call. */
    u32 got;
    __asm__ volatile("mov %0, %%gs" : : "r"(tls));
    warm();
    sys(SYS_getppid);
    __asm__ volatile("mov %%gs:8, %0" : "=r"(got));
    result("tls_kept", "%x", got);
    warm();
    result("tls_read", "%x", selector_in_gs());
    __asm__ volatile("mov %0, %%gs" : : "r"(0));

    const struct { const char *name; struct user_desc desc; const u8 *code; } local[] = {
        { "ldt_data", { 0, (u32)words, 15, SEG_32 | USEABLE }, gs_last },
        { "ldt_data_beyond", { 0, (u32)words, 15, SEG_32 | USEABLE }, gs_beyond },
        { "ldt_ds", { 1, (u32)words, 15, SEG_32 | USEABLE }, ds_first },
        { "ldt_es_string", { 1, (u32)words, 15, SEG_32 | USEABLE }, es_string },
        { "ldt_es_string_beyond", { 1, (u32)words, 11, SEG_32 | USEABLE }, es_string },
        { "ldt_read_only", { 2, (u32)words, 15, SEG_32 | USEABLE | READ_EXEC_ONLY }, gs_write },
        { "ldt_not_present", { 3, (u32)words, 15, SEG_32 | NOT_PRESENT }, load_gs },
        { "ldt_ss_not_present", { 3, (u32)words, 15, SEG_32 | NOT_PRESENT }, ss_load },
        { "ldt_ss", { 4, (u32)words, 15, SEG_32 | USEABLE }, ss_use },
        { "ldt_ss_beyond", { 4, (u32)words, 11, SEG_32 | USEABLE }, ss_use },
        { "ldt_ss_expand_down", { 4, (u32)words, 11, SEG_32 | USEABLE | EXPAND_DOWN }, ss_use },
        { "ldt_ss_expand_down_below", { 4, (u32)words, 15, SEG_32 | USEABLE | EXPAND_DOWN }, ss_use },
        { "ldt_cleared", { 0, 0, 0, READ_EXEC_ONLY | NOT_PRESENT }, gs_first },
    };
    for (u32 i = 0; i < sizeof local / sizeof *local; i++) {
        struct user_desc desc = local[i].desc;
        if (sys(SYS_modify_ldt, 17, &desc, sizeof desc) != 0)
            result(local[i].name, "no descriptor");
        else
            attempt_selector(local[i].name, local[i].code, desc.entry * 8 + 7);
    }
    /* Code segments: one with a base, one of 16 bits. */
    static u8 *code;
    code = map(0, 4096, RWX, MAP_PRIVATE);
    static const u8 back[] = { 0xb8, 0x78, 0x56, 0x34, 0x12, 0xea };
    memcpy(code, back, sizeof back);
    *(u32 *)(code + 6) = (u32)attempt_end;
    u16 cs = (u16)code_selector;
    *(u16 *)(code + 10) = cs;
    struct user_desc text = { 5, (u32)code, 1, SEG_32 | CONTENTS_CODE | LIMIT_IN_PAGES | USEABLE };
    sys(SYS_modify_ldt, 17, &text, sizeof text);
    attempt_selector("ldt_code", ldt_code, 5 * 8 + 7);
    /* mov ax, 5678h (16-bit); then a far jump with 32-bit operand */
    static const u8 back_16[] = { 0xb8, 0x78, 0x56, 0x66, 0xea };
    memcpy(code, back_16, sizeof back_16);
    *(u32 *)(code + 5) = (u32)attempt_end;
    *(u16 *)(code + 9) = cs;
    text = (struct user_desc){ 5, (u32)code, 4095, CONTENTS_CODE | USEABLE };
    sys(SYS_modify_ldt, 17, &text, sizeof text);
    attempt_selector("ldt_code_16", ldt_code_16, 5 * 8 + 7);
    code[0] = 0x0f, code[1] = 0x0b;
    attempt_selector("ldt_code_16_ud2", ldt_code_16, 5 * 8 + 7);
    text = (struct user_desc){ 5, (u32)code, 4095, CONTENTS_CODE | NOT_PRESENT };
    sys(SYS_modify_ldt, 17, &text, sizeof text);
    attempt_selector("ldt_code_not_present", ldt_code, 5 * 8 + 7);
}

/* asm/vm86.h */
static struct {
    u32 ebx, ecx, edx, esi, edi, ebp, eax, orig_eax, ds, es, fs, gs, eip, cs, eflags, esp, ss,
        segments[8], flags, screen, type, revectored[8], revectored21[8];
} vm;

static void virtual_8086(void)
{
    u8 *low = (u8 *)sys(SYS_mmap2, 0x10000, 0x10000, RWX, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0);
    if (low != (u8 *)0x10000) {
        result("vm86", "no memory below 1 MiB");
        return;
    }
    /* mov ax,1234h; add ax,[100h]; int 42h */
    static const u8 code[] = { 0xb8, 0x34, 0x12, 0x03, 0x06, 0x00, 0x01, 0xcd, 0x42 };
    memcpy(low, code, sizeof code);
    *(u16 *)(low + 0x100) = 0x1111;
    vm.cs = vm.ds = vm.es = vm.ss = 0x1000;
    vm.esp = 0xfff0;
    vm.eflags = 0x20202;
    vm.type = 3; /* 386 */
    for (int i = 0; i < 8; i++)
        vm.revectored[i] = 0xffffffff;
    if (hot)
        warm();
    long got = sys(SYS_vm86, 1, &vm);
    result("vm86", "returned %x, ax %x, ip %x", got, vm.eax & 0xffff, vm.eip);
}

static APART void what_can_be_read(void)
{
    struct { u16 limit; u32 base; } __attribute__((packed)) table = { 0, 0 };
    u32 value;
    __asm__ volatile("sidt %0" : "=m"(table));
    result("sidt_limit", "%x", table.limit);
    __asm__ volatile("sgdt %0" : "=m"(table));
    result("sgdt_limit", "%x", table.limit);
    __asm__ volatile("sldt %0" : "=r"(value));
    result("sldt", "%x", value);
    __asm__ volatile("str %0" : "=r"(value));
    result("str", "%x", value);
    __asm__ volatile("smsw %0" : "=r"(value));
    result("smsw", "%x", value & 0xffff);
    u32 cs, ds, es, ss;
    __asm__ volatile("mov %%cs, %0\nmov %%ds, %1\nmov %%es, %2\nmov %%ss, %3" : "=r"(cs), "=r"(ds), "=r"(es), "=r"(ss));
    result("selectors", "cs %x ds %x es %x ss %x", cs, ds, es, ss);
    u32 ok, limit = 0, access = 0;
    __asm__ volatile("lsl %2, %0\nsetz %b1" : "+r"(limit), "=q"(ok) : "r"(ss));
    __asm__ volatile("lar %1, %0" : "+r"(access) : "r"(ss));
    result("lsl_of_ss", "%x, lar %x", limit, access & 0xf0ff00);
    u8 readable, writable;
    __asm__ volatile("verr %w2\nsetz %0\nverw %w2\nsetz %1" : "=q"(readable), "=q"(writable) : "r"(cs));
    result("verify_cs", "%u %u", readable, writable);
    __asm__ volatile("lar %1, %0\nsetz %b0" : "=q"(ok) : "r"(0x60));
    result("lar_of_kernel_code", "%u", ok & 0xff);
    u32 rpl = 0;
    __asm__ volatile("mov $0x78, %0\nmov $3, %%ecx\narpl %%cx, %w0" : "=&r"(rpl) : : "ecx");
    result("arpl", "%x", rpl);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        hot |= equal(argv[i], "hot");
        all |= equal(argv[i], "all");
    }
    phase = hot ? "hot-" : "";
    drop_privileges();
    reload_segments = 1;
    /* Linux leaves the shell's thread-local descriptors in the GDT until the next task switch. */
    sleep_ms(2);
    if (hot)
        warm();
    what_can_be_read();
    every_selector("ds", load_ds, 0);
    every_selector("es", load_es, 0);
    every_selector("fs", load_fs, 0);
    every_selector("gs", load_gs, 0);
    every_selector("ss", load_ss, 6);
    every_selector("pop_ds", pop_ds, 1);
    every_selector("pop_es", pop_es, 1);
    every_selector("pop_gs", pop_gs, 1);
    every_selector("lfs", load_far_pointer, 3);
    every_target("far_jump", 0);
    every_target("far_call", 1);
    descriptors();
    virtual_8086();
    return 0;
}
