; String instructions across page faults and boundaries: Intel SDM vol. 2, REP; vol. 1, 7.3.9.
; After a fault in the middle, (E)CX, (E)SI and (E)DI say exactly what is left.
%include "boot.inc"

pd      equ FREE
pt0     equ FREE + 0x1000
pt1     equ FREE + 0x2000
ptt     equ FREE + 0x3000
src     equ 0x600000
dst     equ 0x610000
T       equ 0x10000000
S       equ T                   ; source pages 0-3 at src, page 4 never present
TD      equ T + 0x10000         ; destination pages 16-19 at dst
user_stack equ FREE + 0x20000
P equ 1
W equ 2
U equ 4

%include "paging.inc"

; SET page, physical or 0, flags
%macro SET 3
        mov dword [ptt + (%1) * 4], (%2) + (%3)
%endmacro

; BREAKS name, error, cr2, ecx, esi, edi, instruction: it faults there with these left.
%macro BREAKS 7+
        PAGE_FAULT %1, %2, %3, %7
        EQ "... ECX", [exc_ecx], %4
        EQ "... ESI", [exc_esi], %5
        EQ "... EDI", [exc_edi], %6
%endmacro

main:
        mov edi, pt0
        mov eax, P | W | U
        mov ecx, 2048
.map:   stosd
        add eax, 0x1000
        loop .map
        mov dword [pd], pt0 + (P | W | U)
        mov dword [pd + 4], pt1 + (P | W | U)
        mov dword [pd + (T >> 22) * 4], ptt + (P | W | U)
        SET 0, src, P | W | U
        SET 1, src + 0x1000, P | W | U
        SET 2, src + 0x2000, P | W | U
        SET 3, src + 0x3000, P | W | U
        SET 16, dst, P | W | U
        SET 17, dst + 0x1000, P | W | U
        SET 18, dst + 0x2000, P | W | U
        SET 19, dst + 0x3000, P | W | U
        mov eax, pd
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31 | 1 << 16
        mov cr0, eax
        jmp .on
.on:    call fill

; ---- movs
        mov esi, S + 0x3f00
        mov edi, TD
        mov ecx, 0x200
        BREAKS "rep movsb: source ends", 0, S + 0x4000, 0x100, S + 0x4000, TD + 0x100, rep movsb
        mov eax, [src + 0x3ffc]
        EQ "... the last dword arrived", [dst + 0xfc], eax
        mov esi, S + 0x100
        mov edi, TD + 0x3ff0
        mov ecx, 0x40
        BREAKS "rep movsb: destination ends", 2, TD + 0x4000, 0x30, S + 0x110, TD + 0x4000, rep movsb
        mov esi, S + 0x3f02
        mov edi, TD
        mov ecx, 0x100
        BREAKS "rep movsd: an element across into nothing", 0, S + 0x4000, 0x100 - 0x3f, S + 0x3ffe, TD + 0xfc, rep movsd
        mov esi, S + 0x101
        mov edi, TD + 0x3ff2
        mov ecx, 0x40
        mov dword [dst + 0x3ffc], 0x77777777
        BREAKS "rep movsd: destination across into nothing", 2, TD + 0x4000, 0x3d, S + 0x10d, TD + 0x3ffe, rep movsd
        movzx eax, word [dst + 0x3ffe]
        EQ "... no half of it was written", eax, 0x7777
        mov esi, S + 0x3ff1
        mov edi, TD + 0x200
        mov ecx, 0x40
        BREAKS "rep movsw", 0, S + 0x4000, 0x39, S + 0x3fff, TD + 0x20e, rep movsw
        std
        SET 15, 0, 0
        mov esi, S + 0x800
        mov edi, TD + 0xff
        mov ecx, 0x200
        BREAKS "rep movsb downward", 2, TD - 1, 0x100, S + 0x700, TD - 1, rep movsb
        cld
        std
        mov esi, S + 0x800
        mov edi, TD + 0xfc
        mov ecx, 0x200
        BREAKS "rep movsd downward", 2, TD - 4, 0x200 - 0x40, S + 0x700, TD - 4, rep movsd
        cld
        mov esi, S + 0x4000
        mov edi, TD + 0x4000
        mov ecx, 5
        BREAKS "neither is there: the source faults", 0, S + 0x4000, 5, S + 0x4000, TD + 0x4000, rep movsb
        mov esi, S + 0x4000
        mov edi, TD + 0x4000
        mov ecx, 0
        WORKS "ECX = 0 touches nothing", rep movsb
        EQ "... ESI", esi, S + 0x4000
        mov esi, S + 0x4000
        mov edi, TD
        mov ecx, 7
        BREAKS "movsb without rep", 0, S + 0x4000, 7, S + 0x4000, TD, movsb

; ---- restarted by a handler that maps the page
        mov dword [hook], map_page
        mov esi, S
        mov edi, TD + 0x100
        mov ecx, 0x5000 / 4
        rep movsd
        mov dword [hook], 0
        EQ "rep movsd resumed after two faults: ECX", ecx, 0
        EQ "... ESI", esi, S + 0x5000
        EQ "... EDI", edi, TD + 0x5100
        EQ "... faults", [user_vars], 3
        mov esi, S
        mov edi, TD + 0x100
        mov ecx, 0x5000
        repe cmpsb
        FLAGS "... and the copy is the same", 0x40, 0x40
        EQ "... to the end", ecx, 0
        SET 4, 0, 0
        SET 20, 0, 0
        SET 21, 0, 0
        FLUSH

; ---- stos
        mov edi, TD + 0x3f80
        mov ecx, 0x100
        mov eax, 0x5a5a5a5a
        mov esi, 1
        BREAKS "rep stosb", 2, TD + 0x4000, 0x80, 1, TD + 0x4000, rep stosb
        EQ "... stored so far", [dst + 0x3ffc], 0x5a5a5a5a
        mov edi, TD + 0x3f82
        mov ecx, 0x100
        mov esi, 1
        BREAKS "rep stosd", 2, TD + 0x4000, 0x100 - 0x1f, 1, TD + 0x3ffe, rep stosd
        SET 17, dst + 0x1000, P | U
        FLUSH
        mov edi, TD + 0xff0
        mov ecx, 0x100
        mov esi, 1
        BREAKS "rep stosd into a read-only page", 3, TD + 0x1000, 0xfc, 1, TD + 0x1000, rep stosd
        SET 17, dst + 0x1000, P | W | U
        FLUSH

; ---- lods, scas, cmps
        mov esi, S + 0x3ff8
        mov ecx, 10
        mov edi, 2
        BREAKS "rep lodsd", 0, S + 0x4000, 8, S + 0x4000, 2, rep lodsd
        mov eax, [src + 0x3ffc]
        EQ "... EAX has the last one", [exc_eax], eax
        mov edi, dst
        mov ecx, 0x4000
        xor eax, eax
        rep stosb
        mov edi, TD + 0x3f00
        mov ecx, 0x200
        mov esi, 3
        xor eax, eax
        BREAKS "repe scasb", 0, TD + 0x4000, 0x100, 3, TD + 0x4000, repe scasb
        mov byte [dst + 0x3f10], 9
        mov edi, TD + 0x3f00
        mov ecx, 0x200
        xor eax, eax
        repe scasb
        EQ "repe scasb ends before the fault: ECX", ecx, 0x1ef
        EQ "... EDI", edi, TD + 0x3f11
        mov edi, TD + 0x3f00
        mov ecx, 0x10
        mov al, 9
        repne scasb
        FLAGS "repne scasb finds nothing", 0x40, 0
        EQ "... ECX", ecx, 0
        mov ecx, 0x20
        repne scasb
        FLAGS "repne scasb finds it", 0x40, 0x40
        EQ "... ECX left", ecx, 0x1f
        mov esi, TD
        mov edi, TD + 0x3e00
        mov ecx, 0x1000
        repe cmpsb
        EQ "repe cmpsb ends at the difference: ECX", ecx, 0x1000 - 0x111
        FLAGS "... flags of 0 - 9", 0x8d5, 0x91
        mov byte [dst + 0x3f10], 0
        mov esi, TD
        mov edi, TD + 0x3e00
        mov ecx, 0x1000
        BREAKS "repe cmpsb: the second operand ends", 0, TD + 0x4000, 0x1000 - 0x200, TD + 0x200, TD + 0x4000, repe cmpsb
        mov ecx, 0
        cmp ecx, 1
        repe cmpsb
        FLAGS "cmpsb with ECX = 0 keeps the flags", 0x8d5, 0x95
        mov esi, S
        mov edi, S
        mov ecx, 77
        repne cmpsd
        EQ "repne cmpsd ends at the first equal", ecx, 76

; ---- overlapping copies
        call fill
        mov byte [dst], 0x31
        mov esi, TD
        mov edi, TD + 1
        mov ecx, 0x1fff
        rep movsb
        EQ "rep movsb one byte upward is a fill", [dst + 0x1ffc], 0x31313131
        mov dword [dst], 0x11111111
        mov dword [dst + 4], 0x22222222
        mov esi, TD
        mov edi, TD + 8
        mov ecx, 0x3fe
        rep movsd
        EQ "rep movsd two elements upward repeats them", [dst + 0xff8], 0x11111111
        EQ "... and the other", [dst + 0xffc], 0x22222222
        mov dword [dst], 0x44332211
        mov dword [dst + 4], 0x88776655
        mov esi, TD
        mov edi, TD + 2
        mov ecx, 2
        rep movsd
        EQ "rep movsd two bytes upward, element by element", [dst + 4], 0x44334433

; ---- 16-bit addresses
        mov word [0x5000], 0
        mov edi, 0x5000
        mov ecx, 0x10008
        mov eax, 0x66666666
        mov dword [0x5008], 0
        a16 rep stosb
        EQ "16-bit rep stosb counts in CX", ecx, 0x10000
        EQ "... DI", edi, 0x5008
        EQ "... and stops there", [0x5008], 0
        mov edi, 0xabcdfffe
        mov ecx, 4
        mov dword [0xfffc], 0
        mov dword [0], 0
        a16 rep stosb
        EQ "DI wraps at 64 KiB, EDI's upper half stays", edi, 0xabcd0002
        EQ "... low bytes", [0], 0x6666
        EQ "... high bytes", [0xfffc], 0x66660000
        mov esi, 0x12340010
        mov edi, 0x56780020
        mov ecx, 0x00030000
        a16 rep movsb
        EQ "CX = 0 does nothing, whatever ECX is", esi, 0x12340010

; ---- segment override, ins and outs
        DESCRIPTOR FIRST_FREE_SEL, src, 0xfffff, 0x93, 0xc
        mov eax, FIRST_FREE_SEL
        mov gs, eax
        mov esi, 0x100
        mov edi, TD
        mov ecx, 4
        gs rep movsd
        mov eax, [src + 0x10c]
        EQ "source by gs", [dst + 0xc], eax
        EQ "... ESI", esi, 0x110
        mov dx, 0x80
        mov edi, TD + 0x3ff0
        mov ecx, 0x20
        mov esi, 4
        BREAKS "rep insb", 2, TD + 0x4000, 0x10, 4, TD + 0x4000, rep insb
        mov dx, 0x80
        mov esi, S + 0x3ff0
        mov ecx, 0x20
        mov edi, 4
        BREAKS "rep outsb", 0, S + 0x4000, 0x10, S + 0x4000, 4, rep outsb
        mov dx, 0x80
        mov esi, S + 0x3ff0
        mov ecx, 0x10
        WORKS "rep outsb to the page's end", rep outsb

; ---- large ones
        mov edi, FREE + 0x100000
        mov eax, 0x01020304
        mov ecx, 0x40000
        rep stosd
        mov esi, FREE + 0x100000
        mov edi, FREE + 0x280000
        mov ecx, 0x100000
        rep movsb
        mov esi, FREE + 0x100000
        mov edi, FREE + 0x280000
        mov ecx, 0x40000
        repe cmpsd
        FLAGS "1 MiB copied", 0x40, 0x40
        mov eax, cr0
        and eax, ~(1 << 31)
        mov cr0, eax
        ret

; Source and destination by a pattern.
fill:   mov edi, src
        mov ecx, 0x4000 / 4
        mov eax, 0x12345678
.next:  mov [edi], eax
        imul eax, eax, 1664525
        add eax, 1013904223
        add edi, 4
        loop .next
        ret

; Exception hook: maps the page of CR2 somewhere, counts, goes back.
map_page:
        inc dword [user_vars]
        mov eax, [exc_cr2]
        sub eax, T
        shr eax, 12
        mov ecx, eax
        shl eax, 12
        add eax, 0x620000 + (P | W | U)
        mov [ptt + ecx * 4], eax
        stc
        ret
        END
