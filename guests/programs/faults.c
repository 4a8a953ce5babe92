/* Every exception that ring 3 can raise, and what its handler sees: signal, code, vector, error
 * code, instruction and address.  `faults hot` computes before each, so that it arises in code
 * that runs directly where the monitor does that.
 */
#include "guest.h"

/* Pages with known rights, at known addresses. */
#define UNMAPPED 0x20000000
#define READ_ONLY 0x20010000
#define NO_ACCESS 0x20020000
#define DATA 0x20030000 /* two pages, the next one unmapped */
#define DATA_S "0x20030000"

CODE(divide_by_zero, "xor %ecx, %ecx\nmov $7, %eax\ncltd\ndiv %ecx");
CODE(divide_overflow, "mov $1, %ecx\nmov $5, %edx\ndiv %ecx");
CODE(idiv_overflow, "mov $0x80000000, %eax\ncltd\nmov $-1, %ecx\nidiv %ecx");
CODE(aam_zero, ".byte 0xd4, 0");
CODE(div_memory, "movl $0, " DATA_S "\nmov $1, %eax\nxor %edx, %edx\ndivl " DATA_S);
CODE(int1, ".byte 0xcd, 1");
CODE(icebp, ".byte 0xf1");
CODE(int3, "nop\nint3");
CODE(int_3, ".byte 0xcd, 3");
CODE(into_taken, "mov $0x7fffffff, %eax\nadd $1, %eax\ninto");
CODE(into_not_taken, "xor %eax, %eax\ninto");
CODE(bound_outside, "movl $5, " DATA_S "\nmovl $9, " DATA_S "+4\nmov $10, %eax\nbound %eax, " DATA_S);
CODE(bound_inside, "movl $5, " DATA_S "\nmovl $9, " DATA_S "+4\nmov $9, %eax\nbound %eax, " DATA_S);
CODE(ud2, "ud2");
CODE(ud1, ".byte 0x0f, 0xb9, 0xc0");
CODE(ud0, ".byte 0x0f, 0xff, 0xc0");
CODE(lock_register, ".byte 0xf0, 0x01, 0xc0");
CODE(lock_nop, ".byte 0xf0, 0x90");
CODE(mov_cs, ".byte 0x8e, 0xc8");
CODE(undefined_group, ".byte 0xff, 0xff");
CODE(lea_register, ".byte 0x8d, 0xc0");
CODE(syscall_instruction, "mov $20, %eax\n.byte 0x0f, 0x05");
CODE(sysret_instruction, ".byte 0x0f, 0x07");
CODE(vmcall, ".byte 0x0f, 0x01, 0xc1");
CODE(vmmcall, ".byte 0x0f, 0x01, 0xd9");
CODE(monitor_instruction, ".byte 0x0f, 0x01, 0xc8");
CODE(rsm, ".byte 0x0f, 0xaa");
CODE(hlt, "hlt");
CODE(cli, "cli");
CODE(sti, "sti");
CODE(in_byte, "mov $0x80, %edx\nin %dx, %al");
CODE(in_immediate, ".byte 0xe4, 0x60");
CODE(out_byte, "mov $0x3f8, %edx\nout %al, %dx");
CODE(ins, "mov $" DATA_S ", %edi\nmov $0x80, %edx\ninsb");
CODE(rep_outs, "mov $" DATA_S ", %esi\nmov $4, %ecx\nmov $0x80, %edx\nrep outsl");
CODE(mov_from_cr0, "mov %cr0, %eax");
CODE(mov_to_cr3, "mov %eax, %cr3");
CODE(mov_from_dr7, "mov %dr7, %eax");
CODE(mov_to_dr0, "mov %eax, %dr0");
CODE(lgdt, "lgdt " DATA_S);
CODE(lidt, "lidt " DATA_S);
CODE(lldt, "lldt %ax");
CODE(ltr, "ltr %ax");
CODE(lmsw, "lmsw %ax");
CODE(clts, "clts");
CODE(invd, "invd");
CODE(wbinvd, "wbinvd");
CODE(invlpg, "invlpg " DATA_S);
CODE(rdmsr, "mov $0x10, %ecx\nrdmsr");
CODE(wrmsr, "mov $0x10, %ecx\nwrmsr");
CODE(rdpmc, "xor %ecx, %ecx\nrdpmc");
CODE(sysexit, "sysexit");
CODE(iret_to_ring_0, "pushf\npush $0x60\npush $1f\niret\n1:");
CODE(far_to_kernel_code, "ljmp $0x60, $0");
CODE(load_kernel_data, "mov $0x68, %eax\nmov %eax, %ds");
CODE(load_tss_selector, "mov $0x80, %eax\nmov %eax, %es");
CODE(null_ds_access, "xor %eax, %eax\nmov %eax, %ds\nmov (%eax), %eax");
CODE(null_ss, "xor %eax, %eax\nmov %eax, %ss");

CODE(read_null, "xor %eax, %eax\nmov (%eax), %eax");
CODE(write_null, "xor %eax, %eax\nmov %eax, 8(%eax)");
CODE(read_unmapped, "mov 0x20000123, %al");
CODE(write_unmapped, "movb $1, 0x20000123");
CODE(rmw_unmapped, "incl 0x20000ffe");
CODE(read_no_access, "mov 0x20020004, %eax");
CODE(write_read_only, "movl $1, 0x20010010");
CODE(rmw_read_only, "lock incl 0x20010010");
CODE(cmpxchg_fails_read_only, "mov $1, %eax\ncmpxchg %ecx, 0x20010010");
CODE(read_read_only, "mov 0x20010010, %eax");
CODE(write_crossing, "movl $1, 0x20031ffd");
CODE(read_kernel, "mov 0xc0000000, %eax");
CODE(write_kernel, "movl $0, 0xc0100000");
CODE(read_top, "mov 0xfffffffc, %eax");
CODE(write_top, "movl $0, 0xfffff000");
CODE(read_fixmap, "mov 0xffffe000, %eax");
CODE(execute_unmapped, "mov $0x20000010, %eax\njmp *%eax");
CODE(execute_kernel, "mov $0xc0100000, %eax\njmp *%eax");
CODE(execute_data, "movb $0xc3, " DATA_S "\nmov $" DATA_S ", %eax\ncall *%eax");
CODE(execute_crossing, "movb $0x05, 0x20031fff\nmov $0x20031fff, %eax\njmp *%eax");
CODE(push_unmapped, "mov $0x20001000, %esp\npush %eax");
CODE(call_unmapped_stack, "mov $0x20001000, %esp\ncall 1f\n1:");
CODE(pop_unmapped, "mov $0x20000800, %esp\npop %eax");
CODE(ret_to_unmapped, "push $0x20000040\nret");
CODE(string_into_unmapped, "mov $0x20031ff0, %edi\nmov $0x40, %ecx\nrep stosb");
CODE(wrap_4g, "mov 0xfffffffe, %eax");

CODE(x87_divide_by_zero, "fninit\npushl $0x33b\nfldcw (%esp)\nfld1\nfldz\nfdivrp\nfwait");
CODE(x87_invalid, "fninit\npushl $0x33e\nfldcw (%esp)\nfldz\nfldz\nfdivrp\nnop\nfnop");
CODE(x87_stack, "fninit\npushl $0x33e\nfldcw (%esp)\nfstp %st(0)\nfwait");
CODE(sse_divide_by_zero, "pushl $0x1d80\nldmxcsr (%esp)\nxorps %xmm1, %xmm1\nmovl $0x3f800000, (%esp)\nmovss (%esp), %xmm0\ndivss %xmm1, %xmm0");
CODE(sse_invalid, "pushl $0x1f00\nldmxcsr (%esp)\nxorps %xmm1, %xmm1\ndivss %xmm1, %xmm1");
CODE(ldmxcsr_reserved, "pushl $0x80000000\nldmxcsr (%esp)");
CODE(movaps_unaligned, "movaps 0x20030004, %xmm0");
CODE(movaps_store_unaligned, "movaps %xmm0, 0x20030008");
CODE(fxsave_unaligned, "fxsave 0x20030008");

CODE(single_step, "pushf\norl $0x100, (%esp)\npopf\nnop\nnop");
CODE(single_step_into_fault, "pushf\norl $0x100, (%esp)\npopf\nud2");
CODE(popf_keeps_if, "pushf\nandl $~0x200, (%esp)\npopf\npushf\npop %eax\nand $0x200, %eax\nadd $-0x200, %eax\njz 1f\nud2\n1:");
CODE(popf_keeps_iopl, "pushf\norl $0x3000, (%esp)\npopf\npushf\npop %eax\nand $0x3000, %eax\njz 1f\nud2\n1:");
CODE(popf_sets_nt, "pushf\norl $0x4000, (%esp)\npopf\npushf\npop %eax\nand $0x4000, %eax\njnz 1f\nud2\n1:");
CODE(iret_with_nt, "pushf\norl $0x4000, (%esp)\npopf\nsub $8, %esp\niret");
CODE(popf_id, "pushf\npop %ecx\nmov %ecx, %eax\nxor $0x200000, %eax\npush %eax\npopf\npushf\npop %eax\nxor %ecx, %eax\nand $0x200000, %eax\njnz 1f\nud2\n1:push %ecx\npopf");
CODE(popf_vm, "pushf\norl $0x30000, (%esp)\npopf\npushf\npop %eax\nand $0x30000, %eax\njz 1f\nud2\n1:");
CODE(ac_unaligned_read, "pushf\norl $0x40000, (%esp)\npopf\nmov 0x20030001, %eax");
CODE(ac_unaligned_write, "pushf\norl $0x40000, (%esp)\npopf\nmovw %ax, 0x20030003");
CODE(ac_unaligned_push, "pushf\norl $0x40000, (%esp)\npopf\ndec %esp\npush %eax");
CODE(ac_aligned, "pushf\norl $0x40000, (%esp)\npopf\nmov 0x20030004, %eax\nmov 0x20030003, %al\nmovw 0x20030006, %cx");

#define T(name) { #name, name }
static const struct { const char *name; const u8 *code; } attempts[] = {
    T(execute_data), T(divide_by_zero), T(divide_overflow), T(idiv_overflow), T(aam_zero), T(div_memory),
    T(int1), T(icebp), T(int3), T(int_3), T(into_taken), T(into_not_taken),
    T(bound_outside), T(bound_inside), T(ud2), T(ud1), T(ud0), T(lock_register), T(lock_nop),
    T(mov_cs), T(undefined_group), T(lea_register), T(syscall_instruction), T(sysret_instruction),
    T(vmcall), T(vmmcall), T(monitor_instruction), T(rsm), T(hlt), T(cli), T(sti), T(in_byte),
    T(in_immediate), T(out_byte), T(ins), T(rep_outs), T(mov_from_cr0), T(mov_to_cr3),
    T(mov_from_dr7), T(mov_to_dr0), T(lgdt), T(lidt), T(lldt), T(ltr), T(lmsw), T(clts), T(invd),
    T(wbinvd), T(invlpg), T(rdmsr), T(wrmsr), T(rdpmc), T(sysexit), T(iret_to_ring_0),
    T(far_to_kernel_code), T(load_kernel_data), T(load_tss_selector), T(null_ds_access), T(null_ss),
    T(read_null), T(write_null), T(read_unmapped), T(write_unmapped), T(rmw_unmapped),
    T(read_no_access), T(write_read_only), T(rmw_read_only), T(cmpxchg_fails_read_only),
    T(read_read_only), T(write_crossing), T(read_kernel), T(write_kernel), T(read_top),
    T(write_top), T(read_fixmap), T(execute_unmapped), T(execute_kernel), 
    T(execute_crossing), T(push_unmapped), T(call_unmapped_stack), T(pop_unmapped),
    T(ret_to_unmapped), T(string_into_unmapped), T(wrap_4g),
    T(x87_divide_by_zero), T(x87_invalid), T(x87_stack), T(sse_divide_by_zero), T(sse_invalid),
    T(ldmxcsr_reserved), T(movaps_unaligned), T(movaps_store_unaligned), T(fxsave_unaligned),
    T(single_step), T(single_step_into_fault), T(popf_keeps_if), T(popf_keeps_iopl),
    T(popf_sets_nt), T(iret_with_nt), T(popf_id), T(popf_vm), T(ac_unaligned_read),
    T(ac_unaligned_write), T(ac_unaligned_push), T(ac_aligned),
};

/* `int n` for every n: each but 3, 4 and 80h is #GP with the gate's number. */
static void every_interrupt(int hot)
{
    static u8 *code;
    if (!code)
        code = map(0, 4096, RWX, MAP_PRIVATE);
    u32 as_expected = 0;
    for (u32 n = 0; n < 256; n++) {
        if (n == 3 || n == 4 || n == 0x80)
            continue;
        code[0] = 0xcd;
        code[1] = (u8)n;
        code[2] = 0xe9;
        *(u32 *)(code + 3) = (u32)attempt_end - (u32)(code + 7);
        if (hot && n % 32 == 0)
            warm();
        attempt(code);
        if (outcome.sig == SIGSEGV && outcome.trapno == 13 && outcome.err == n * 8 + 2
            && outcome.eip == (u32)code && outcome.code == 0x80 && outcome.addr == 0)
            as_expected++;
        else
            report("int_n", code);
    }
    result("every_int_n", "%u of 253 #GP with the gate", as_expected);
    /* `int 4` goes through INTO's gate. */
    code[1] = 4;
    if (hot)
        warm();
    attempt(code);
    report("int_4", code);
}

static void reset_floating_point(void)
{
    static const u32 mxcsr = 0x1f80;
    __asm__ volatile("fninit\nldmxcsr %0" : : "m"(mxcsr));
}

int main(int argc, char **argv)
{
    int hot = argc > 1 && equal(argv[1], "hot");
    phase = hot ? "hot-" : "";
    drop_privileges();
    map(READ_ONLY, 4096, PROT_READ, MAP_PRIVATE | MAP_FIXED);
    map(NO_ACCESS, 4096, 0, MAP_PRIVATE | MAP_FIXED);
    map(DATA, 8192, RW, MAP_PRIVATE | MAP_FIXED);
    for (u32 i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        if (hot)
            warm();
        attempt(attempts[i].code);
        report(attempts[i].name, attempts[i].code);
        reset_floating_point();
    }
    every_interrupt(hot);
    return 0;
}
