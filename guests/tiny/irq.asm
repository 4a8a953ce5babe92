; Interrupts in tight loops: 8259 and 8254 as the PC wires them; Intel SDM vol. 3A, 6.8 (masking,
; the shadows of sti and mov ss).
%include "boot.inc"

ticks   equ user_vars
order   equ user_vars + 4
target  equ user_vars + 8       ; after this many ticks the handler moves EIP to `leave_to`
leave_to equ user_vars + 12
first_eip equ user_vars + 16
masked_ticks equ user_vars + 20
rounds  equ user_vars + 0x54

; START hz: channel 0, mode 2. Clobbers EAX.
%macro START 1
        mov al, 0x34
        out 0x43, al
        mov al, (1193182 / %1) & 0xff
        out 0x40, al
        mov al, (1193182 / %1) >> 8
        out 0x40, al
%endmacro

; UNTIL n, label: the handler leaves the interrupted code for label at the n-th tick from now.
%macro UNTIL 2
        mov dword [ticks], 0
        mov dword [leave_to], %2
        mov dword [target], %1
%endmacro

main:
        ; 8259s: vectors 0x40 and 0x48, only IRQ 0
        mov al, 0x11
        out 0x20, al
        out 0xa0, al
        mov al, 0x40
        out 0x21, al
        mov al, 0x48
        out 0xa1, al
        mov al, 4
        out 0x21, al
        mov al, 2
        out 0xa1, al
        mov al, 1
        out 0x21, al
        out 0xa1, al
        mov al, 0xfe
        out 0x21, al
        mov al, 0xff
        out 0xa1, al
        GATE idt + 0x40 * 8, CODE32, timer, 0x8e, 0
        GATE idt + 0x41 * 8, CODE32, second, 0x8e, 0
        START 1000

; ---- loops that only an interrupt ends
        UNTIL 5, .jmp_done
        sti
.jmp_self: jmp .jmp_self
.jmp_done: EQ "jmp to itself is interrupted", [ticks], 5
        EQ "... at its address", [first_eip], .jmp_self
        UNTIL 5, .two_done
        sti
.two:   nop
        jmp .two
.two_done: EQ "a loop of two instructions", [ticks], 5
        UNTIL 5, .cond_done
        xor eax, eax
        sti
.cond:  test eax, eax
        jz .cond
.cond_done: EQ "a conditional loop", [ticks], 5
        UNTIL 5, .loop_done
        sti
.loop_outer: mov ecx, 0x10000000
.loop_self: loop .loop_self
        jmp .loop_outer
.loop_done: EQ "loop to itself", [ticks], 5
        mov edx, .indirect
        UNTIL 5, .indirect_done
        sti
.indirect: jmp edx
.indirect_done: EQ "an indirect jump to itself", [ticks], 5
        UNTIL 5, .call_done
        mov ebx, esp
        sti
.call:  call .called
        jmp .call
.called: ret
.call_done: mov esp, ebx
        EQ "calls and returns", [ticks], 5
        UNTIL 5, .mem_done
        sti
.mem:   cmp dword [ticks], 0x7fffffff
        jne .mem
.mem_done: EQ "a loop on memory", [ticks], 5
        UNTIL 5, .io_done
        sti
.io:    in al, 0x80
        jmp .io
.io_done: EQ "a loop of in", [ticks], 5
        UNTIL 3, .rep_done
        cld
        sti
.rep:   mov edi, FREE
        mov ecx, 0x1000000 / 4
        rep stosd
        jmp .rep
.rep_done: EQ "rep stosd over and over", [ticks], 3

; ---- nothing is lost or changed by interrupts
        START 4000
        mov dword [target], -1
        mov dword [ticks], 0
        mov dword [rounds], 0
        sti
        mov eax, 1
        mov edx, 7
        mov ebx, 3
        mov esi, 0
        mov edi, 0x12345
        mov ebp, 0
        ; Rounds until there were interrupts: a busy host may deliver them late.
.round: inc dword [rounds]
        mov ecx, 3000000
.work:  imul eax, eax, 1664525
        add eax, 1013904223
        adc esi, edi
        rol edx, 3
        sbb ebx, eax
        rcl ebp, 1
        push eax
        add edi, [esp]
        pop edi
        dec ecx
        jnz .work
        cmp dword [rounds], 1000
        jae .enough
        cmp dword [ticks], 2
        jb .round
.enough:
        cli
        mov [user_vars + 0x40], eax
        mov [user_vars + 0x44], esi
        mov [user_vars + 0x48], edx
        mov [user_vars + 0x4c], ebx
        mov [user_vars + 0x50], ebp
        mov eax, 1
        mov edx, 7
        mov ebx, 3
        mov esi, 0
        mov edi, 0x12345
        mov ebp, 0
.same:  mov ecx, 3000000
.again: imul eax, eax, 1664525
        add eax, 1013904223
        adc esi, edi
        rol edx, 3
        sbb ebx, eax
        rcl ebp, 1
        push eax
        add edi, [esp]
        pop edi
        dec ecx
        jnz .again
        dec dword [rounds]
        jnz .same
        EQ "EAX the same with and without interrupts", [user_vars + 0x40], eax
        EQ "ESI", [user_vars + 0x44], esi
        EQ "EDX", [user_vars + 0x48], edx
        EQ "EBX (a chain of borrows)", [user_vars + 0x4c], ebx
        EQ "EBP (a chain of carries)", [user_vars + 0x50], ebp
        mov eax, [ticks]
        cmp eax, 2
        setae al
        movzx eax, al
        EQ "there were interrupts meanwhile", eax, 1

; ---- the shadow of sti
        START 100
        mov ecx, 20
        mov dword [masked_ticks], 0
.shadow: call wait_pending
        mov dword [ticks], 0
        sti
        cli
        mov eax, [ticks]
        add [masked_ticks], eax
        sti
        nop
        nop
        cli
        loop .shadow
        EQ "sti; cli lets no interrupt in, 20 times", [masked_ticks], 0
        AT_LEAST "sti; nop; nop lets it in", [ticks], 1
        call wait_pending
        mov dword [ticks], 0
        sti
        hlt                                     ; the pending one comes after hlt begins
        cli
        AT_LEAST "sti; hlt with an interrupt pending", [ticks], 1
        call wait_pending
        mov dword [ticks], 0
        mov dword [first_eip], 0
        sti
.shadow_at: nop
.shadow_end: nop
        cli
        EQ "it comes after the instruction behind sti", [first_eip], .shadow_end
        sti
        sti
        nop
        cli
        call wait_pending
        mov dword [ticks], 0
        sti
        sti                                     ; a second sti gives no second shadow
        cli
        AT_LEAST "sti; sti; cli lets it in", [ticks], 1
        call wait_pending
        mov dword [first_eip], 0
        push dword 0x202
        popfd
.popf_end: nop
        cli
        EQ "popf has no shadow", [first_eip], .popf_end
        call wait_pending
        mov dword [ticks], 0
        mov dword [first_eip], 0
        mov eax, ss
        sti
        nop
        cli
        call wait_pending
        mov dword [first_eip], 0
        mov eax, ss
        pushfd
        or dword [esp], 0x200
        push cs
        push dword .iret_to
        iretd
.iret_to: nop
        cli
        EQ "iret has no shadow", [first_eip], .iret_to

; ---- hlt
        START 100
        mov dword [ticks], 0
        mov ecx, 10
.hlt:   sti
        hlt
        cli
        loop .hlt
        AT_LEAST "hlt returns once for each tick", [ticks], 10
        START 1000
        mov dword [ticks], 0
.many:  sti
        hlt
        cli
        cmp dword [ticks], 300
        jb .many
        EQ "300 ticks in hlt", 1, 1

; ---- mask, request and service registers
        mov al, 0xff
        out 0x21, al
        START 100
        call wait_pending
        mov dword [ticks], 0
        sti
        mov ecx, 1000
.masked: nop
        loop .masked
        cli
        EQ "a masked line does not interrupt", [ticks], 0
        mov al, 0x0a
        out 0x20, al
        in al, 0x20
        and eax, 1
        EQ "but requests", eax, 1
        mov al, 0x0b
        out 0x20, al
        in al, 0x20
        and eax, 1
        EQ "nothing is in service", eax, 0
        mov al, 0xfe
        out 0x21, al
        sti
        nop
        nop
        cli
        AT_LEAST "unmasked, it comes", [ticks], 1
        in al, 0x21
        and eax, 0xff
        EQ "the mask reads back", eax, 0xfe
        mov dword [hook], no_eoi
        GATE idt + 0x40 * 8, CODE32, stubs + 0x40 * stub_size, 0x8e, 0
        mov dword [ticks], 0
        call wait_pending
        sti
        nop
        nop
        cli
        mov al, 0x0b
        out 0x20, al
        in al, 0x20
        and eax, 1
        EQ "without EOI it stays in service", eax, 1
        call wait_pending
        sti
        nop
        nop
        cli
        EQ "and no further one comes", [ticks], 1
        mov al, 0x20
        out 0x20, al
        sti
        nop
        nop
        cli
        EQ "after EOI the next comes", [ticks], 2
        mov al, 0x20
        out 0x20, al
        mov dword [hook], 0
        GATE idt + 0x40 * 8, CODE32, timer, 0x8e, 0

; ---- one shot
        mov al, 0x30                            ; mode 0
        out 0x43, al
        call drain
        mov dword [ticks], 0
        mov al, 0x00
        out 0x40, al
        mov al, 0x08
        out 0x40, al
        sti
        hlt
        cli
        EQ "mode 0 interrupts once", [ticks], 1
        mov ecx, 20000
        sti
.once:  in al, 0x80
        loop .once
        cli
        EQ "and not again", [ticks], 1

; ---- from ring 3, which cannot stop it
        START 1000
        UNTIL 4, .user_done
        mov [try_esp], esp
        push dword USER_DATA
        push dword FREE + 0x8000
        push dword 0x202
        push dword USER_CODE
        push dword .user
        iretd
.user:  jmp .user
.user_done: EQ "ring 3 is interrupted", [ticks], 4
        mov eax, cs
        EQ "... and left", eax, CODE32
        mov al, 0xff
        out 0x21, al
        ret

; Waits, with IF clear, until IRQ 0 is requested.
wait_pending:
        push eax
.wait:  mov al, 0x0a
        out 0x20, al
        in al, 0x20
        test al, 1
        jz .wait
        pop eax
        ret

; Takes what is pending.
drain:  sti
        nop
        nop
        nop
        cli
        ret

; Exception hook: counts, gives no EOI.
no_eoi: inc dword [ticks]
        stc
        ret

timer:  push eax
        push ds
        mov eax, DATA32
        mov ds, eax
        mov eax, [esp + 8]
        mov [first_eip], eax
        mov al, 0x20
        out 0x20, al
        inc dword [ticks]
        mov eax, [ticks]
        cmp eax, [target]
        je .leave
        pop ds
        pop eax
        iretd
.leave: mov dword [target], -1
        mov eax, [leave_to]
        test byte [esp + 12], 3
        jnz .outer
        mov [esp + 8], eax
        and byte [esp + 17], 0xfd               ; with IF clear
        pop ds
        pop eax
        iretd
.outer: mov esp, [try_esp]               ; DS is ours, ring 3 had none
        mov ecx, DATA32
        mov ds, ecx
        mov es, ecx
        jmp eax

second: push eax
        mov al, 0x20
        out 0x20, al
        pop eax
        iretd
        END
