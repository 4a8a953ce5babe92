; Self-modifying and cross-modifying code: Intel SDM vol. 3A, 12.6 and 9.1.3. A processor of the
; Pentium or later runs the new bytes at the latest after a jump; since the P6 it does so at
; once where the store and the fetch use the same linear address.
%include "boot.inc"

code    equ FREE                ; where code is written to
other   equ FREE + 0x10000
pd      equ FREE + 0x100000
pt      equ FREE + 0x101000
alias   equ 0x20000000

main:
; ---- a function written again and again
        mov byte [code], 0xb8                   ; mov eax, imm32
        mov byte [code + 5], 0xc3
        xor ebx, ebx
        xor ecx, ecx
.again: mov [code + 1], ecx
        mov edx, code
        call edx
        add ebx, eax
        inc ecx
        cmp ecx, 1000
        jne .again
        EQ "an immediate changed 1000 times", ebx, 499500
        mov dword [code + 1], 0x01020304
        call edx
        EQ "all of an immediate", eax, 0x01020304
        mov byte [code + 3], 0xff
        call edx
        EQ "one byte of it", eax, 0x01ff0304
        mov byte [code], 0xb9                   ; mov ecx, imm32
        call edx
        EQ "the opcode", ecx, 0x01ff0304
        mov word [code + 2], 0x5555
        call edx
        EQ "two bytes of it", ecx, 0x01555504

; ---- a store into the next instructions of the same unit
        mov eax, 1
        mov byte [.next + 1], 0x22
.next:  mov al, 0x11
        and eax, 0xff
        EQ "a store just before the instruction", eax, 0x22
        mov byte [.next2 + 1], 0x33
        nop
        nop
        nop
.next2: mov al, 0x11
        and eax, 0xff
        EQ "a store some instructions before", eax, 0x33
        mov byte [.skip], 0xeb                  ; nop nop becomes jmp short +N
        mov byte [.skip + 1], .target - .skip2
.skip:  nop
        nop
.skip2: mov al, 0x44
        jmp .joined
.target: mov al, 0x55
.joined: and eax, 0xff
        EQ "an instruction becomes a jump", eax, 0x55

; ---- an instruction that changes itself
        mov ecx, 2
        xor ebx, ebx
.self:  mov byte [.self_at + 6], 0x01
.self_at: mov byte [.self_at + 6], 0x02         ; its own immediate
        movzx eax, byte [.self_at + 6]
        add ebx, eax
        dec ecx
        jnz .self
        ; round one stores 1 into the immediate, then runs with it
        EQ "an instruction that stores into itself", ebx, 2
        mov edi, .rep_code
        mov al, 0x90
        mov ecx, .rep_end - .rep_code
.rep_code: rep stosb                            ; overwrites itself with nop
        mov ebx, 0xbad
        mov ebx, 0xbad
.rep_end:                                       ; it may end early, as nop, or run to its end
        cmp ebx, 0xbad
        jne .rep_whole
        mov ebx, 2
.rep_whole: EQ "rep stosb over itself", ebx, 2
        mov edi, .movs
        mov esi, .movs_new
        mov ecx, 5
        rep movsb
.movs:  mov eax, 0x11111111
        EQ "rep movsb into the next instruction", eax, 0x22222222
        push dword 0x33333333
        mov esi, esp
        mov esp, .push_at + 5
        push dword [esi]                        ; a push into the next instruction
.push_at: mov eax, 0x11111111
        mov esp, esi
        add esp, 4
        EQ "push into the next instruction", eax, 0x33333333
        jmp .after_data
.movs_new: mov eax, 0x22222222
.after_data:

; ---- loops
        xor ebx, ebx
        mov ecx, 100
.loop:  mov [.loop_imm + 2], cl
.loop_imm: add ebx, 0x7f                        ; 83 c3 ib
        loop .loop
        EQ "a loop that changes its body each time", ebx, 5050
        mov ecx, 10
        xor ebx, ebx
.out:   inc ebx
        cmp ecx, 4
        jne .stay
        mov byte [.back], 0x90                  ; the loop's jump becomes two nops
        mov byte [.back + 1], 0x90
.stay:  dec ecx
.back:  jnz .out
        EQ "a loop that removes its own jump", ebx, 7

; ---- callee patched by another function, direct and indirect, chained
        mov dword [code], 0xc3c38990            ; nop; mov ebx, eax; ret
        mov byte [other], 0xe8                  ; call code; ret
        mov dword [other + 1], code - other - 5
        mov byte [other + 5], 0xc3
        mov eax, 0x10
        mov edx, other
        call edx
        call edx
        EQ "a call chain", ebx, 0x10
        mov byte [code + 2], 0xc1               ; mov ecx, eax
        mov ecx, 0
        call edx
        EQ "its callee changes", ecx, 0x10
        mov dword [other + 1], .third - other - 5
        call edx
        EQ "its call's target changes", eax, 0x333
        mov byte [other], 0xc3
        mov eax, 0x99
        call edx
        EQ "its call becomes a ret", eax, 0x99

; ---- across a page boundary
        mov byte [code + 0xffd], 0xb8
        mov byte [code + 0x1002], 0xc3
        mov dword [code + 0xffe], 0x11111111
        mov edx, code + 0xffd
        call edx
        EQ "code across two pages", eax, 0x11111111
        mov byte [code + 0x1001], 0x22
        call edx
        EQ "its second page changes", eax, 0x22111111
        mov dword [code + 0xffe], 0x44332211
        call edx
        EQ "a store across both", eax, 0x44332211

; ---- a page as data and as code by turns
        xor ebx, ebx
        mov esi, 200
.turns: mov edi, code + 0x2000
        mov eax, 0x90909090
        mov ecx, 1024
        rep stosd
        mov eax, esi
        mov byte [code + 0x2ff0], 0xb8
        mov [code + 0x2ff1], eax
        mov byte [code + 0x2ff5], 0xc3
        mov edx, code + 0x2fe0
        call edx
        add ebx, eax
        dec esi
        jnz .turns
        EQ "a page of code filled 200 times", ebx, 20100
        mov ecx, 500
        xor ebx, ebx
.near_data: mov [code + 0x2100], ecx            ; data on a page with code in it
        mov edx, code + 0x2ff0
        call edx
        add ebx, [code + 0x2100]
        loop .near_data
        EQ "data beside code", ebx, 125250

; ---- every width and kind of store
%macro STORE 2+
        mov dword [code + 0x3001], 0
        mov byte [code + 0x3000], 0xb8
        mov byte [code + 0x3005], 0xc3
        mov edi, code + 0x3000
        call edi
        mov edi, code + 0x3001
        mov eax, 0x5a5a5a5a
        mov ecx, 4
        %2
        mov edx, [code + 0x3001]
        mov edi, code + 0x3000
        push edx
        call edi
        pop edx
        EQ %1, eax, edx
%endmacro
        STORE "mov byte", mov [edi + 2], al
        STORE "mov word", mov [edi + 1], ax
        STORE "mov dword", mov [edi], eax
        STORE "add", add [edi], eax
        STORE "xchg", xchg [edi], eax
        STORE "inc", inc dword [edi]
        STORE "not", not dword [edi]
        STORE "shl", shl dword [edi], 1
        STORE "bts", bts dword [edi], 9
        STORE "lock xadd", lock xadd [edi], eax
        STORE "cmpxchg", cmpxchg [edi], ecx
        STORE "setnz", setnz [edi]
        STORE "stosb", stosb
        STORE "rep stosb", rep stosb
        STORE "movsb", movsb
        STORE "pop", pop dword [edi]
        sub esp, 4                              ; what pop took
        STORE "fnstcw", fnstcw [edi]
        STORE "fist", fist dword [edi]
        STORE "mov cs", mov [edi], cs
        STORE "call pushes a return address", call .stack_in_code

; ---- by another linear address
        mov edi, pd
        mov ecx, 0x2000 / 4
        xor eax, eax
        rep stosd
        mov eax, cr4
        or eax, 1 << 4
        mov cr4, eax
        mov dword [pd], 0x83
        mov dword [pd + 4], 0x400083
        mov dword [pd + (alias >> 22) * 4], pt + 3
        mov dword [pt], code + 3
        mov dword [pt + 4], code + 3
        mov eax, pd
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31
        mov cr0, eax
        jmp .paged
.paged: mov byte [code], 0xb8
        mov byte [code + 5], 0xc3
        mov ecx, 300
        xor ebx, ebx
.aliased: mov [alias + 1], ecx                  ; write here, execute there
        mov edx, code
        call edx
        add ebx, eax
        mov eax, ecx
        not eax
        mov [code + 1], eax
        mov edx, alias + 0x1000
        call edx
        add ebx, eax
        loop .aliased
        EQ "written by one address, executed by two others", ebx, -300
        mov eax, cr0
        and eax, ~(1 << 31)
        mov cr0, eax
        ret

.third: mov eax, 0x333
        ret
; ESP into the code page, call, back
.stack_in_code:
        pop edx
        mov esi, esp
        lea esp, [edi + 4]
        call .pushed
.pushed: mov esp, esi
        jmp edx
        END
