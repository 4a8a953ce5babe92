; Runs the rows of one table: for each it puts memory and the processor into the row's state, lets
; its code run until an exception, an interrupt or a shutdown ends it, and sends what it found over
; COM1. It knows nothing of what is expected.
;
; The image is firmware (`rom.asm` brings it to KERNEL), so that a shutdown restarts it: what it was
; doing is in memory at VARS, which a reset leaves alone.
;
; Everything lies in even megabytes, so that rows may close the A20 gate. The rows follow the code:
; `blob`. All structures are written by `src/image.rs`; `src/layout.rs` has the same numbers.

KERNEL  equ 0x200000
VARS    equ 0x400000
STACK   equ 0x410000
REC     equ 0x420000            ; the record being made
ARENA   equ 0x600000            ; the rows' own tables, see src/layout.rs
LDT     equ ARENA + 0x2000
LOW16   equ 0x7000              ; the way into and out of real mode
COM1    equ 0x3f8
COM2    equ 0x2f8

HC      equ 0x08                ; code, data: flat, DPL 0, in every GDT
HD      equ 0x10
HC16    equ 0x30
HD16    equ 0x38

magic   equ VARS
in_row  equ VARS + 4
index   equ VARS + 8
cursor  equ VARS + 12           ; the next row
row     equ VARS + 0x100        ; a copy of the current row's head
; its fields
R_SIZE  equ 0
R_FLAGS equ 4
R_CR0   equ 8
R_CR3   equ 12
R_CR4   equ 16
R_EFER  equ 20
R_DR    equ 24                  ; DR0-DR3, DR7
R_GDTR  equ 46
R_IDTR  equ 54
R_LDTR  equ 60
R_TR    equ 64
R_GPR   equ 68                  ; EAX ECX EDX EBX ESP EBP ESI EDI
R_EIP   equ 100
R_CS    equ 104
R_EFL   equ 108
R_SS    equ 112
R_DS    equ 116
R_ES    equ 120
R_FS    equ 124
R_GS    equ 128
R_PATCHES equ 132
R_WATCHES equ 136
R_HEAD  equ 140
; R_FLAGS
REAL    equ 1                   ; the row starts in real mode
IRQ     equ 2                   ; an interrupt request of COM2 waits

; The record's fields.
O_MAGIC equ REC
O_SIZE  equ REC + 4
O_INDEX equ REC + 8
O_KIND  equ REC + 12            ; vector, plus 100h by task gate, 300h in real mode; 200h shutdown
O_GPR   equ REC + 16            ; EAX ECX EDX EBX ESP EBP ESI EDI as the handler found them
O_FLAGS equ REC + 48            ; the handler's EFLAGS
O_SEG   equ REC + 52            ; SS DS ES FS GS CS of the handler
O_CR    equ REC + 76            ; CR0 CR2 CR3 CR4
O_DR    equ REC + 92            ; DR6 DR7
O_TR    equ REC + 100           ; TR, LDTR
O_FRAME equ REC + 108           ; 12 dwords from the handler's stack
O_WATCH equ REC + 156           ; the watched memory

        bits 32
        org KERNEL
        jmp start
        align 16
; Where gates lead: 16 bytes for each vector.
stubs:
%assign v 0
%rep 256
        align 16
        push dword v
        jmp near seen
%assign v v + 1
%endrep
        align 16
; Where tasks begin.
task_stubs:
%assign v 0
%rep 32
        align 16
        push dword v + 0x100
        jmp near seen
%assign v v + 1
%endrep
        align 16

; ---- start ------------------------------------------------------------------------------------

start:
        cli
        cld
        lgdt [own_gdtr]
        lidt [own_idtr]
        jmp HC:.flat
.flat:  mov eax, HD
        mov ds, eax
        mov es, eax
        mov fs, eax
        mov gs, eax
        mov ss, eax
        mov esp, STACK
        call open_ports
        cmp dword [magic], 0x52494e47
        je .again
        mov dword [magic], 0x52494e47
        mov dword [in_row], 0
        mov dword [index], 0
        mov esi, blob + 8
        mov ecx, [blob + 4]             ; the ranges to clear: address, length
.skip_clear:
        jecxz .skip_data
        add esi, 8
        dec ecx
        jmp .skip_clear
.skip_data:
        lodsd                           ; what to put there: address, length, bytes
        mov ecx, eax
.skip:  jecxz .first
        mov eax, [esi + 4]
        lea esi, [esi + eax + 8]
        dec ecx
        jmp .skip
.first: mov [cursor], esi
        jmp next
.again: cmp dword [in_row], 1
        jne broken
        mov edi, REC
        mov ecx, (O_WATCH - REC) / 4
        xor eax, eax
        rep stosd
        mov dword [O_KIND], 0x200
        jmp report

; ---- one row ----------------------------------------------------------------------------------

next:
        mov dword [in_row], 0
        mov eax, [index]
        cmp eax, [blob]
        je finish
        ; every structure as the template has it
        mov esi, blob + 4
        lodsd
        mov edx, eax
.clear: test edx, edx
        jz .put
        lodsd
        mov edi, eax
        lodsd
        mov ecx, eax
        shr ecx, 2
        xor eax, eax
        rep stosd
        dec edx
        jmp .clear
.put:   lodsd
        mov edx, eax
.data:  test edx, edx
        jz .head
        lodsd
        mov edi, eax
        lodsd
        mov ecx, eax
        shr ecx, 2
        rep movsd
        dec edx
        jmp .data
.head:  mov esi, [cursor]
        mov edi, row
        mov ecx, R_HEAD / 4
        rep movsd
        mov edx, [row + R_PATCHES]
.patch: test edx, edx
        jz .state
        lodsd
        mov edi, eax
        lodsd
        mov ecx, eax
        add eax, 3
        and eax, ~3
        add eax, esi
        rep movsb
        mov esi, eax
        dec edx
        jmp .patch
.state: mov dword [in_row], 1
        fninit
        test dword [row + R_FLAGS], IRQ
        jz .no_irq
        mov al, 0xf7                    ; line 3 only
        out 0x21, al
        mov dx, COM2 + 1                ; transmitter empty: at once
        mov al, 2
        out dx, al
.no_irq:
        lidt [row + R_IDTR]
        lgdt [row + R_GDTR]
        mov ax, [row + R_LDTR]
        lldt ax
        mov eax, [row + R_DR]
        mov dr0, eax
        mov eax, [row + R_DR + 4]
        mov dr1, eax
        mov eax, [row + R_DR + 8]
        mov dr2, eax
        mov eax, [row + R_DR + 12]
        mov dr3, eax
        mov eax, 0xffff0ff0
        mov dr6, eax
        xor eax, eax
        mov cr2, eax
        ltr [row + R_TR]
        mov eax, [row + R_CR4]
        mov cr4, eax
        mov eax, [row + R_EFER]
        test eax, eax
        jz .no_efer
        xor edx, edx
        mov ecx, 0xc0000080
        wrmsr
.no_efer:
        mov eax, [row + R_CR3]
        mov cr3, eax
        test dword [row + R_FLAGS], REAL
        jnz to_real
        mov eax, [row + R_CR0]
        mov cr0, eax
        jmp .paged
.paged: test dword [row + R_EFL], 1 << 17
        jz .no_v86
        push dword [row + R_GS]
        push dword [row + R_FS]
        push dword [row + R_DS]
        push dword [row + R_ES]
        push dword [row + R_SS]
        push dword [row + R_GPR + 16]
        jmp .frame
.no_v86:
        mov es, [row + R_ES]
        mov fs, [row + R_FS]
        mov gs, [row + R_GS]
        test dword [row + R_CS], 3
        jz .inner
        push dword [row + R_SS]
        push dword [row + R_GPR + 16]
        jmp .frame
.inner: mov ss, [row + R_SS]
        mov esp, [row + R_GPR + 16]
.frame: push dword [row + R_EFL]
        push dword [row + R_CS]
        push dword [row + R_EIP]
        mov ecx, [row + R_GPR + 4]
        mov edx, [row + R_GPR + 8]
        mov ebx, [row + R_GPR + 12]
        mov ebp, [row + R_GPR + 20]
        mov esi, [row + R_GPR + 24]
        mov edi, [row + R_GPR + 28]
        test dword [row + R_EFL], 1 << 17
        jnz .ready                      ; IRETD loads it
        mov ds, [row + R_DS]
.ready: mov eax, [cs:row + R_DR + 16]
        mov dr7, eax
        mov eax, [cs:row + R_GPR]
        iretd

to_real:
        mov esi, low_start
        mov edi, LOW16
        mov ecx, low_end - low_start
        rep movsb
        mov esi, row
        mov edi, LOW_ROW
        mov ecx, R_HEAD / 4
        rep movsd
        mov ax, [own_gdtr]
        mov [LOW_GDTR], ax
        mov eax, [own_gdtr + 2]
        mov [LOW_GDTR + 2], eax
        lgdt [own_gdtr]                 ; 16-bit segments for the way down
        mov eax, HD16
        mov ds, eax
        mov es, eax
        mov fs, eax
        mov gs, eax
        mov ss, eax
        jmp HC16:LOW16 + (down - low_start)

; ---- what ended it ----------------------------------------------------------------------------

; The handler's stack holds, from the top: our number, then what the processor pushed.
seen:
        push eax
        mov eax, ds
        push eax
        mov eax, HD
        mov ds, eax
        pop dword [O_SEG + 4]
        pop dword [O_GPR]
        pop dword [O_KIND]
        mov [O_GPR + 4], ecx
        mov [O_GPR + 8], edx
        mov [O_GPR + 12], ebx
        mov [O_GPR + 16], esp
        mov [O_GPR + 20], ebp
        mov [O_GPR + 24], esi
        mov [O_GPR + 28], edi
        mov eax, cs
        mov [O_SEG + 20], eax
        mov eax, ss
        mov [O_SEG], eax
        mov eax, es
        mov [O_SEG + 8], eax
        mov eax, fs
        mov [O_SEG + 12], eax
        mov eax, gs
        mov [O_SEG + 16], eax
        pushfd
        pop dword [O_FLAGS]
        mov eax, cr0
        mov [O_CR], eax
        mov eax, cr2
        mov [O_CR + 4], eax
        mov eax, cr3
        mov [O_CR + 8], eax
        mov eax, cr4
        mov [O_CR + 12], eax
        xor eax, eax
        str ax
        mov [O_TR], eax
        sldt ax
        mov [O_TR + 4], eax
        ; The stack's base, before the tables change: from its descriptor.
        sgdt [VARS + 0x40]
        mov ebx, [VARS + 0x42]
        mov eax, [O_SEG]
        test al, 4
        jz .global
        mov ebx, LDT
.global:
        and eax, 0xfff8
        add ebx, eax
        mov edx, [ebx + 4]              ; bit 22: B
        mov eax, [ebx + 2]
        and eax, 0xffffff
        mov ecx, edx
        and ecx, 0xff000000
        or eax, ecx
        mov ecx, 0xffffffff
        test edx, 1 << 22
        jnz .wide
        movzx ecx, cx
.wide:  mov edx, [O_GPR + 16]
        and edx, ecx                    ; eax: base, ecx: mask, edx: offset
        jmp gather

gather:
        mov edi, HD
        mov ss, edi
        mov esp, STACK
        mov edi, dr6
        mov [O_DR], edi
        mov edi, dr7
        mov [O_DR + 4], edi
        mov edi, 0x400
        mov dr7, edi
        mov edi, cr0                    ; without paging, write protection and traps
        and edi, ~(1 << 31 | 1 << 16 | 1 << 18 | 1 << 3 | 1 << 2)
        mov cr0, edi
        jmp .unpaged
.unpaged:
        lgdt [own_gdtr]
        lidt [own_idtr]
        jmp HC:.own
.own:   mov edi, HD
        mov es, edi
        mov fs, edi
        mov gs, edi
        xor esi, esi
.frame: mov ebx, edx
        lea ebx, [edx + esi * 4]
        and ebx, ecx
        cmp ebx, 0xfffffffc
        ja .no_frame
        mov ebx, [eax + ebx]
.no_frame:
        mov [O_FRAME + esi * 4], ebx
        inc esi
        cmp esi, 12
        jne .frame
        xor eax, eax
        lldt ax
        mov cr4, eax
        push dword 2
        popfd
        cmp dword [row + R_EFER], 0
        je report
        xor edx, edx
        mov ecx, 0xc0000080
        wrmsr

report:
        cld
        in al, 0x92
        or al, 2                        ; A20 open
        and al, 0xfe
        out 0x92, al
        mov dx, COM2 + 1
        xor eax, eax
        out dx, al
        call open_pics
        ; the watched memory, behind the record
        mov esi, [cursor]
        add esi, R_HEAD
        mov edx, [row + R_PATCHES]
.over:  test edx, edx
        jz .watch
        mov eax, [esi + 4]
        add eax, 3
        and eax, ~3
        lea esi, [esi + eax + 8]
        dec edx
        jmp .over
.watch: mov edi, O_WATCH
        mov edx, [row + R_WATCHES]
.each:  test edx, edx
        jz .send
        mov ebx, [esi]
        mov ecx, [esi + 4]
        add esi, 8
        push esi
        mov esi, ebx
        rep movsb
        pop esi
        dec edx
        jmp .each
.send:  mov dword [O_MAGIC], 0x21574f52 ; "ROW!"
        mov eax, [index]
        mov [O_INDEX], eax
        sub edi, REC
        mov [O_SIZE], edi
        mov ecx, edi
        mov esi, REC
        call send
        ; what the row wrote goes
        mov esi, [cursor]
        add esi, R_HEAD
        mov edx, [row + R_PATCHES]
.undo:  test edx, edx
        jz .advance
        mov edi, [esi]
        mov ecx, [esi + 4]
        mov ebx, ecx
        add ebx, 3
        and ebx, ~3
        lea esi, [esi + ebx + 8]
        xor eax, eax
        rep stosb
        dec edx
        jmp .undo
.advance:
        mov eax, [row + R_SIZE]
        add [cursor], eax
        inc dword [index]
        jmp next

; ---- ports ------------------------------------------------------------------------------------

open_ports:
        mov dx, COM1 + 1
        xor eax, eax
        out dx, al
        mov dx, COM1 + 3
        mov al, 3
        out dx, al
        mov dx, COM1 + 2
        mov al, 7
        out dx, al
        mov dx, COM2 + 4
        mov al, 8                       ; OUT2: lets the request out
        out dx, al
        mov dx, COM2 + 1
        xor eax, eax
        out dx, al
open_pics:
        mov al, 0x11
        out 0x20, al
        out 0xa0, al
        mov al, 0x20
        out 0x21, al
        mov al, 0x28
        out 0xa1, al
        mov al, 4
        out 0x21, al
        mov al, 2
        out 0xa1, al
        mov al, 1
        out 0x21, al
        out 0xa1, al
        mov al, 0xff
        out 0x21, al
        out 0xa1, al
        ret

; ECX bytes at ESI, by as many as the FIFO takes.
send:   mov dx, COM1 + 5
.wait:  in al, dx
        test al, 0x20
        jz .wait
        mov dx, COM1
        mov ebx, ecx
        mov ecx, 16
        cmp ebx, ecx
        jae .chunk
        mov ecx, ebx
.chunk: sub ebx, ecx
        rep outsb
        mov ecx, ebx
        test ecx, ecx
        jnz send
        ret

finish: mov esi, done_text
        mov bl, 0x10
        jmp leave_machine
broken: cli
        cld
        mov eax, HD
        mov ds, eax
        mov ss, eax
        mov esp, STACK
        mov esi, broken_text
        mov bl, 0x11
leave_machine:
        push ebx
        mov ecx, 8
        call send
        pop ebx
        mov dx, COM1 + 5
.drain: in al, dx
        test al, 0x40
        jz .drain
        mov al, bl
        mov dx, 0x501
        out dx, al
        cli
        hlt
done_text: db "DONE", 8, 0, 0, 0
broken_text: db "BAD!", 8, 0, 0, 0

        align 8
own_gdt:
        dq 0
        dq 0x00cf9b000000ffff           ; HC
        dq 0x00cf93000000ffff           ; HD
        dq 0, 0, 0
        dq 0x00009b000000ffff           ; HC16
        dq 0x000093000000ffff           ; HD16
own_gdtr:
        dw own_gdtr - own_gdt - 1
        dd own_gdt
        align 8
; A fault of this code itself: no way on.
own_idt:
%rep 32
        dw (broken - $$) & 0xffff, HC, 0x8e00, (KERNEL + (broken - $$)) >> 16
%endrep
own_idtr:
        dw 32 * 8 - 1
        dd own_idt

; ---- real mode: copied to LOW16 for a row that starts there -------------------------------------

; Where the row's head lies for code with 64 KiB segments, and where it leaves what it found.
LOW_ROW equ 0x7e00
LOW_SEEN equ 0x7f00             ; EAX, SS, SP, kind
%define LOW(label) (LOW16 + (label) - low_start)

        align 16
low_start:
        bits 16
down:   mov eax, [LOW_ROW + R_CR0]
        mov cr0, eax
        jmp 0:LOW(.real)
.real:  xor ax, ax
        mov ds, ax
        mov ss, [LOW_ROW + R_SS]
        mov esp, [LOW_ROW + R_GPR + 16]
        push word [LOW_ROW + R_EFL]
        push word [LOW_ROW + R_CS]
        push word [LOW_ROW + R_EIP]
        mov es, [LOW_ROW + R_ES]
        mov fs, [LOW_ROW + R_FS]
        mov gs, [LOW_ROW + R_GS]
        mov eax, [LOW_ROW + R_DR + 16]
        mov dr7, eax
        mov eax, [LOW_ROW + R_GPR]
        mov ecx, [LOW_ROW + R_GPR + 4]
        mov edx, [LOW_ROW + R_GPR + 8]
        mov ebx, [LOW_ROW + R_GPR + 12]
        mov ebp, [LOW_ROW + R_GPR + 20]
        mov esi, [LOW_ROW + R_GPR + 24]
        mov edi, [LOW_ROW + R_GPR + 28]
        mov ds, [LOW_ROW + R_DS]
        iret

        align 16
; Where the interrupt vector table leads: 8 bytes for each vector, at LOW16 + 100h.
        times 0x100 - ($ - low_start) db 0x90
%assign v 0
%rep 256
        push word 0x300 + v
        jmp near seen_low
        nop
        nop
%assign v v + 1
%endrep
seen_low:
        push ds
        push word 0
        pop ds
        pop word [LOW_SEEN + 16]        ; DS
        pop word [LOW_SEEN + 12]        ; kind
        mov [LOW_SEEN], eax
        mov [LOW_SEEN + 4], ss
        mov [LOW_SEEN + 8], esp
        pushfd
        pop dword [LOW_SEEN + 20]
        mov [LOW_SEEN + 24], cs
        mov eax, cr0
        mov [LOW_SEEN + 28], eax
        cli
        o32 lgdt [LOW_GDTR]
        or al, 1
        mov cr0, eax
        jmp dword HC:up
LOW_GDTR equ LOW_ROW + 0xf0
low_end:

        bits 32
up:     mov eax, HD
        mov ds, eax
        mov eax, es
        mov [O_SEG + 8], eax
        mov eax, [LOW_SEEN]
        mov [O_GPR], eax
        mov [O_GPR + 4], ecx
        mov [O_GPR + 8], edx
        mov [O_GPR + 12], ebx
        mov eax, [LOW_SEEN + 8]
        mov [O_GPR + 16], eax
        mov [O_GPR + 20], ebp
        mov [O_GPR + 24], esi
        mov [O_GPR + 28], edi
        movzx eax, word [LOW_SEEN + 12]
        mov [O_KIND], eax
        movzx eax, word [LOW_SEEN + 4]
        mov [O_SEG], eax
        movzx eax, word [LOW_SEEN + 16]
        mov [O_SEG + 4], eax
        mov eax, fs
        mov [O_SEG + 12], eax
        mov eax, gs
        mov [O_SEG + 16], eax
        movzx eax, word [LOW_SEEN + 24]
        mov [O_SEG + 20], eax
        mov eax, [LOW_SEEN + 20]
        mov [O_FLAGS], eax
        mov eax, [LOW_SEEN + 28]
        mov [O_CR], eax
        mov eax, cr2
        mov [O_CR + 4], eax
        mov eax, cr3
        mov [O_CR + 8], eax
        mov eax, cr4
        mov [O_CR + 12], eax
        mov dword [O_TR], 0
        mov dword [O_TR + 4], 0
        mov eax, [O_SEG]
        shl eax, 4
        mov ecx, 0xffff
        movzx edx, word [O_GPR + 16]
        jmp gather

        align 4096
blob:
