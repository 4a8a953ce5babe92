; Protected rings and gates: Intel SDM vol. 3A, chapters 5 (protection) and 6 (interrupts).
%include "boot.inc"

LDT_SEL     equ 0x48
CALL_GATE   equ 0x50            ; to ring 0, two parameters, DPL 3
CONFORMING  equ 0x58
READ_ONLY   equ 0x60
EXEC_ONLY   equ 0x68
NOT_PRESENT equ 0x70
SMALL       equ 0x78            ; limit 0xfff
DOWN        equ 0x80            ; expand-down, limit 0xfff, 32-bit
RING1_CODE  equ 0x88 | 1
RING1_DATA  equ 0x90 | 1
GATE_DPL0   equ 0x98            ; a call gate that ring 3 may not use
GATE16      equ 0xa0            ; 16-bit call gate
FRESH       equ 0xa8            ; data, not yet accessed
CODE_NP     equ 0xb0
BASED       equ 0xb8            ; data with base FREE
GATE_NP     equ 0xc0
SMALL3      equ 0xe8 | 3        ; the same with DPL 3
SYS_CODE    equ 0xc8            ; four for sysenter: code, stack, user code, user stack
ldt         equ FREE + 0x10000
result      equ user_vars
user_stack  equ FREE + 0x8000

; RING3 label: goes to label in ring 3 with a fresh stack; IOPL 0, IF 0.
%macro RING3 1
        push dword USER_DATA
        push dword user_stack
        push dword 2
        push dword USER_CODE
        push dword %1
        iretd
%endmacro

; IN_RING3 name, vector, error, instruction: in ring 3 that instruction gives that exception.
%macro IN_RING3 4+
        TRY %%after
        RING3 %%user
%%user: mov eax, USER_DATA
        mov ds, eax
        mov es, eax
%%at:   %4
        ud2
%%after:
        FAULT %1, %2, %3, %%at
        EQ "... from ring 3", [exc_cs], USER_CODE
%endmacro

; USER_WORKS name, instruction: in ring 3 it does not fault (the ud2 after it is reached).
%macro USER_WORKS 2+
        TRY %%after
        RING3 %%user
%%user: mov eax, USER_DATA
        mov ds, eax
        mov es, eax
        %2
%%end:  ud2
%%after:
        FAULT %1, 6, 0, %%end
%endmacro

; USER_LOAD name, vector, error, selector, register: in ring 3 that load gives that exception.
%macro USER_LOAD 5
        TRY %%after
        RING3 %%user
%%user: mov ebx, USER_DATA
        mov ds, ebx
        mov eax, %4
%%at:   mov %5, ax
        ud2
%%after:
        FAULT %1, %2, %3, %%at
%endmacro

main:
        DESCRIPTOR LDT_SEL, ldt, 0x17, 0x82, 0
        GATE gdt + CALL_GATE, CODE32, gate_target, 0xec, 2
        DESCRIPTOR CONFORMING, 0, 0xfffff, 0x9f, 0xc
        DESCRIPTOR READ_ONLY, 0, 0xfffff, 0xf1, 0xc
        DESCRIPTOR EXEC_ONLY, 0, 0xfffff, 0x99, 0xc
        DESCRIPTOR NOT_PRESENT, 0, 0xfffff, 0x73, 0xc
        DESCRIPTOR SMALL, FREE, 0xfff, 0x93, 0x4
        DESCRIPTOR SMALL3, FREE, 0xfff, 0xf3, 0x4
        DESCRIPTOR DOWN, 0, 0xfff, 0x97, 0x4
        DESCRIPTOR RING1_CODE, 0, 0xfffff, 0xbb, 0xc
        DESCRIPTOR RING1_DATA, 0, 0xfffff, 0xb3, 0xc
        GATE gdt + GATE_DPL0, CODE32, gate_target, 0x8c, 0
        GATE gdt + GATE16, CODE32, gate16_target, 0xe4, 1
        DESCRIPTOR FRESH, 0, 0xfffff, 0x92, 0xc
        DESCRIPTOR CODE_NP, 0, 0xfffff, 0x1b, 0xc
        DESCRIPTOR BASED, FREE, 0xfffff, 0xf3, 0xc
        GATE gdt + GATE_NP, CODE32, gate_target, 0x6c, 0
        DESCRIPTOR SYS_CODE, 0, 0xfffff, 0x9b, 0xc
        DESCRIPTOR SYS_CODE + 8, 0, 0xfffff, 0x93, 0xc
        DESCRIPTOR SYS_CODE + 16, 0, 0xfffff, 0xfb, 0xc
        DESCRIPTOR SYS_CODE + 24, 0, 0xfffff, 0xf3, 0xc
        ; 16-bit gates need an offset below 64 KiB
        mov byte [0x7000], 0xe9
        mov dword [0x7001], gate16_target - 0x7005
        mov word [gdt + GATE16], 0x7000
        mov word [gdt + GATE16 + 6], 0

; ---- ring transitions
        IN_RING3 "ud2 in ring 3", 6, 0, ud2
        EQ "exception from ring 3 pushes SS", [exc_ss], USER_DATA
        EQ "exception from ring 3 pushes ESP", [exc_esp], user_stack
        EQ "handler of ring 0 sees ring 3's DS", [exc_ds], USER_DATA
        IN_RING3 "cli with IOPL 0", 13, 0, cli
        IN_RING3 "sti with IOPL 0", 13, 0, sti
        IN_RING3 "hlt", 13, 0, hlt
        IN_RING3 "mov from cr0", 13, 0, mov eax, cr0
        IN_RING3 "mov to cr3", 13, 0, mov cr3, eax
        IN_RING3 "mov from dr7", 13, 0, mov eax, dr7
        IN_RING3 "lgdt", 13, 0, lgdt [gdtr]
        IN_RING3 "lidt", 13, 0, lidt [idtr]
        IN_RING3 "lldt", 13, 0, lldt ax
        IN_RING3 "ltr", 13, 0, ltr ax
        IN_RING3 "clts", 13, 0, clts
        IN_RING3 "lmsw", 13, 0, lmsw ax
        IN_RING3 "invlpg", 13, 0, invlpg [0]
        IN_RING3 "wbinvd", 13, 0, wbinvd
        IN_RING3 "rdmsr", 13, 0, rdmsr
        IN_RING3 "wrmsr", 13, 0, wrmsr
        IN_RING3 "in without I/O bitmap", 13, 0, in al, 0x80
        IN_RING3 "outsb without I/O bitmap", 13, 0, outsb
        IN_RING3 "int 0x20, gate of DPL 0", 13, 0x20 * 8 + 2, int 0x20
        IN_RING3 "int 13, gate of DPL 0", 13, 13 * 8 + 2, int 13
        IN_RING3 "far jump to ring 0", 13, CODE32, jmp CODE32:main
        IN_RING3 "call gate of DPL 0", 13, GATE_DPL0, call GATE_DPL0:0
        USER_LOAD "load of a DPL 0 data segment", 13, DATA32, DATA32, ds
        USER_LOAD "load of a not-present segment", 11, NOT_PRESENT, NOT_PRESENT | 3, es
        USER_LOAD "load of an execute-only segment", 13, EXEC_ONLY, EXEC_ONLY, ds
        USER_LOAD "load of a TSS into DS", 13, TSS_SEL, TSS_SEL | 3, ds
        USER_LOAD "load of SS with RPL 0", 13, USER_DATA & ~3, USER_DATA & ~3, ss
        USER_LOAD "load of a null SS", 13, 0, 0, ss
        USER_LOAD "load of SS with a read-only segment", 13, READ_ONLY, READ_ONLY | 3, ss
        USER_LOAD "load beyond the GDT", 13, 0xfff8, 0xfffb, ds
        USER_LOAD "load from the LDT without one", 13, 0x0c, 0x0f, ds
        USER_WORKS "null DS loads", xor eax, eax
        USER_WORKS "smsw in ring 3", smsw eax
        USER_WORKS "sgdt in ring 3", sgdt [FREE]
        USER_WORKS "str in ring 3", str eax
        EQ "str gives the task register", [exc_eax], TSS_SEL
        USER_WORKS "sldt in ring 3", sldt eax
        EQ "sldt without LDT gives 0", [exc_eax], 0
        NOT_QEMU .null_done
        TRY .null
        RING3 .null_user
.null_user: xor eax, eax
        mov ds, eax
.null_at: mov eax, [FREE]
.null:  FAULT "null DS used", 13, 0, .null_at
.null_done:

; ---- popf and iret in ring 3
        TRY .popf_done
        RING3 .popf
.popf:  push dword 0x3202                       ; IOPL 3, IF 1
        popfd
        pushfd
        pop eax
.popf_end: ud2
.popf_done:
        FAULT "popf in ring 3 does not fault", 6, 0, .popf_end
        EQ "popf in ring 3 changes neither IF nor IOPL", [exc_eax], 2
        TRY .iopl_done
        push dword USER_DATA
        push dword user_stack
        push dword 0x3002                       ; IOPL 3, IF 0
        push dword USER_CODE
        push dword .iopl
        iretd
.iopl:  sti
        cli
        in al, 0x80
        push dword 0x0202
        popfd
        pushfd
        pop eax
        cli
.iopl_end: ud2
.iopl_done:
        FAULT "cli, sti and in with IOPL 3", 6, 0, .iopl_end
        EQ "popf with IOPL 3 changes IF, not IOPL", [exc_eax], 0x3202
        TRY .out_done
        RING3 .iret3
.iret3: push dword 0x3246                       ; iret to the same ring
        push dword USER_CODE
        push dword .iret_to
        iretd
.iret_to: pushfd
        pop eax
.iret_end: ud2
.out_done:
        FAULT "iret within ring 3", 6, 0, .iret_end
        EQ "iret within ring 3 changes neither IF nor IOPL", [exc_eax], 0x46
        TRY .in_done
        RING3 .inward
.inward: push dword 2
        push dword CODE32
        push dword .in_done
.in_at: iretd
.in_done:
        FAULT "iret to an inner ring", 13, CODE32, .in_at

; ---- I/O bitmap
        mov word [tss + 0x66], 0x68
        mov byte [tss + 0x68 + 0x10], 0xfe      ; port 0x80 allowed, 0x81.. not
        mov byte [tss + 0x68 + 0x11], 0xff
        mov dword [tss + 0x68 + 0x12], -1
        USER_WORKS "in of a port that the bitmap allows", in al, 0x80
        IN_RING3 "in of a port that the bitmap denies", 13, 0, in al, 0x81
        IN_RING3 "word in whose second port is denied", 13, 0, in ax, 0x80
        USER_WORKS "out of a port that the bitmap allows", out 0x80, al

; ---- interrupt and trap gates
        GATE idt + 0x30 * 8, CODE32, note_flags, 0xee, 0
        GATE idt + 0x31 * 8, CODE32, note_flags, 0xef, 0
        GATE idt + 0x32 * 8, CODE32, note_flags, 0x6e, 0
        GATE idt + 0x33 * 8, DATA32, note_flags, 0xee, 0
        GATE idt + 0x34 * 8, USER_CODE, note_flags, 0xee, 0
        GATE idt + 0x35 * 8, 0, note_flags, 0xee, 0
        push dword 0x4602                       ; NT, IOPL 0, IF 1, DF 1
        popfd
        int 0x30
        push dword 2
        popfd
        EQ "interrupt gate clears IF and NT, keeps DF", [result], 0x402
        EQ "the frame holds the old flags", [result + 4], 0x4602
        sti
        int 0x31
        cli
        EQ "trap gate keeps IF", [result], 0x202
        FAULTS "gate that is not present", 11, 0x32 * 8 + 2, int 0x32
        FAULTS "gate to a data segment", 13, DATA32, int 0x33
        FAULTS "gate to a segment of an outer ring", 13, USER_CODE & ~3, int 0x34
        FAULTS "gate to the null segment", 13, 0, int 0x35
        mov word [idtr], 0x30 * 8 - 1
        lidt [idtr]
        FAULTS "vector beyond the IDT", 13, 0x30 * 8 + 2, int 0x30
        mov word [idtr], 256 * 8 - 1
        lidt [idtr]
        USER_WORKS "int through a gate of DPL 3 comes back", int 0x30
        EQ "gate from ring 3 runs in ring 0", [result + 8], CODE32
        IN_RING3 "int3 through a gate of DPL 0", 13, 3 * 8 + 2, int3
        TRY .int3
.int3_at: int3
.int3:  FAULT "int3 pushes the next address", 3, 0, .int3_at + 1

; ---- double fault: #GP while its gate is not present
        mov byte [idt + 13 * 8 + 5], 0x0e
        TRY .double
        int 0x33
.double: mov byte [idt + 13 * 8 + 5], 0x8e
        EQ "#NP while delivering #GP is a double fault", [exc_vector], 8
        EQ "double fault's error code is 0", [exc_error], 0

; ---- call gates
        TRY .gate_done
        RING3 .gate
.gate:  mov eax, USER_DATA
        mov ds, eax
        push dword 0x1111
        push dword 0x2222
        call CALL_GATE | 3:0xdeadbeef
.gate_end: ud2
.gate_done:
        FAULT "call gate comes back by retf 8", 6, 0, .gate_end
        EQ "call gate copies the first parameter", [result], 0x2222
        EQ "call gate copies the second parameter", [result + 4], 0x1111
        EQ "call gate's frame holds the caller's CS", [result + 8], USER_CODE
        EQ "call gate's frame holds the caller's ESP", [result + 12], user_stack - 8
        EQ "call gate's frame holds the caller's SS", [result + 16], USER_DATA
        EQ "call gate's code runs in ring 0", [result + 20], CODE32
        EQ "retf 8 releases the caller's parameters", [exc_esp], user_stack
        push dword 1                            ; its retf 8 takes these two
        push dword 2
        call CALL_GATE:0
        EQ "call gate within ring 0 changes no stack", [result + 8], CODE32
        IN_RING3 "call gate that is not present", 11, GATE_NP, call GATE_NP | 3:0
        IN_RING3 "jmp through a gate to an inner ring", 13, CODE32, jmp CALL_GATE | 3:0
        ; a 16-bit return address has only its low half: the code there ends the test
        LOW equ (.gate16_end - start) & 0xffff
        mov word [LOW], 0x0b0f
        TRY .gate16_done
        RING3 .gate16
.gate16: push word 0x4321
        call GATE16 | 3:0
.gate16_end: ud2
.gate16_done:
        FAULT "16-bit call gate comes back", 6, 0, LOW
        EQ "16-bit call gate copies words", [result], 0x4321

; ---- conforming code, ring 1, retf outward
        TRY .conf_done
        RING3 .conf
.conf:  call CONFORMING:.conf_code
.conf_end: ud2
.conf_code: mov eax, cs
        retf
.conf_done:
        FAULT "conforming code is called from ring 3", 6, 0, .conf_end
        EQ "conforming code runs in the caller's ring", [exc_eax], CONFORMING | 3
        TRY .r1_done
        push dword RING1_DATA
        push dword user_stack
        push dword RING1_CODE
        push dword .ring1
        retf
.ring1: mov eax, ds                             ; DS of DPL 0 is nulled on the way out
        mov ebx, fs
        mov ecx, cs
        cli
.r1_done:
        EQ "retf to ring 1: cli faults", [exc_vector], 13
        EQ "retf outward loads CS", [exc_ecx], RING1_CODE
        EQ "retf outward nulls DS of an inner ring", [exc_eax], 0
        EQ "ring 1's stack", [exc_ss], RING1_DATA
        TRY .r1_clts
        push dword RING1_DATA
        push dword user_stack
        push dword 0x1002                       ; IOPL 1
        push dword RING1_CODE
        push dword .ring1b
        iretd
.ring1b: sti
        cli
.clts:  clts
.r1_clts:
        FAULT "ring 1 with IOPL 1: sti works, clts does not", 13, 0, .clts

; ---- segment types and limits (the last byte before a fault must work)
        mov eax, SMALL
        mov fs, eax
        mov byte [FREE + 0xfff], 0x5a
        WORKS "last byte of a segment", mov al, [fs:0xfff]
        EQ "base is added", eax, SMALL & 0xffffff00 | 0x5a
        mov eax, BASED
        mov gs, eax
        mov dword [FREE + 0x123], 0x89abcdef
        mov eax, [gs:0x123]
        EQ "gs base", eax, 0x89abcdef
        mov dword [gs:-4], 0x77777777
        EQ "base plus offset wraps at 4 GiB", [FREE - 4], 0x77777777
        NOT_QEMU .limits_done
        FAULTS "byte beyond the limit", 13, 0, mov al, [fs:0x1000]
        FAULTS "word across the limit", 13, 0, mov ax, [fs:0xfff]
        FAULTS "dword across the limit", 13, 0, mov [fs:0xffd], eax
        FAULTS "read-modify-write across the limit", 13, 0, add dword [fs:0xffe], 1
        FAULTS "offset that wraps across the limit", 13, 0, mov eax, [fs:0xfffffffe]
        mov eax, DOWN
        mov fs, eax
        FAULTS "expand-down: at the limit", 13, 0, mov al, [fs:0xfff]
        WORKS "expand-down: above the limit", mov al, [fs:0x1000]
        mov eax, READ_ONLY
        mov fs, eax
        WORKS "read of a read-only segment", mov al, [fs:FREE]
        FAULTS "write to a read-only segment", 13, 0, mov [fs:FREE], al
        FAULTS "write to a code segment", 13, 0, mov byte [cs:FREE], 1
        jmp CODE32:.here
.here:  jmp EXEC_ONLY:.exec
.exec:  FAULTS "read of execute-only code", 13, 0, mov al, [cs:FREE]
        jmp CODE32:.exec_done
.exec_done:
        xor eax, eax
        mov fs, eax
        FAULTS "null FS used", 13, 0, mov al, [fs:FREE]
        STACK_FAULT "push across the stack segment's limit", 12, 0, SMALL3, 0x1002, push dword 1
        STACK_FAULT "pop across the stack segment's limit", 12, 0, SMALL3, 0xffe, pop eax
        STACK_FAULT "read by ESP beyond the stack segment", 12, 0, SMALL3, 0x1004, mov eax, [esp]
        STACK_FAULT "pushad that ends below the stack segment", 12, 0, SMALL3, 0x10, pushad
        STACK_FAULT "call whose push is beyond the stack segment", 12, 0, SMALL3, 0x1001, call main
        STACK_FAULT "push of a word at 1", 12, 0, SMALL3, 1, push word 1
.limits_done:

; ---- the accessed bit, lar, lsl, verr, verw, arpl
        EQ "accessed bit is clear before", [gdt + FRESH + 4], 0x00cf9200
        mov eax, FRESH
        mov fs, eax
        EQ "a load sets the accessed bit", [gdt + FRESH + 4], 0x00cf9300
        xor eax, eax
        mov fs, eax
        mov ecx, READ_ONLY
        lar eax, ecx
        FLAGS "lar of a good selector sets ZF", 0x40, 0x40
        and eax, 0xf0ff00
        EQ "lar gives the access rights", eax, 0xc0f100
        mov ecx, SMALL
        lsl eax, ecx
        FLAGS "lsl of a good selector sets ZF", 0x40, 0x40
        EQ "lsl of a byte limit", eax, 0xfff
        mov ecx, DATA32
        lsl eax, ecx
        EQ "lsl of a page limit", eax, 0xffffffff
        mov eax, 0x12345678
        mov ecx, 0xfff8
        lar eax, ecx
        FLAGS "lar beyond the GDT clears ZF", 0x40, 0
        EQ "lar beyond the GDT changes nothing", eax, 0x12345678
        mov ecx, CALL_GATE
        lsl eax, ecx
        FLAGS "lsl of a gate clears ZF", 0x40, 0
        lar eax, ecx
        FLAGS "lar of a gate sets ZF", 0x40, 0x40
        mov ecx, READ_ONLY
        verr cx
        FLAGS "verr of read-only data", 0x40, 0x40
        verw cx
        FLAGS "verw of read-only data", 0x40, 0
        mov ecx, EXEC_ONLY
        verr cx
        FLAGS "verr of execute-only code", 0x40, 0
        mov ecx, CODE32
        verr cx
        FLAGS "verr of readable code", 0x40, 0x40
        verw cx
        FLAGS "verw of code", 0x40, 0
        mov eax, 0x10
        mov ecx, 3
        arpl ax, cx
        FLAGS "arpl that adjusts sets ZF", 0x40, 0x40
        EQ "arpl raises the RPL", eax, 0x13
        arpl ax, cx
        FLAGS "arpl that does not adjust clears ZF", 0x40, 0

; ---- LDT
        mov dword [ldt + 8], 0x0000ffff
        mov dword [ldt + 12], 0x00cf9300 | FREE >> 16 & 0xff
        mov ax, LDT_SEL
        WORKS "lldt", lldt ax
        mov eax, 0x0c
        WORKS "load from the LDT", mov fs, ax
        mov dword [FREE], 0x600dcafe
        EQ "data by an LDT selector", [fs:0], 0x600dcafe
        FAULTS "beyond the LDT", 13, 0x1c, mov fs, [beyond_ldt]
        mov ax, DATA32
        FAULTS "lldt of a data segment", 13, DATA32, lldt ax
        xor eax, eax
        mov fs, eax
        lldt ax

; ---- far transfers
        FAULTS "far call to a data segment", 13, DATA32, call DATA32:0
        FAULTS "far jump to a not-present segment", 11, CODE_NP, jmp CODE_NP:0
        FAULTS "far jump to the null selector", 13, 0, jmp 0:0
        FAULTS "far jump beyond the GDT", 13, 0xfff8, jmp 0xfff8:0
        mov esi, esp
        push cs
        call .near
        jmp .far_back
.near:  retf
.far_back:
        mov eax, esp
        EQ "retf takes EIP and CS", eax, esi
        call far [far_pointer]
        EQ "far call through memory", eax, 0xfa4ca11
        lfs ebx, [far_data]
        EQ "lfs loads the offset", ebx, 0x11223344
        mov eax, fs
        EQ "lfs loads the selector", eax, DATA32
        FAULTS "lfs of a bad selector", 13, EXEC_ONLY, lfs ecx, [bad_far]
        mov eax, fs
        EQ "after a bad lfs FS is as it was", eax, DATA32

; ---- sysenter
        mov eax, 1
        cpuid
        test edx, 1 << 11
        jz .no_sep
        mov ecx, 0x174
        mov eax, SYS_CODE
        xor edx, edx
        wrmsr
        inc ecx
        mov eax, STACK - 0x4000
        wrmsr
        inc ecx
        mov eax, sys_target
        wrmsr
        TRY .sys_done
        RING3 .sys
.sys:   mov eax, USER_DATA
        mov ds, eax
        mov ecx, esp
        mov edx, .sys_back
        sysenter
.sys_back:
        mov eax, cs
        mov ebx, ss
.sys_end: ud2
.sys_done:
        FAULT "sysexit comes back", 6, 0, .sys_end
        EQ "sysenter loads CS", [result], SYS_CODE
        EQ "sysenter loads SS", [result + 4], SYS_CODE + 8
        EQ "sysenter loads ESP", [result + 8], STACK - 0x4000
        EQ "sysenter clears IF", [result + 12], 2
        EQ "sysexit loads CS", [exc_eax], SYS_CODE + 16 | 3
        EQ "sysexit loads SS", [exc_ebx], SYS_CODE + 24 | 3
        IN_RING3 "sysexit in ring 3", 13, 0, sysexit
        mov ecx, 0x174
        xor eax, eax
        xor edx, edx
        wrmsr
        FAULTS "sysenter with a null selector", 13, 0, sysenter
.no_sep:
        ret

; An interrupt handler: its flags, the frame's flags, its CS.
note_flags:
        push eax
        push ds
        mov eax, DATA32
        mov ds, eax
        pushfd
        pop eax
        mov [result], eax
        mov eax, [esp + 16]
        mov [result + 4], eax
        mov eax, cs
        mov [result + 8], eax
        pop ds
        pop eax
        iretd

; Behind the call gate: two parameters, then the frame.
gate_target:
        push ds
        mov eax, DATA32
        mov ds, eax
        mov eax, [esp + 12]
        mov [result], eax
        mov eax, [esp + 16]
        mov [result + 4], eax
        movzx eax, word [esp + 8]
        mov [result + 8], eax
        mov eax, [esp + 20]
        mov [result + 12], eax
        movzx eax, word [esp + 24]
        mov [result + 16], eax
        mov eax, cs
        mov [result + 20], eax
        pop ds
        retf 8

; Behind the 16-bit gate: IP, CS, one word, SP, SS, all words.
gate16_target:
        push ds
        mov eax, DATA32
        mov ds, eax
        movzx eax, word [esp + 8]
        mov [result], eax
        pop ds
        o16 retf 2

sys_target:
        mov eax, DATA32
        mov ds, eax
        mov eax, cs
        mov [result], eax
        mov eax, ss
        mov [result + 4], eax
        mov [result + 8], esp
        pushfd
        pop eax
        and eax, 0x202
        mov [result + 12], eax
        sysexit

far_routine:
        mov eax, 0xfa4ca11
        retf

far_pointer: dd far_routine
        dw CODE32
far_data: dd 0x11223344
        dw DATA32
bad_far: dd 1
        dw EXEC_ONLY
beyond_ldt: dw 0x1c
        END
