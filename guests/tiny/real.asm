; Real mode: Intel SDM vol. 3B, chapter 21 (8086 emulation); vol. 3A, 10.9 (mode switching).
; The real-mode code is copied to 0x10000 (CS=0x1000) and called from protected mode by CALL16.
; Its results go to R.. (read flat afterwards); its stack is SS=0x2000.
%include "boot.inc"

CODE16_LOW equ FIRST_FREE_SEL   ; 16-bit code based where the real-mode code is
saved_esp equ user_vars
RCS     equ 0x1000
RSS     equ 0x2000
R       equ 0x3000              ; results, by real-mode code as DS=0, and flat

; REAL routine: runs it in real mode (it ends by jmp real_done).
%macro REAL 1
        mov word [0x2ff0], %1 - real_start
        call to_real
%endmacro

main:   DESCRIPTOR CODE16_LOW, RCS * 16, 0xffff, 0x9b, 0
        mov esi, real_start
        mov edi, RCS * 16
        mov ecx, real_end - real_start
        rep movsb
        ; the vector table at 0: every vector ends the routine through `stray`
        xor edi, edi
        mov ecx, 256
.vector: mov word [edi], stray - real_start
        mov word [edi + 2], RCS
        add edi, 4
        loop .vector

        REAL nothing
        EQ "into real mode and back", [R], 0x1234
        REAL segments
        EQ "DS * 16 + offset", [R], 0x00cafe00
        EQ "segment registers read back", [R + 4], 0x4321
        EQ "CS", [R + 8], RCS
        EQ "a segment pushed and popped", [R + 12], 0x4322
        EQ "les", [R + 16], 0xf00d
        EQ "override prefix", [R + 20], 0xbeef
        EQ "BP addresses by SS", [R + 24], 0x7777
        EQ "xlat", [R + 28], 0x5c
        mov byte [0x10ffef], 0x99
        mov byte [0x0fffef], 0x11
        REAL high
        EQ "FFFF:FFFF is above 1 MiB", [R], 0x99

        REAL offsets
        EQ "BX + SI wraps at 64 KiB", [R], 0xab
        EQ "IP wraps within the segment by a jump", [R + 4], 0x600d
        EQ "a 32-bit address below 64 KiB", [R + 8], 0xab

; ---- interrupts
        mov word [0x80 * 4], service - real_start
        mov word [0x80 * 4 + 2], RCS
        REAL interrupt
        EQ "int 80h arrives", [R], 0x8080
        EQ "IF and TF are clear there", [R + 4], 0
        EQ "the frame: IP", [R + 8], int_after - real_start
        EQ "the frame: CS", [R + 12], RCS
        EQ "the frame: IF", [R + 16], 0x200
        EQ "iret balances the stack", [R + 20], 0x8000
        EQ "iret restores CF and IF", [R + 24], 0x201
        mov word [0], divide - real_start
        REAL division
        EQ "divide error: the frame has the instruction itself", [R], div_at - real_start
        EQ "divide overflow", [R + 4], div2_at - real_start
        EQ "AAM 0", [R + 8], aam_at - real_start
        mov word [5 * 4], note - real_start
        REAL bounds
        EQ "bound: out of range", [R], bound_at - real_start
        EQ "bound: in range", [R + 4], 0
        mov word [4 * 4], note - real_start
        REAL overflow
        EQ "into with OF", [R], into_at - real_start + 1
        EQ "into without OF", [R + 4], 0
        mov word [3 * 4], note - real_start
        REAL breakpoint
        EQ "int3", [R], int3_at - real_start + 1
        mov word [6 * 4], note - real_start
        REAL invalid
        EQ "ud2", [R], ud_at - real_start
        EQ "arpl is invalid", [R + 4], arpl_at - real_start
        EQ "lldt is invalid", [R + 8], lldt_at - real_start
        EQ "str is invalid", [R + 12], str_at - real_start
        EQ "verr is invalid", [R + 16], verr_at - real_start
        mov word [1 * 4], trap - real_start
        REAL stepping
        EQ "single steps", [R], 4
        EQ "the first after", [R + 4], step_first - real_start
        NOT_QEMU .no_limits
        mov word [13 * 4], note - real_start
        mov word [12 * 4], note - real_start
        REAL limits
        EQ "word at FFFF: vector 13", [R], limit1_at - real_start
        EQ "dword at FFFD: vector 13", [R + 4], limit2_at - real_start
        EQ "32-bit address above 64 KiB: vector 13", [R + 8], limit3_at - real_start
        EQ "word at SS:FFFF: vector 12", [R + 12], limit4_at - real_start
.no_limits:
        ; the table elsewhere
        mov word [0x4000 + 0x81 * 4], service81 - real_start
        mov word [0x4000 + 0x81 * 4 + 2], RCS
        REAL table
        EQ "lidt moves the vector table", [R], 0x8181
        EQ "sidt gives its base", [R + 4], 0x4000

; ---- 16-bit arithmetic, stack, transfers
        REAL arithmetic
        EQ "add ax wraps, CF", [R], 0x0001_0000
        EQ "the upper half of EAX stays", [R + 4], 0xabcd0000
        EQ "mul cx", [R + 8], 0xfffe0001
        EQ "imul", [R + 12], 0x00003a98
        EQ "daa", [R + 16], 0x0143
        EQ "das", [R + 20], 0x0029
        EQ "aam", [R + 24], 0x0709
        EQ "aad", [R + 28], 0x004f
        EQ "aaa", [R + 32], 0x0105
        EQ "aas", [R + 36], 0x0006
        EQ "cbw, cwd", [R + 40], 0xffff_ff80
        EQ "32-bit operands in 16-bit code", [R + 44], 0x89abcdef
        EQ "shld", [R + 48], 0x3456_789a
        EQ "movsx", [R + 52], 0xffffff80
        EQ "8-bit halves", [R + 56], 0x3412
        EQ "loop on CX", [R + 60], 100
        EQ "jcxz", [R + 64], 1
        REAL stacks
        EQ "push sp pushes the old value", [R], 0x8000
        EQ "pusha: AX first", [R + 4], 0x1111
        EQ "pusha: SP inside", [R + 8], 0x8000
        EQ "popa", [R + 12], 0x7777
        EQ "SP wraps: push at 0", [R + 16], 0xfffe
        EQ "... and its word", [R + 20], 0x5ace
        EQ "the upper half of ESP stays", [R + 24], 0x1234
        EQ "enter, leave", [R + 28], 0x8000
        EQ "pushfd", [R + 32], 0x8000 - 4
        EQ "ret n", [R + 36], 0x8000
        EQ "far call: CS:IP on the stack", [R + 40], RCS
        EQ "call through memory", [R + 44], 0x0ca1
        EQ "far jump through memory", [R + 48], 0xfa12
        REAL strings
        EQ "rep movsw", [R], 0x2211
        EQ "... CX", [R + 4], 0
        EQ "... SI", [R + 8], 0x5020
        EQ "rep stosb downward", [R + 12], 0x4f
        EQ "SI wraps", [R + 16], 2
        EQ "repne scasb", [R + 20], 0x6003

; ---- unreal mode, and a timer tick by the table
        mov dword [0x700000], 0x12348765
        REAL unreal
        EQ "a 4 GiB segment in real mode", [R], 0x12348765
        EQ "... and a segment load keeps the limit", [R + 4], 0x12348765
        mov word [0x20 * 4], tick - real_start
        mov word [0x20 * 4 + 2], RCS
        REAL timer
        AT_LEAST "IRQ 0 by the vector table, five times", [R], 5
        EQ "hlt was ended by it", [R + 4], 1
        ret

; Protected mode to real mode and back. Everything but ESP is lost.
to_real:
        pushad
        mov [saved_esp], esp
        lidt [real_idtr]
        mov dword [R], 0
        jmp CODE16_LOW:low_pm - real_start

real_idtr: dw 0x3ff
        dd 0

back:   mov eax, DATA32
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov esp, [saved_esp]
        lidt [idtr]
        xor eax, eax
        mov fs, eax
        mov gs, eax
        cld
        popad
        ret

        bits 16
        align 16
real_start:
; In 16-bit protected mode.
low_pm: mov ax, DATA16
        mov ds, ax
        mov es, ax
        mov fs, ax
        mov gs, ax
        mov ss, ax
        mov eax, cr0
        and al, 0xfe
        mov cr0, eax
        jmp RCS:.real - real_start
.real:  xor ax, ax
        mov ds, ax
        mov es, ax
        mov ax, RSS
        mov ss, ax
        mov esp, 0x8000
        cld
        push word 2
        popf
        jmp [0x2ff0]

; What ends every routine.
real_done:
        cli
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword CODE32:back

; An exception that was not expected: its IP in every result.
stray:  pop ax
        xor bx, bx
        mov ds, bx
        mov es, bx
        mov di, R
        mov cx, 80
        cld
        rep stosw
        jmp real_done

; Notes the frame's IP in BX and skips to the address in SI.
note:   pop bx
        add sp, 4
        xor ax, ax
        mov ds, ax
        jmp si

nothing: mov dword [R], 0x1234
        jmp real_done

segments:
        mov ax, 0x4321
        mov es, ax
        mov dword [es:0x10], 0x00cafe00
        mov ax, 0x4322
        mov es, ax
        mov eax, [es:0]
        mov [R], eax
        xor eax, eax
        mov ax, 0x4321
        mov fs, ax
        xor eax, eax
        mov ax, fs
        mov [R + 4], eax
        mov ax, cs
        mov [R + 8], eax
        push es
        pop gs
        xor eax, eax
        mov ax, gs
        mov [R + 12], eax
        mov dword [0x600], 0x4321f00d
        les di, [0x600]
        movzx eax, di
        mov [R + 16], eax
        mov word [es:0x20], 0xbeef
        xor eax, eax
        mov ax, [fs:0x20]
        mov [R + 20], eax
        mov bp, 0x7000
        mov word [ss:0x7004], 0x7777
        xor eax, eax
        mov ax, [bp + 4]
        mov [R + 24], eax
        mov byte [0x680 + 0x33], 0x5c
        mov bx, 0x680
        mov al, 0x33
        xlatb
        xor ah, ah
        mov [R + 28], eax
        jmp real_done

high:   mov ax, 0xffff
        mov es, ax
        xor eax, eax
        mov al, [es:0xffff]
        mov [R], eax
        jmp real_done

offsets:
        mov byte [0x700], 0xab
        mov bx, 0x8700
        mov si, 0x8000
        xor eax, eax
        mov al, [bx + si]
        mov [R], eax
        ; at 2100:FFFE a jump of +2 leads to 2100:0002
        mov ax, 0x2100
        mov es, ax
        mov word [es:0xfffe], 0x02eb            ; jmp short +2
        mov dword [es:2], 0x600db890            ; nop; mov ax, 0x600d
        xor eax, eax
        mov byte [es:6], 0xea                   ; jmp far
        mov word [es:7], .wrapped - real_start
        mov word [es:9], RCS
        jmp 0x2100:0xfffe
.wrapped: mov [R + 4], eax
        mov ebx, 0x600
        xor eax, eax
        mov al, [ebx + 0x100]
        mov [R + 8], eax
        jmp real_done

interrupt:
        xor edx, edx
        stc
        sti
        int 0x80
int_after: pushf
        cli
        pop ax
        and eax, 0x201
        mov [R + 24], eax
        movzx eax, sp
        mov [R + 20], eax
        jmp real_done
service:
        mov bp, sp
        pushf
        pop ax
        and eax, 0x300
        mov [R + 4], eax
        movzx eax, word [bp]
        mov [R + 8], eax
        movzx eax, word [bp + 2]
        mov [R + 12], eax
        movzx eax, word [bp + 4]
        and eax, 0x200
        mov [R + 16], eax
        mov dword [R], 0x8080
        iret

division:
        mov si, div_next - real_start
        mov ax, 1
        xor dx, dx
        xor cx, cx
div_at: div cx
        xor bx, bx
div_next:    movzx ebx, bx
        mov [R], ebx
        mov si, div2_next - real_start
        mov ax, 0x1000
        mov cl, 2
div2_at: div cl
        xor bx, bx
div2_next:    movzx ebx, bx
        mov [R + 4], ebx
        mov si, aam_next - real_start
aam_at: aam 0
        xor bx, bx
aam_next:    movzx ebx, bx
        mov [R + 8], ebx
        jmp real_done
divide: jmp note

bounds: mov word [0x600], 10
        mov word [0x602], 20
        mov si, bound_next - real_start
        mov dx, 21
bound_at: bound dx, [0x600]
        xor bx, bx
bound_next:    movzx ebx, bx
        mov [R], ebx
        mov dx, 20
        xor bx, bx
        bound dx, [0x600]
        movzx ebx, bx
        mov [R + 4], ebx
        jmp real_done

overflow:
        mov si, into_next - real_start
        mov al, 0x7f
        add al, 1
into_at: into
        xor bx, bx
into_next:    movzx ebx, bx
        mov [R], ebx
        xor bx, bx
        into
        movzx ebx, bx
        mov [R + 4], ebx
        jmp real_done

breakpoint:
        mov si, int3_next - real_start
int3_at: int3
        xor bx, bx
int3_next: movzx ebx, bx
        mov [R], ebx
        jmp real_done

%macro INVALID 3+
        mov si, %%next - real_start
%2:     %3
        xor bx, bx
%%next: movzx ebx, bx
        mov [R + %1], ebx
%endmacro
invalid:
        INVALID 0, ud_at, ud2
        INVALID 4, arpl_at, arpl ax, ax
        INVALID 8, lldt_at, lldt ax
        INVALID 12, str_at, str ax
        INVALID 16, verr_at, verr ax
        jmp real_done

stepping:
        xor ecx, ecx
        mov dword [R + 4], 0
        pushf
        or word [esp], 0x100
        popf
        nop
step_first: nop
        nop
        pushf
        and word [esp], 0xfeff
        popf                                    ; steps: nop, nop, nop, pushf, and, popf
        movzx ecx, cx
        sub ecx, 2
        mov [R], ecx
        jmp real_done
trap:   push bp
        mov bp, sp
        inc cx
        cmp cx, 1
        jne .more
        push eax
        movzx eax, word [bp + 2]
        mov [R + 4], eax
        pop eax
.more:  pop bp
        iret

limits: mov word [R], 0
        INVALID 0, limit1_at, mov ax, [0xffff]
        INVALID 4, limit2_at, mov eax, [0xfffd]
        mov edx, 0x10000
        INVALID 8, limit3_at, mov al, [edx]
        INVALID 12, limit4_at, mov ax, [ss:0xffff]
        jmp real_done

table:  mov word [0x600], 0x3ff
        mov dword [0x602], 0x4000
        lidt [0x600]
        int 0x81
        mov [R], eax
        mov dword [0x612], 0
        sidt [0x610]
        mov eax, [0x612]
        and eax, 0xffffff
        mov [R + 4], eax
        mov dword [0x602], 0
        lidt [0x600]
        jmp real_done
service81: mov eax, 0x8181
        iret

arithmetic:
        mov eax, 0xabcdffff
        add ax, 1
        mov [R + 4], eax
        sbb bx, bx
        neg bx
        mov [R + 2], bx
        mov [R], ax
        mov ax, 0xffff
        mov cx, 0xffff
        mul cx
        mov [R + 8], ax
        mov [R + 10], dx
        mov ax, 150
        imul ax, ax, 100
        movzx eax, ax
        mov [R + 12], eax
        xor eax, eax
        mov al, 0x88
        add al, 0x55
        daa
        setc ah
        mov [R + 16], eax
        xor eax, eax
        mov al, 0x43
        sub al, 0x14
        das
        mov [R + 20], eax
        xor eax, eax
        mov al, 79
        aam
        mov [R + 24], eax
        aad
        mov [R + 28], eax
        mov ax, 0x0008
        add al, 7
        aaa
        mov [R + 32], eax
        mov ax, 0x0108
        sub al, 2
        aas
        xor ah, ah
        mov [R + 36], eax
        mov al, 0x80
        cbw
        cwd
        mov [R + 40], ax
        mov [R + 42], dx
        mov eax, 0x89abcdef
        mov [R + 44], eax
        mov eax, 0x12345678
        mov edx, 0x9abcdef0
        shld eax, edx, 8
        mov [R + 48], eax
        mov al, 0x80
        movsx ebx, al
        mov [R + 52], ebx
        mov ax, 0x1234
        xchg al, ah
        movzx eax, ax
        mov [R + 56], eax
        mov ecx, 0x10064
        xor eax, eax
.count: inc eax
        loop .count
        mov [R + 60], eax
        mov eax, 1
        jcxz .zero
        xor eax, eax
.zero:  mov [R + 64], eax
        jmp real_done

stacks: push sp
        xor eax, eax
        pop ax
        mov [R], eax
        mov ax, 0x1111
        mov di, 0x7777
        pusha
        mov bp, sp
        movzx eax, word [bp + 14]
        mov [R + 4], eax
        movzx eax, word [bp + 6]
        mov [R + 8], eax
        xor di, di
        popa
        movzx edi, di
        mov [R + 12], edi
        mov esp, 0x12340000
        push word 0x5ace
        movzx eax, sp
        mov [R + 16], eax
        movzx eax, word [ss:0xfffe]
        mov [R + 20], eax
        mov eax, esp
        shr eax, 16
        mov [R + 24], eax
        mov esp, 0x8000
        enter 16, 0
        leave
        movzx eax, sp
        mov [R + 28], eax
        pushfd
        movzx eax, sp
        mov [R + 32], eax
        popfd
        push word 1
        push word 2
        call .two
        movzx eax, sp
        mov [R + 36], eax
        call RCS:.far - real_start
        mov word [0x600], .near - real_start
        call [0x600]
        mov [R + 44], eax
        mov word [0x600], .jumped - real_start
        mov word [0x602], RCS
        jmp far [0x600]
.two:   ret 4
.far:   mov bp, sp
        movzx eax, word [bp + 2]
        mov [R + 40], eax
        retf
.near:  mov eax, 0x0ca1
        ret
.jumped: mov dword [R + 48], 0xfa12
        jmp real_done

strings:
        mov si, 0x5000
        mov di, 0x6000
        mov cx, 16
        mov word [0x5000 + 30], 0x2211
        rep movsw
        movzx eax, word [0x6000 + 30]
        mov [R], eax
        movzx eax, cx
        mov [R + 4], eax
        movzx eax, si
        mov [R + 8], eax
        std
        mov di, 0x6100
        mov al, 0x4f
        mov cx, 5
        rep stosb
        cld
        movzx eax, byte [0x60fc]
        mov [R + 12], eax
        mov si, 0xfffe
        mov cx, 2
        rep lodsw
        movzx eax, si
        mov [R + 16], eax
        mov dword [0x6000], 0x44332211
        mov di, 0x6000
        mov al, 0x33
        mov cx, 10
        repne scasb
        movzx eax, di
        mov [R + 20], eax
        jmp real_done

unreal: mov eax, cr0
        or al, 1
        mov cr0, eax
        mov bx, DATA32
        mov fs, bx
        and al, 0xfe
        mov cr0, eax
        jmp RCS:.back - real_start
.back:  mov ebx, 0x700000
        mov eax, [fs:ebx]
        mov [R], eax
        xor ax, ax
        mov fs, ax
        mov eax, [fs:ebx]
        mov [R + 4], eax
        jmp real_done

timer:  mov al, 0x11
        out 0x20, al
        mov al, 0x20
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0x34
        out 0x43, al
        mov al, 0xa9                            ; 1000 Hz
        out 0x40, al
        mov al, 4
        out 0x40, al
        mov al, 0xfe
        out 0x21, al
        sti
.wait:  cmp dword [R], 4
        jb .wait
        hlt
        cli
        mov al, 0xff
        out 0x21, al
        mov dword [R + 4], 1
        jmp real_done
tick:   push ax
        mov al, 0x20
        out 0x20, al
        inc dword [R]
        pop ax
        iret
real_end:
        bits 32
        END
