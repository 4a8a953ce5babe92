; Virtual-8086 mode: Intel SDM vol. 3B, chapter 21 (8086 emulation).
; The V86 code is 16-bit code copied to 0x10000, run with CS=0x1000; its stack is SS=0x2000.
%include "boot.inc"

VCS     equ 0x1000
VSS     equ 0x2000
VDS     equ 0x3000
VES     equ 0x4000
VFS     equ 0x5000
VGS     equ 0x6000
VM      equ 1 << 17
result  equ user_vars

; V86 routine, flags: runs the routine (an offset in the copied code) with these flags besides VM;
; ends at the next exception.
%macro V86 2
        TRY %%after
        push dword VGS
        push dword VFS
        push dword VDS
        push dword VES
        push dword VSS
        push dword 0x8000
        push dword (%2) | VM | 2
        push dword VCS
        push dword %1 - v86_start
        iretd
%%after:
        mov dword [try_resume], 0
%endmacro

; V86_FAULT name, routine, flags, vector, error, address
%macro V86_FAULT 6
        V86 %2, %3
        FAULT %1, %4, %5, %6 - v86_start
%endmacro

main:
        mov esi, v86_start
        mov edi, VCS * 16
        mov ecx, v86_end - v86_start
        rep movsb
        mov dword [VDS * 16 + 0x10], 0xd5d5d5d5
        mov dword [VES * 16 + 0x10], 0xe5e5e5e5
        mov dword [VFS * 16 + 0x10], 0xf5f5f5f5
        mov dword [VGS * 16 + 0x10], 0x65656565

; ---- entry, segments, exit
        V86_FAULT "ud2 in V86 mode", enter_v, 0, 6, 0, enter_end
        EQ "CS on the frame", [exc_cs], VCS
        EQ "SS on the frame", [exc_ss], VSS
        EQ "ESP on the frame", [exc_esp], 0x7ffe
        mov eax, [exc_eflags]
        and eax, VM | 0x3000
        EQ "VM on the frame", eax, VM
        mov ebx, [exc_frame]
        EQ "ES on the frame", [ebx + 24], VES
        EQ "DS on the frame", [ebx + 28], VDS
        EQ "FS on the frame", [ebx + 32], VFS
        EQ "GS on the frame", [ebx + 36], VGS
        EQ "ring 0 finds DS null", [exc_ds], 0
        EQ "ring 0 finds ES null", [exc_es], 0
        mov eax, fs
        mov ebx, gs
        EQ "ring 0 finds FS null", eax, 0
        EQ "ring 0 finds GS null", ebx, 0
        pushfd
        pop eax
        and eax, VM
        EQ "ring 0 has VM clear", eax, 0
        EQ "DS addresses by its paragraph", [exc_eax], 0xd5d5d5d5
        EQ "ES", [exc_ebx], 0xe5e5e5e5
        EQ "FS", [exc_ecx], 0xf5f5f5f5
        EQ "GS", [exc_edx], 0x65656565
        EQ "a value pushed arrives at SS:SP", [VSS * 16 + 0x7ffe], 0x00001234
        EQ "lea and segment arithmetic", [exc_esi], 0x2345
        EQ "a far jump changes CS", [exc_edi], VCS + 1

; ---- segments loaded in V86 mode
        V86_FAULT "segment loads", loads, 0, 6, 0, loads_end
        EQ "mov ds, then read", [exc_eax], 0xe5e5e5e5
        EQ "les loads the offset", [exc_ebx], 0x10
        EQ "les loads the segment", [exc_ecx], VFS
        EQ "read by it", [exc_edx], 0xf5f5f5f5
        EQ "pop ds", [exc_esi], 0x65656565
        mov ebx, [exc_frame]
        EQ "the frame has the new ES", [ebx + 24], VFS
        EQ "the frame has the new DS", [ebx + 28], VGS
        V86_FAULT "far call and retf", far_v, 0, 6, 0, far_end
        EQ "far call pushed CS and IP", [exc_eax], VCS
        EQ "stack balanced", [exc_esp], 0x8000
        mov byte [0x10ffef], 0x77           ; FFFF:FFFF
        V86_FAULT "FFFF:FFFF", high_v, 0, 6, 0, high_end
        EQ "reads above 1 MiB (no A20 wrap)", [exc_eax], 0x77
        NOT_QEMU .no_limit
        V86_FAULT "word at FFFF", limit_v, 0, 13, 0, limit_v
        V86_FAULT "32-bit offset above FFFF", limit2_v, 0, 13, 0, limit2_at
        V86_FAULT "push at SP=1", limit3_v, 0, 12, 0, limit3_at
.no_limit:

; ---- IOPL 3: the sensitive instructions work; IOPL < 3: #GP(0)
        V86_FAULT "IOPL 3: cli sti pushf popf", flags_v, 0x3000, 6, 0, flags_end
        mov eax, [exc_eax]
        and eax, 0x3202
        EQ "popf changes IF and not IOPL", eax, 0x3202
        mov eax, [exc_ebx]
        and eax, 0x3202
        EQ "pushf after cli", eax, 0x3002
        V86_FAULT "IOPL 3: iret", iret_v, 0x3000, 6, 0, iret_end
        EQ "iret took IP, CS, flags", [exc_esp], 0x8000
        mov eax, [exc_eflags]
        and eax, VM | 0x3001
        EQ "iret in V86 mode keeps VM and IOPL", eax, VM | 0x3001
        V86_FAULT "IOPL 0: cli", cli_v, 0, 13, 0, cli_v
        V86_FAULT "IOPL 0: sti", sti_v, 0, 13, 0, sti_v
        V86_FAULT "IOPL 0: pushf", pushf_v, 0, 13, 0, pushf_v
        V86_FAULT "IOPL 0: popf", popf_v, 0, 13, 0, popf_v
        V86_FAULT "IOPL 0: iret", iret0_v, 0, 13, 0, iret0_v
        V86_FAULT "IOPL 0: int n", int_v, 0, 13, 0, int_v
        V86_FAULT "IOPL 2: cli", cli_v, 0x2000, 13, 0, cli_v
        V86_FAULT "IOPL 2: int n", int_v, 0x2000, 13, 0, int_v
        EQ "a sensitive instruction that faults leaves ESP", [exc_esp], 0x8000

; ---- interrupts
        GATE idt + 0x21 * 8, CODE32, v86_int, 0xee, 0
        V86_FAULT "IOPL 3: int n through a gate of DPL 3", int_v, 0x3000, 6, 0, int_end
        EQ "the gate's code ran in ring 0", [result], CODE32
        EQ "its frame had V86's CS", [result + 4], VCS
        EQ "it came back by iret", [exc_eax], 0x9999
        GATE idt + 0x21 * 8, CODE32, v86_int, 0x8e, 0
        V86_FAULT "IOPL 3: int n through a gate of DPL 0", int_v, 0x3000, 13, 0x21 * 8 + 2, int_v
        V86_FAULT "int3 through a gate of DPL 0", int3_v, 0, 13, 3 * 8 + 2, int3_v
        mov byte [idt + 3 * 8 + 5], 0xee
        V86_FAULT "int3 needs no IOPL", int3_v, 0, 3, 0, int3_after
        mov byte [idt + 3 * 8 + 5], 0x8e
        GATE idt + 0x22 * 8, USER_CODE, v86_int, 0xee, 0
        V86_FAULT "IOPL 3: gate to a ring other than 0", int22_v, 0x3000, 13, USER_CODE & ~3, int22_v
        V86_FAULT "divide error", div_v, 0, 0, 0, div_at

; ---- emulated by the monitor, in the manner of DOS extenders: int n reflected
        mov dword [hook], reflect
        mov word [0x21 * 4], service - v86_start
        mov word [0x21 * 4 + 2], VCS
        V86 reflect_v, 0
        mov dword [hook], 0
        EQ "int 21h reflected 100 times", [exc_eax], 100
        EQ "ends at the ud2", [exc_vector], 6
        EQ "with the stack as before", [exc_esp], 0x8000

; ---- privileged instructions
        V86_FAULT "hlt", hlt_v, 0x3000, 13, 0, hlt_v
        V86_FAULT "mov from cr0", cr_v, 0x3000, 13, 0, cr_v
        V86_FAULT "lgdt", lgdt_v, 0x3000, 13, 0, lgdt_v
        V86_FAULT "clts", clts_v, 0x3000, 13, 0, clts_v
        V86_FAULT "lldt is invalid", lldt_v, 0x3000, 6, 0, lldt_v
        V86_FAULT "ltr is invalid", ltr_v, 0x3000, 6, 0, ltr_v
        V86_FAULT "sldt is invalid", sldt_v, 0x3000, 6, 0, sldt_v
        V86_FAULT "str is invalid", str_v, 0x3000, 6, 0, str_v
        V86_FAULT "lar is invalid", lar_v, 0x3000, 6, 0, lar_v
        V86_FAULT "verr is invalid", verr_v, 0x3000, 6, 0, verr_v
        V86_FAULT "arpl is invalid", arpl_v, 0x3000, 6, 0, arpl_v
        V86_FAULT "smsw works", smsw_v, 0, 6, 0, smsw_end
        mov eax, [exc_eax]
        and eax, 1
        EQ "smsw shows PE", eax, 1

; ---- I/O: the bitmap alone decides, whatever IOPL says
        V86_FAULT "in with IOPL 3 and no bitmap", in_v, 0x3000, 13, 0, in_v
        mov word [tss + 0x66], 0x68
        mov byte [tss + 0x68 + 0x10], 0xfe
        mov byte [tss + 0x68 + 0x11], 0xff
        V86_FAULT "in with IOPL 0 and a bitmap that allows it", in_v, 0, 6, 0, in_end
        V86_FAULT "in of the next port", in2_v, 0x3000, 13, 0, in2_v
        mov word [tss + 0x66], 0x1000
        ret

; The gate's handler: notes CS and the frame's CS, sets AX.
v86_int:
        push dword DATA32
        pop ds
        mov eax, cs
        mov [result], eax
        movzx eax, word [esp + 4]
        mov [result + 4], eax
        mov eax, 0x9999
        iretd

; Exception hook: on #GP for "int n" or "iret" does what a real-mode processor would, in the V86
; stack, and goes back.
reflect:
        cmp dword [exc_vector], 13
        jne .no
        mov ebx, [exc_frame]
        movzx edi, word [ebx + 8]
        shl edi, 4
        add edi, [ebx + 4]
        movzx esi, word [ebx + 20]
        shl esi, 4
        cmp byte [edi], 0xcd
        jne .iret
        movzx edx, byte [edi + 1]
        mov ecx, [ebx + 16]
        sub ecx, 6
        mov [ebx + 16], ecx
        add esi, ecx
        mov eax, [ebx + 4]
        add eax, 2
        mov [esi], ax
        mov eax, [ebx + 8]
        mov [esi + 2], ax
        mov eax, [ebx + 12]
        mov [esi + 4], ax
        movzx eax, word [edx * 4]
        mov [ebx + 4], eax
        movzx eax, word [edx * 4 + 2]
        mov [ebx + 8], eax
        stc
        ret
.iret:  cmp byte [edi], 0xcf
        jne .no
        mov ecx, [ebx + 16]
        add esi, ecx
        add ecx, 6
        mov [ebx + 16], ecx
        movzx eax, word [esi]
        mov [ebx + 4], eax
        movzx eax, word [esi + 2]
        mov [ebx + 8], eax
        stc
        ret
.no:    clc
        ret

        bits 16
        align 16
v86_start:
enter_v:
        mov esi, 0x2345
        push si
        pop si
        mov eax, [0x10]
        mov ebx, [es:0x10]
        mov ecx, [fs:0x10]
        mov edx, [gs:0x10]
        push word 0x1234
        jmp VCS + 1:enter_far - v86_start - 16
enter_far:
        xor edi, edi
        mov di, cs
        jmp VCS:enter_end - v86_start
enter_end: ud2
loads:  mov ax, VES
        mov ds, ax
        mov eax, [0x10]
        mov dword [0x20], VFS << 16 | 0x10
        les bx, [0x20]
        movzx ebx, bx
        xor ecx, ecx
        mov cx, es
        mov edx, [es:bx]
        push word VGS
        pop ds
        mov esi, [0x10]
loads_end: ud2
far_v:  call VCS:far_sub - v86_start
far_end: ud2
far_sub: mov bp, sp
        xor eax, eax
        mov ax, [bp + 2]
        retf
high_v: mov ax, 0xffff
        mov ds, ax
        xor eax, eax
        mov al, [0xffff]
high_end: ud2
limit_v: mov ax, [0xffff]
        ud2
limit2_v: mov ebx, 0x10000
limit2_at: mov al, [ebx]
        ud2
limit3_v: mov sp, 1
limit3_at: push ax
        ud2
flags_v: cli
        xor ebx, ebx
        pushf
        pop bx
        sti
        cli
        push word 0x0202
        popf
        xor eax, eax
        pushf
        pop ax
        cli
flags_end: ud2
iret_v: push word 1
        push cs
        push word iret_end - v86_start
        iret
iret_end: ud2
cli_v:  cli
        ud2
sti_v:  sti
        ud2
pushf_v: pushf
        ud2
popf_v: popf
        ud2
iret0_v: iret
        ud2
int_v:  int 0x21
int_end: ud2
int22_v: int 0x22
        ud2
int3_v: int3
int3_after: ud2
div_v:  xor cx, cx
div_at: div cx
        ud2
reflect_v:
        xor eax, eax
        mov cx, 100
.again: int 0x21
        loop .again
        ud2
service: inc ax
        iret
hlt_v:  hlt
        ud2
cr_v:   mov eax, cr0
        ud2
lgdt_v: lgdt [0]
        ud2
clts_v: clts
        ud2
lldt_v: lldt ax
        ud2
ltr_v:  ltr ax
        ud2
sldt_v: sldt ax
        ud2
str_v:  str ax
        ud2
lar_v:  lar ax, ax
        ud2
verr_v: verr ax
        ud2
arpl_v: arpl ax, ax
        ud2
smsw_v: smsw ax
smsw_end: ud2
in_v:   in al, 0x80
in_end: ud2
in2_v:  in al, 0x81
        ud2
v86_end:
        bits 32
        END
