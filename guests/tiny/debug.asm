; Debug registers and single steps: Intel SDM vol. 3B, 18.2 and 18.3 (breakpoint registers, RF,
; DR6, TF, general detect).
%include "boot.inc"

hits    equ user_vars           ; #DB that the hook took
steps   equ user_vars + 4       ; with DR6.BS
last_dr6 equ user_vars + 8
last_dr7 equ user_vars + 12
set_rf  equ user_vars + 16      ; 1: the hook sets RF in the frame
first_eip equ user_vars + 20    ; where the first of them came
first_dr6 equ user_vars + 24
first_flags equ user_vars + 28
saved_eax equ user_vars + 32
watched equ user_vars + 0x100   ; what data breakpoints watch
DR6_CLEAR equ 0xffff0ff0
DR7_CLEAR equ 0x400
RF equ 1 << 16
TF equ 1 << 8
BD equ 1 << 13
BS equ 1 << 14
; R/W fields
X equ 0
WR equ 1
IO equ 2
RW equ 3

; ARM n, address, rw, bytes: breakpoint n alone. Clobbers EAX.
%macro ARM 4
        call forget
        mov eax, %2
        mov dr%1, eax
        mov eax, DR7_CLEAR | 1 << (%1 * 2) | %3 << (16 + %1 * 4) | (%4 - 1) << (18 + %1 * 4)
        mov dr7, eax
%endmacro

; DISARM. Clobbers nothing and leaves the stack alone, which may be watched.
%macro DISARM 0
        mov [saved_eax], eax
        mov eax, DR7_CLEAR
        mov dr7, eax
        mov eax, [saved_eax]
%endmacro

; HIT name, count, dr6 bits, eip: breakpoints off; so many #DB, the first with these bits there.
%macro HIT 4
        DISARM
        EQ %1, [hits], %2
        push eax
        mov eax, [first_dr6]
        and eax, 0xe00f
        EQ "... DR6", eax, %3
        pop eax
        EQ "... EIP", [first_eip], %4
%endmacro

; MISSED name
%macro MISSED 1
        DISARM
        EQ %1, [hits], 0
%endmacro

; STEP_ON: TF, from the next instruction on.
%macro STEP_ON 0
        pushfd
        or dword [esp], TF
        popfd
%endmacro

main:
        mov dword [hook], on_debug
        mov dword [set_rf], 1
        call forget

; ---- instruction breakpoints
        xor ecx, ecx
        ARM 0, .x1, X, 1
        nop
.x1:    inc ecx
        nop
        HIT "an instruction breakpoint comes before its instruction", 1, 1, .x1
        EQ "... which then runs once", ecx, 1
        mov eax, [first_flags]
        and eax, RF
        EQ "... its frame has RF clear", eax, 0
        xor ecx, ecx
        ARM 3, .loop, X, 1
        mov ecx, 10
.loop:  dec ecx
        jnz .loop
        HIT "ten times around a loop, ten hits", 10, 8, .loop
        ARM 2, .called, X, 1
        call .called
        jmp .after_call
.called: ret
.after_call:
        HIT "at a call's target", 1, 4, .called
        ARM 1, .middle + 1, X, 1
.middle: mov eax, 0x90909090
        MISSED "a breakpoint inside an instruction is none"
        ARM 1, .prefixed, X, 1
.prefixed: o16 mov ax, 5
        HIT "a prefixed instruction's breakpoint is at its prefix", 1, 2, .prefixed
        ARM 1, .global, X, 1
        mov eax, DR7_CLEAR | 8                  ; G1 instead of L1
        mov dr7, eax
.global: nop
        HIT "globally enabled", 1, 2, .global
        call forget
        mov eax, .off
        mov dr0, eax
.off:   nop
        MISSED "not enabled"
        ; both at one instruction
        ARM 0, .both, X, 1
        mov dr2, eax
        mov eax, .both
        mov dr2, eax
        mov eax, DR7_CLEAR | 1 | 0x10
        mov dr7, eax
.both:  nop
        HIT "two breakpoints at one instruction", 1, 5, .both

; ---- RF
        ARM 0, .rf_to, X, 1
        pushfd
        or dword [esp], RF
        push dword CODE32
        push dword .rf_to
        iretd
.rf_to: nop
        MISSED "iret with RF holds it off"
        ARM 0, .no_rf_to, X, 1
        pushfd
        push dword CODE32
        push dword .no_rf_to
        iretd
.no_rf_to: nop
        HIT "iret without RF does not", 1, 1, .no_rf_to
        ARM 0, .rf_second, X, 1
        pushfd
        or dword [esp], RF
        push dword CODE32
        push dword .rf_first
        iretd
.rf_first: nop
.rf_second: nop
        HIT "RF holds for one instruction", 1, 1, .rf_second
        mov eax, .rf_popfd
        ARM 0, .rf_popfd, X, 1
        pushfd
        or dword [esp], RF
        popfd
.rf_popfd: nop
        HIT "popfd does not set RF", 1, 1, .rf_popfd
        pushfd
        pop eax
        and eax, RF
        EQ "pushfd stores it clear", eax, 0
        NOT_QEMU .no_fault_rf                   ; whose frames of faults have RF clear
        TRY .ud
        mov dword [hook], 0
.ud_at: ud2
.ud:    mov dword [hook], on_debug
        mov eax, [exc_eflags]
        and eax, RF
        EQ "a fault's frame has RF set", eax, RF
.no_fault_rf:

; ---- data breakpoints
        mov dword [watched], 0
        mov dword [watched + 4], 0
        ARM 0, watched, WR, 4
        mov dword [watched], 77
.w1:    nop
        HIT "a write is noticed after its instruction", 1, 1, .w1
        EQ "... which has written", [watched], 77
        ARM 0, watched, WR, 4
        mov eax, [watched]
        nop
        MISSED "a read is no write"
        ARM 1, watched, RW, 4
        mov eax, [watched]
.r1:    nop
        HIT "a read", 1, 2, .r1
        ARM 1, watched, RW, 4
        cmp eax, [watched]
.r2:    nop
        HIT "cmp reads", 1, 2, .r2
        ARM 2, watched, WR, 4
        add dword [watched], 1
.rmw:   nop
        HIT "a read-modify-write", 1, 4, .rmw
        ARM 3, watched + 1, WR, 1
        mov byte [watched + 1], 1
.byte:  nop
        HIT "one byte", 1, 8, .byte
        ARM 3, watched + 1, WR, 1
        mov byte [watched], 1
        mov byte [watched + 2], 1
        nop
        MISSED "its neighbours"
        ARM 3, watched + 1, WR, 1
        mov dword [watched - 2], 0
.over:  nop
        HIT "a dword that covers it", 1, 8, .over
        ARM 0, watched + 2, WR, 2
        mov dword [watched - 1], 0
.word:  nop
        HIT "a dword that touches a watched word", 1, 1, .word
        ARM 0, watched + 2, WR, 2
        mov dword [watched - 2], 0
        mov dword [watched + 4], 0
        nop
        MISSED "dwords on both sides of it"
        mov ebx, watched - 0x40
        mov ecx, 0x10
        ARM 0, watched, WR, 4
        mov [ebx + ecx * 4], ecx
.scaled: nop
        HIT "base and scaled index", 1, 1, .scaled
        xor ecx, ecx
        ARM 0, watched, X, 1                    ; not code: never met
        mov dword [watched], 5
        nop
        MISSED "an instruction breakpoint is none on data"
        ; the stack
        mov edx, esp
        lea ebx, [esp - 4]
        ARM 0, ebx, WR, 4
        push edx
.push:  pop eax
        HIT "push", 1, 1, .push
        lea ebx, [esp - 4]
        ARM 0, ebx, WR, 4
        call .call_to
.call_to: pop eax
        HIT "call", 1, 1, .call_to
        mov edx, esp
        push dword .ret_to
        mov ebx, esp
        ARM 0, ebx, RW, 4
        ret 0x1000                              ; the handler's frame is to lie elsewhere
.ret_to: nop
        HIT "ret reads", 1, 1, .ret_to
        mov esp, edx
        ; strings
        mov edi, watched - 4
        xor eax, eax
        ARM 0, watched, WR, 1
        xor eax, eax
        stosd
        stosd
.stos:  nop
        HIT "the second stosd", 1, 1, .stos
        mov edi, watched - 3
        mov ecx, 8
        ARM 0, watched, WR, 1
.rep:   rep stosb
.rep_after: nop
        DISARM
        EQ "rep stosb over it", [hits], 1
        EQ "... goes on to its end", ecx, 0
        NOT_QEMU .no_rep                        ; which may report it after the last one
        EQ "... in the middle: EIP", [first_eip], .rep
        mov eax, [first_flags]
        and eax, RF
        EQ "... with RF set", eax, RF
.no_rep:
        mov edi, watched
        xor ecx, ecx
        ARM 0, watched, WR, 1
        rep stosb
        nop
        MISSED "rep stosb with nothing to do"
        ; a faulting access is none
        ARM 0, watched, RW, 4
        TRY .no_access
        mov dword [hook], 0
        mov ecx, [watched]
        mov dword [hook], on_debug
.no_access:
        mov dword [hook], on_debug
        DISARM
        EQ "without the hook it is #DB", [exc_vector], 1
        mov eax, dr6
        and eax, 0xf
        EQ "... DR6", eax, 1

; ---- I/O breakpoints
        mov eax, 1
        cpuid
        test edx, 1 << 2
        jz near .no_de
        mov eax, cr4
        or eax, 1 << 3
        mov cr4, eax
        ARM 1, 0x80, IO, 1
        out 0x80, al
.out:   nop
        HIT "out to a watched port", 1, 2, .out
        mov edx, 0x80
        ARM 1, 0x80, IO, 1
        in al, dx
.in:    nop
        HIT "in from it", 1, 2, .in
        ARM 1, 0x84, IO, 4
        in al, 0x80
        nop
        MISSED "another port"
        ARM 1, 0x84, IO, 4
        in al, 0x86
.in4:   nop
        HIT "a range of ports", 1, 2, .in4
        ARM 1, 0x80, IO, 1
        mov eax, [0x80]
        nop
        MISSED "a port is no memory"
        FAULTS "with CR4.DE, DR4 is invalid", 6, 0, mov eax, dr4
        mov eax, cr4
        and eax, ~(1 << 3)
        mov cr4, eax
.no_de: mov eax, 0x1234
        mov dr6, eax
        mov ebx, dr4
        mov ecx, dr6
        EQ "without CR4.DE, DR4 is DR6", ebx, ecx
        mov eax, DR6_CLEAR
        mov dr6, eax

; ---- single steps
        call forget
        STEP_ON
.s0:    nop
.s1:    nop
.s2:    nop
        HIT "a single step: the first after the instruction behind popfd", 1, BS, .s1
        call forget
        STEP_ON
        mov eax, 5
.s3:    jmp .s4
.s4:    EQ "... its register", eax, 5
        call forget
        STEP_ON
        jmp .s5
        nop
.s5:    HIT "a step over a jump", 1, BS, .s5
        call forget
        STEP_ON
        mov dword [watched], 0
.s6:    mov eax, [first_flags]
        and eax, TF
        EQ "its frame has TF set", eax, TF
        mov edi, watched
        mov ecx, 3
        call forget
        STEP_ON
.s7:    rep stosb
        HIT "a step in rep stosb", 1, BS, .s7
        EQ "... and the rest after it", ecx, 0
        call forget
        mov dword [hook], count_steps
        mov ecx, 3
        mov edi, watched
        STEP_ON
        rep stosb
        nop
        pushfd
        and dword [esp], ~TF
        popfd
        mov dword [hook], on_debug
        EQ "rep stosb of 3, nop, pushfd, and, popfd: 7 steps", [hits], 7
        NOT_QEMU .no_both                       ; where they are two
        ; a step and a data breakpoint are one exception
        ARM 1, watched, WR, 4
        STEP_ON
        mov dword [watched], 3
.s8:    nop
        HIT "a step and a data breakpoint at once", 1, BS | 2, .s8
.no_both:
        ; an instruction that faults does not trap
        call forget
        TRY .s9
        STEP_ON
.s9_at: ud2
.s9:    FAULT "a fault comes instead of a step", 6, 0, .s9_at
        EQ "... without #DB", [hits], 0
        ; the shadow of mov ss
        NOT_QEMU .no_shadow                     ; where only interrupts wait for it
        mov edx, ss
        call forget
        STEP_ON
        mov ss, edx
        nop
.s10:   nop
        HIT "mov ss is not stepped after, the next one is", 1, BS, .s10
        mov word [watched], ss
        ARM 0, watched, RW, 2
        mov ss, [watched]
        nop
.s11:   nop
        HIT "a watched operand of mov ss waits as well", 1, 1, .s11
.no_shadow:
        NOT_QEMU .no_int1                       ; to which it is no instruction
        call forget
        int1
.i1:    nop
        HIT "int1 is #DB without a reason in DR6", 1, 0, .i1
.no_int1:

; ---- general detect, fixed bits
        NOT_QEMU .no_gd                         ; which has none
        call forget
        mov eax, DR7_CLEAR | 1 << 13
        mov dr7, eax
.gd:    mov eax, dr0
        HIT "DR7.GD: an access to a debug register", 1, BD, .gd
        EQ "... the handler finds GD clear", [last_dr7], DR7_CLEAR
.no_gd: xor eax, eax
        mov dr7, eax
        mov ebx, dr7
        EQ "DR7 of zero", ebx, DR7_CLEAR
        mov dr6, eax
        mov ebx, dr6
        EQ "DR6 of zero", ebx, DR6_CLEAR
        TRY .r3
        push dword USER_DATA
        push dword FREE + 0x8000
        push dword 2
        push dword USER_CODE
        push dword .r3_at
        iretd
.r3_at: mov eax, dr0
.r3:    FAULT "ring 3 has no debug registers", 13, 0, .r3_at

; ---- ring 3
        ARM 0, .user, X, 1
        TRY .user_done
        push dword USER_DATA
        push dword FREE + 0x8000
        push dword 2
        push dword USER_CODE
        push dword .user
        iretd
.user:  nop
.user_end: ud2
.user_done:
        HIT "an instruction breakpoint in ring 3", 1, 1, .user
        EQ "... goes on there", [exc_eip], .user_end
        mov dword [hook], 0
        ret

; Forgets earlier #DB. Clobbers EAX.
forget: mov eax, DR7_CLEAR
        mov dr7, eax
        mov eax, DR6_CLEAR
        mov dr6, eax
        xor eax, eax
        mov [hits], eax
        mov [steps], eax
        mov [first_eip], eax
        mov [first_dr6], eax
        mov [first_flags], eax
        ret

; Exception hook: notes #DB, clears TF in the frame, sets RF there if wanted, and goes back.
on_debug:
        call count_steps
        jnc .end
        mov edx, [exc_frame]
        and dword [edx + 12], ~TF
        stc
.end:   ret

; The same without clearing TF.
count_steps:
        cmp dword [exc_vector], 1
        clc
        jne .end
        mov eax, dr6
        mov [last_dr6], eax
        cmp dword [hits], 0
        jne .not_first
        mov [first_dr6], eax
        mov eax, [exc_eip]
        mov [first_eip], eax
        mov eax, [exc_eflags]
        mov [first_flags], eax
.not_first:
        inc dword [hits]
        mov eax, dr7
        mov [last_dr7], eax
        mov eax, DR6_CLEAR
        mov dr6, eax
        mov edx, [exc_frame]
        cmp dword [set_rf], 1
        jne .back
        or dword [edx + 12], RF
.back:  stc
.end:   ret
        END
