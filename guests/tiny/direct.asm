; Ring 3 as it is executed directly where the monitor can: with interrupts on, flat segments, and
; all state components enabled. What page tables allow, and when a change of them is seen; what
; exceptions and the FPU bring back to ring 0. Intel SDM vol. 3A, 4.7, 4.8, 4.10, chapter 6.
%include "boot.inc"

pdpt    equ FREE
pd0     equ FREE + 0x1000
pd1     equ FREE + 0x2000       ; 0x40000000
ptt     equ FREE + 0x3000
ptt2    equ FREE + 0x4000       ; another table for the same pages
page_a  equ 0x600000
page_b  equ 0x601000
page_c  equ 0x602000
T       equ 0x40000000
user_stack equ 0x700000
state   equ 0x680000            ; an FXSAVE image
BASED   equ FIRST_FREE_SEL | 3
P equ 1
W equ 2
U equ 4
A equ 0x20
D equ 0x40
PS equ 0x80
NX equ 0x80000000

; SET page, physical, flags, upper half
%macro SET 4
        mov dword [ptt + (%1) * 8 + 4], %4
        mov dword [ptt + (%1) * 8], (%2) + (%3)
%endmacro

%macro INVAL 1
        invlpg [T + (%1) * 0x1000]
%endmacro

; MASKED name, value, mask, expected. Clobbers EAX.
%macro MASKED 4
        mov eax, %2
        and eax, %3
        EQ %1, eax, %4
%endmacro

; ENTER3 label: goes to label in ring 3 with its data segments and EFLAGS 0x202.
%macro ENTER3 1
        push dword USER_DATA
        push dword user_stack
        push dword 0x202
        push dword USER_CODE
        push dword %%in
        iretd
%%in:   mov eax, USER_DATA
        mov ds, eax
        mov es, eax
        jmp %1
%endmacro

; USER_FAULTS name, vector, error, instruction
%macro USER_FAULTS 4+
        TRY %%after
        ENTER3 %%user
%%user: nop
%%at:   %4
        ud2
%%after:
        FAULT %1, %2, %3, %%at
        EQ "... from ring 3", [exc_cs], USER_CODE
        MASKED "... with interrupts on", [exc_eflags], 0x300, 0x200
%endmacro

; USER_PAGE name, error, address, instruction
%macro USER_PAGE 4+
        USER_FAULTS %1, 14, %2, %4
        EQ "... its CR2", [exc_cr2], %3
%endmacro

; USER_GETS name, value, instructions: what EAX is after them.
%macro USER_GETS 3+
        TRY %%after
        ENTER3 %%user
%%user: %3
%%end:  ud2
%%after:
        FAULT %1, 6, 0, %%end
        EQ "... its result", [exc_eax], %2
%endmacro

; Not in a page with the exception handler, which tells selectors.
        align 4096
main:
        mov edi, pdpt
        mov ecx, 0x5000 / 4
        xor eax, eax
        rep stosd
        mov dword [pdpt], pd0 + P
        mov dword [pdpt + 8], pd1 + P
        mov edi, pd0
        mov eax, P | W | U | PS
        mov ecx, 8
.map:   stosd
        mov dword [edi], 0
        add edi, 4
        add eax, 0x200000
        loop .map
        mov dword [pd1], ptt + (P | W | U)
        mov eax, 1
        cpuid
        mov esi, ecx
        mov eax, cr4
        or eax, 1 << 5 | 1 << 9 | 1 << 10       ; PAE, OSFXSR, OSXMMEXCPT
        test esi, 1 << 26
        jz .no_xsave
        or eax, 1 << 18
.no_xsave:
        mov cr4, eax
        test esi, 1 << 26
        jz .state_on
        mov eax, 3
        test esi, 1 << 28
        jz .no_avx
        mov eax, 7
.no_avx:
        xor edx, edx
        xor ecx, ecx
        xsetbv
.state_on:
        mov eax, pdpt
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31 | 1 << 16
        mov cr0, eax
        jmp .on
.on:    mov dword [page_a], 0xaaaa0001
        mov dword [page_b], 0xbbbb0002
        mov dword [page_c], 0xcccc0003

; ---- accessed and dirty bits
        SET 0, page_a, P | W | U, 0
        USER_GETS "ring 3 reads a page", 0xaaaa0001, mov eax, [T]
        EQ "... which sets A only", [ptt], page_a + (P | W | U | A)
        TRY .written
        ENTER3 .write
.write: mov dword [T + 4], 0x1234
        mov dword [T + 8], 0x5678
.write_end: ud2
.written:
        FAULT "ring 3 writes a page", 6, 0, .write_end
        EQ "... which sets D", [ptt], page_a + (P | W | U | A | D)
        EQ "... and arrives", [page_a + 4], 0x1234
        EQ "... the second write too", [page_a + 8], 0x5678
        SET 0, page_a, P | W | U, 0
        INVAL 0
        USER_GETS "ring 3 reads it after A and D were cleared", 0xaaaa0001, mov eax, [T]
        EQ "... which sets A again", [ptt], page_a + (P | W | U | A)

; ---- page faults and their error codes
        USER_PAGE "read of a not-present page", 4, T + 0x1008, mov eax, [T + 0x1008]
        USER_PAGE "write of a not-present page", 6, T + 0x1008, mov [T + 0x1008], eax
        SET 1, page_b, P | U, 0
        USER_GETS "ring 3 reads a read-only page", 0xbbbb0002, mov eax, [T + 0x1000]
        USER_PAGE "write of a read-only page", 7, T + 0x1004, mov [T + 0x1004], eax
        SET 2, page_c, P | W, 0
        USER_PAGE "read of a supervisor page", 5, T + 0x2000, mov eax, [T + 0x2000]
        USER_PAGE "write of a supervisor page", 7, T + 0x2000, mov [T + 0x2000], eax
        USER_PAGE "no directory entry", 4, T + 0x200000, mov eax, [T + 0x200000]
        USER_PAGE "no pointer table entry", 4, 0x80000000, mov eax, [0x80000000]
        USER_PAGE "the top of the space", 4, 0xfffffffc, mov eax, [0xfffffffc]

; ---- changes of page tables
        SET 1, page_c, P | W | U, 0
        INVAL 1
        USER_GETS "another page after INVLPG", 0xcccc0003, mov eax, [T + 0x1000]
        mov edi, ptt + 8
        mov eax, page_a + (P | W | U)
        stosd
        INVAL 1
        USER_GETS "... changed by a string instruction", 0xaaaa0001, mov eax, [T + 0x1000]
        mov eax, page_b + (P | W | U)
        xchg [ptt + 8], eax
        INVAL 1
        USER_GETS "... by XCHG", 0xbbbb0002, mov eax, [T + 0x1000]
        mov eax, [ptt + 8]
        mov edx, [ptt + 12]
        mov ebx, page_c + (P | W | U)
        xor ecx, ecx
        lock cmpxchg8b [ptt + 8]
        INVAL 1
        USER_GETS "... by CMPXCHG8B", 0xcccc0003, mov eax, [T + 0x1000]
        mov byte [ptt + 8 + 1], (page_a >> 8) & 0xff
        mov byte [ptt + 8 + 2], (page_a >> 16) & 0xff
        mov byte [ptt + 8 + 1], (page_b >> 8) & 0xff
        mov eax, cr3
        mov cr3, eax
        USER_GETS "... by bytes, after a load of CR3", 0xbbbb0002, mov eax, [T + 0x1000]
        and dword [ptt + 8], ~W
        INVAL 1
        USER_PAGE "a page made read-only", 7, T + 0x1000, mov [T + 0x1000], eax
        and dword [ptt + 8], ~P
        INVAL 1
        USER_PAGE "a page taken away", 4, T + 0x1000, mov eax, [T + 0x1000]
        mov dword [ptt2 + 8], page_a + (P | W | U)
        mov dword [ptt2], page_c + (P | W | U)
        mov dword [pd1], ptt2 + (P | W | U)
        mov eax, cr3
        mov cr3, eax
        USER_GETS "another table", 0xaaaa0001, mov eax, [T + 0x1000]
        USER_GETS "... all of it", 0xcccc0003, mov eax, [T]
        and dword [pd1], ~U
        mov eax, cr3
        mov cr3, eax
        USER_PAGE "a supervisor directory entry", 5, T, mov eax, [T]
        mov dword [pd1], ptt + (P | W | U)
        mov eax, cr3
        mov cr3, eax

; ---- a table that ring 3 itself may write
        SET 1, page_a, P | W | U, 0
        SET 4, ptt, P | W | U | A | D, 0
        USER_GETS "ring 3 reads by its own table", 0xaaaa0001, mov eax, [T + 0x1000]
        TRY .changed
        ENTER3 .change
.change: mov eax, [T + 0x1000]
        mov dword [T + 0x4008], page_b + (P | W | U)
.change_end: ud2
.changed:
        FAULT "ring 3 writes its own table", 6, 0, .change_end
        MASKED "... which arrives", [ptt + 8], ~(A | D), page_b + (P | W | U)
        INVAL 1
        USER_GETS "... and counts after INVLPG", 0xbbbb0002, mov eax, [T + 0x1000]
        SET 4, 0, 0, 0
        INVAL 4

; ---- code that changes
        mov byte [page_a], 0xb8                 ; mov eax, imm32; ret
        mov dword [page_a + 1], 111
        mov byte [page_a + 5], 0xc3
        SET 1, page_a, P | W | U, 0
        INVAL 1
        USER_GETS "ring 3 runs code in a writable page", 111, call T + 0x1000
        mov dword [page_a + 1], 222
        USER_GETS "... changed by ring 0", 222, call T + 0x1000
        TRY .patched
        ENTER3 .patch
.patch: mov ebx, T + 0x1000
        call ebx
        mov ecx, eax
        mov dword [ebx + 1], 333
        call ebx
        shl ecx, 16
        or eax, ecx
.patch_end: ud2
.patched:
        FAULT "... changed by ring 3", 6, 0, .patch_end
        EQ "... before and after", [exc_eax], 222 << 16 | 333
        mov eax, 0x80000001
        cpuid
        test edx, 1 << 20
        jz .no_nx
        mov ecx, 0xc0000080
        rdmsr
        or eax, 1 << 11
        wrmsr
        SET 1, page_a, P | W | U, NX
        INVAL 1
        USER_GETS "ring 3 reads an NX page", 0xb8, movzx eax, byte [T + 0x1000]
        TRY .executed
        ENTER3 .execute
.execute: jmp T + 0x1000
.executed:
        FAULT "ring 3 executes an NX page", 14, 0x15, T + 0x1000
        EQ "... its CR2", [exc_cr2], T + 0x1000
.no_nx:

; ---- exceptions
        USER_FAULTS "division by zero", 0, 0, div dword [zero]
        USER_FAULTS "undefined instruction", 6, 0, ud1 eax, eax
        USER_FAULTS "HLT", 13, 0, hlt
        USER_FAULTS "CLI", 13, 0, cli
        USER_FAULTS "IN without permission", 13, 0, in al, 0x80
        USER_FAULTS "INT by a gate of ring 0", 13, 0x40 * 8 + 2, int 0x40
        USER_FAULTS "BOUND", 5, 0, bound eax, [bounds]
        USER_FAULTS "a load of a ring 0 selector", 13, DATA32, mov gs, word [kernel_selector]
        mov byte [idt + 3 * 8 + 5], 0xee
        mov byte [idt + 4 * 8 + 5], 0xee
        mov byte [idt + 0x80 * 8 + 5], 0xee
        TRY .int3
        ENTER3 .int3_at
.int3_at: int3
.int3_end: ud2
.int3:  FAULT "INT3", 3, 0, .int3_end
        TRY .int_3
        ENTER3 .int_3_at
.int_3_at: db 0xcd, 3
.int_3_end: ud2
.int_3: FAULT "INT 3", 3, 0, .int_3_end
        TRY .into
        ENTER3 .into_at
.into_at: mov al, 0x7f
        add al, 1
        into
.into_end: ud2
.into:  FAULT "INTO", 4, 0, .into_end
        TRY .int80
        ENTER3 .int80_at
.int80_at: mov eax, 0x12345678
        int 0x80
.int80_end: ud2
.int80: FAULT "INT 80h", 0x80, 0, .int80_end
        EQ "... with its registers", [exc_eax], 0x12345678
        NOT_QEMU .no_icebp                      ; which raises #UD
        TRY .icebp
        ENTER3 .icebp_at
.icebp_at: db 0xf1
.icebp_end: ud2
.icebp: FAULT "INT1", 1, 0, .icebp_end
.no_icebp:
        mov eax, 0xffff0ff0
        mov dr6, eax
        TRY .single
        ENTER3 .single_at
.single_at: pushfd
        or dword [esp], 0x100
        popfd
        nop
.single_end: ud2
.single: FAULT "a single step after POPF", 1, 0, .single_end
        mov eax, dr6
        EQ "... in DR6", eax, 0xffff4ff0
        TRY .popf
        ENTER3 .popf_at
.popf_at: push dword 0x3002
        popfd
        pushfd
        pop eax
.popf_end: ud2
.popf:  FAULT "POPF", 6, 0, .popf_end
        EQ "... changes neither IF nor IOPL", [exc_eax], 0x202

; ---- selectors and their bases
        DESCRIPTOR BASED - 3, page_b, 0xfffff, 0xf3, 0xc
        TRY .based
        ENTER3 .based_at
.based_at: mov eax, BASED
        mov gs, eax
        nop
        mov eax, [gs:0]
        jmp selector_in_gs
.based: FAULT "a segment with a base", 6, 0, selector_in_gs.end
        EQ "... is read", [exc_eax], 0xbbbb0002
        EQ "... and its selector", [exc_ecx], BASED
        TRY .later
        ENTER3 .later_at
.later_at: add dword [user_vars], 1
        jmp selector_in_gs
.later: FAULT "a selector loaded before", 6, 0, selector_in_gs.end
        EQ "... is read", [exc_ecx], BASED
        TRY .kept
        mov eax, BASED
        mov gs, eax
        ENTER3 .kept_at
.kept_at: mov eax, [gs:0]
.kept_end: ud2
.kept:  FAULT "a segment loaded by ring 0", 6, 0, .kept_end
        EQ "... is read", [exc_eax], 0xbbbb0002
        xor eax, eax
        mov gs, eax
        NOT_QEMU .no_null                       ; which lets it pass
        USER_FAULTS "a null segment", 13, 0, mov eax, [gs:0]
.no_null:

; ---- the time stamp counter
        rdtsc
        mov [user_vars], eax
        mov [user_vars + 4], edx
        TRY .tsc
        ENTER3 .tsc_at
.tsc_at: rdtsc
.tsc_end: ud2
.tsc:   FAULT "RDTSC", 6, 0, .tsc_end
        rdtsc
        sub eax, [exc_eax]
        sbb edx, [exc_edx]
        MASKED "... is not later than ring 0's next", edx, 0x80000000, 0
        mov eax, [exc_eax]
        mov edx, [exc_edx]
        sub eax, [user_vars]
        sbb edx, [user_vars + 4]
        MASKED "... nor earlier than its last", edx, 0x80000000, 0

; ---- FPU and SSE state there and back
        fninit
        fld1
        mov eax, 0x01020304
        movd xmm3, eax
        TRY .fpu
        ENTER3 .fpu_at
.fpu_at: fadd st0, st0
        paddd xmm3, xmm3
        fldpi
        movd eax, xmm3
.fpu_end: ud2
.fpu:   FAULT "x87 and SSE instructions", 6, 0, .fpu_end
        EQ "... find ring 0's state", [exc_eax], 0x02040608
        movd eax, xmm3
        EQ "... and leave theirs", eax, 0x02040608
        fstp st0
        fistp dword [user_vars]
        EQ "... on the x87 stack too", [user_vars], 2
        paddd xmm3, xmm3
        USER_GETS "ring 3 sees ring 0's change", 0x04080c10, movd eax, xmm3
        fninit
        mov word [user_vars], 0x37b             ; division by zero is not masked
        fldcw [user_vars]
        fld1
        fldz
        fdivp
        USER_FAULTS "a pending x87 exception", 16, 0, fwait
        fninit
        mov dword [user_vars], 0x1f80 & ~0x200
        ldmxcsr [user_vars]
        xorps xmm1, xmm1
        NOT_QEMU .no_sse                        ; which raises none
        USER_FAULTS "an SSE exception", 19, 0, divss xmm3, xmm1
.no_sse:
        mov dword [user_vars], 0x1f80
        ldmxcsr [user_vars]
        ret

zero:   dd 0
bounds: dd 5, 6
kernel_selector: dd DATA32

; In a page of its own: it tells the selector, and does not trap.
        align 4096
selector_in_gs:
        mov ecx, gs
.end:   ud2
        align 4096

        END
