; Paging without PAE: Intel SDM vol. 3A, chapter 4 (4.3, 4.6, 4.7, 4.8, 4.10).
; Identity mapping of the first 8 MiB by page tables (4 KiB pages), the rest by 4 MiB pages; the
; tests use linear addresses from 0x10000000 up.
%include "boot.inc"

pd      equ FREE                ; page directory
pt0     equ FREE + 0x1000       ; 0-4 MiB
pt1     equ FREE + 0x2000       ; 4-8 MiB
ptt     equ FREE + 0x3000       ; 0x10000000: the tests' pages
pd2     equ FREE + 0x4000       ; a second address space
ptt2    equ FREE + 0x5000
page_a  equ 0x600000            ; physical pages
page_b  equ 0x601000
page_c  equ 0x602000
T       equ 0x10000000          ; the tests' linear addresses: page n at T + n * 0x1000
user_stack equ FREE + 0x20000
P equ 1
W equ 2
U equ 4
A equ 0x20
D equ 0x40
PS equ 0x80
G equ 0x100

%include "paging.inc"

; SET page, physical, flags: the entry of a test page.
%macro SET 3
        mov dword [ptt + (%1) * 4], (%2) + (%3)
%endmacro

main:
        ; identity: supervisor and user may use it, since ring 3 code lies among the rest
        mov edi, pd
        mov ecx, 0x6000 / 4
        xor eax, eax
        rep stosd
        mov edi, pt0
        mov eax, P | W | U
        mov ecx, 2048
.map:   stosd
        add eax, 0x1000
        loop .map
        mov dword [pd], pt0 + (P | W | U)
        mov dword [pd + 4], pt1 + (P | W | U)
        mov dword [pd + (T >> 22) * 4], ptt + (P | W | U)
        mov esi, pd
        mov edi, pd2
        mov ecx, 1024
        rep movsd
        mov dword [pd2 + (T >> 22) * 4], ptt2 + (P | W | U)
        mov eax, pd
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31
        mov cr0, eax
        jmp .on
.on:    EQ "paging is on", 1, 1
        mov dword [page_a], 0xaaaa0001
        mov dword [page_b], 0xbbbb0002
        mov dword [page_c], 0xcccc0003

; ---- accessed and dirty
        SET 0, page_a, P | W | U
        and dword [pd + (T >> 22) * 4], ~A
        FLUSH
        mov eax, [T]
        EQ "read through a page table", eax, 0xaaaa0001
        EQ "a read sets A only", [ptt], page_a + (P | W | U | A)
        EQ "a walk sets A of the directory entry", [pd + (T >> 22) * 4], ptt + (P | W | U | A)
        mov dword [T + 4], 0x1234
        EQ "a write sets D", [ptt], page_a + (P | W | U | A | D)
        EQ "the write arrived", [page_a + 4], 0x1234
        SET 0, page_a, P | W | U
        INVAL 0
        add dword [T + 4], 1
        EQ "a read-modify-write sets A and D", [ptt], page_a + (P | W | U | A | D)
        EQ "its result", [page_a + 4], 0x1235
        SET 0, page_a, P | W | U
        INVAL 0
        cmp dword [T + 4], 1
        EQ "cmp sets no D", [ptt], page_a + (P | W | U | A)

; ---- not present, then present without invalidation
        SET 1, 0, 0
        INVAL 1
        PAGE_FAULT "read of a not-present page", 0, T + 0x1234, mov eax, [T + 0x1234]
        PAGE_FAULT "write of a not-present page", 2, T + 0x1ffc, mov [T + 0x1ffc], eax
        NOT_QEMU .no_rmw                        ; which reads first; processors ask to write
        PAGE_FAULT "read-modify-write of a not-present page", 2, T + 0x1000, add dword [T + 0x1000], 1
        PAGE_FAULT "locked read-modify-write of a not-present page", 2, T + 0x1000, lock inc dword [T + 0x1000]
        PAGE_FAULT "shift of a not-present page", 2, T + 0x1000, shl dword [T + 0x1000], 3
        PAGE_FAULT "bts of a not-present page", 2, T + 0x1000, bts dword [T + 0x1000], 3
.no_rmw:
        SET 1, page_b, P | W
        mov eax, [T + 0x1000]
        EQ "a page made present needs no invalidation", eax, 0xbbbb0002
        PAGE_FAULT "no directory entry", 0, 0x20000000, mov eax, [0x20000000]
        PAGE_FAULT "no directory entry, write", 2, 0x20000010, mov byte [0x20000010], 1

; ---- write protection and CR0.WP
        SET 2, page_c, P | U
        INVAL 2
        WRITE_PROTECT 0
        mov dword [T + 0x2008], 77
        EQ "without WP ring 0 writes a read-only page", [page_c + 8], 77
        EQ "that sets D", [ptt + 8], page_c + (P | U | A | D)
        WRITE_PROTECT 1
        PAGE_FAULT "with WP it faults", 3, T + 0x2008, mov dword [T + 0x2008], 78
        EQ "and changes nothing", [page_c + 8], 77
        PAGE_FAULT "xchg on a read-only page", 3, T + 0x2008, xchg eax, [T + 0x2008]
        PAGE_FAULT "a cmpxchg that would not store", 3, T + 0x2008, cmpxchg [T + 0x2008], ecx
        mov eax, [T + 0x2008]
        EQ "reading it works", eax, 77
        and dword [pd + (T >> 22) * 4], ~W
        FLUSH
        PAGE_FAULT "read-only by the directory entry", 3, T + 0x0, mov dword [T], 1
        or dword [pd + (T >> 22) * 4], W
        FLUSH

; ---- user and supervisor
        SET 3, page_a, P | W
        INVAL 3
        USER_FAULT "ring 3 reads a supervisor page", 5, T + 0x3000, mov eax, [T + 0x3000]
        USER_FAULT "ring 3 writes a supervisor page", 7, T + 0x3004, mov [T + 0x3004], eax
        USER_FAULT "ring 3 reads a not-present page", 4, T + 0x5000, mov eax, [T + 0x5000]
        USER_FAULT "ring 3 writes a not-present page", 6, T + 0x5000, mov [T + 0x5000], eax
        USER_FAULT "ring 3 writes a read-only page", 7, T + 0x2000, mov [T + 0x2000], eax
        USER_RUNS "ring 3 reads a read-only page", mov eax, [T + 0x2000]
        EQ "its content", [exc_eax], 0xcccc0003
        and dword [pd + (T >> 22) * 4], ~U
        FLUSH
        USER_FAULT "supervisor by the directory entry", 5, T + 0x2000, mov eax, [T + 0x2000]
        or dword [pd + (T >> 22) * 4], U
        FLUSH
        WRITE_PROTECT 0
        USER_FAULT "without WP ring 3 still cannot write", 7, T + 0x2000, mov [T + 0x2000], eax
        WRITE_PROTECT 1

; ---- accesses across a page boundary
        SET 4, page_a, P | W | U
        SET 5, 0, 0
        FLUSH
        mov dword [page_a + 0xffc], 0x11111111
        PAGE_FAULT "dword across into a not-present page: CR2 is the second page", 2, T + 0x5000, mov dword [T + 0x4ffe], 0x22222222
        EQ "no half of it was written", [page_a + 0xffc], 0x11111111
        SET 5, page_b, P | W | U
        SET 4, 0, 0
        FLUSH
        PAGE_FAULT "across from a not-present page: CR2 is the address", 0, T + 0x4ffe, mov eax, [T + 0x4ffe]
        SET 4, page_b, P | W | U
        SET 5, page_a, P | W | U
        FLUSH
        mov dword [page_b + 0xffc], 0
        mov dword [T + 0x4ffe], 0x55667788
        EQ "across two pages that are not neighbours: low half", [page_b + 0xffc], 0x77880000
        movzx eax, word [page_a]
        EQ "across two pages that are not neighbours: high half", eax, 0x5566
        mov eax, [T + 0x4ffe]
        EQ "and read back", eax, 0x55667788
        SET 5, page_a, P | W | U
        SET 4, 0, 0
        FLUSH
        STACK_FAULT "push across into a not-present page", 14, 6, USER_DATA, T + 0x5002, push dword 5
        EQ "... its CR2", [exc_cr2], T + 0x4ffe

; ---- instruction fetch
        SET 6, page_a, P | W | U
        SET 7, 0, 0
        FLUSH
        mov byte [page_a + 0xffe], 0xb8         ; mov eax, imm32 across the boundary
        mov byte [page_a + 0xfff], 0x44
        TRY .fetch1
        jmp T + 0x6ffe
.fetch1: FAULT "fetch across into a not-present page", 14, 0, T + 0x6ffe
        EQ "CR2 is the second page", [exc_cr2], T + 0x7000
        SET 7, page_b, P | W | U
        mov dword [page_b], 0xc3112233          ; the rest of the immediate, ret
        call T + 0x6ffe
        EQ "fetch across two pages", eax, 0x11223344
        SET 7, page_c, P | W | U
        INVAL 7
        mov dword [page_c], 0xc3556677
        call T + 0x6ffe
        EQ "the second page is another one after invlpg", eax, 0x55667744
        TRY .fetch2
        jmp T + 0x8000
.fetch2: FAULT "jump to a not-present page", 14, 0, T + 0x8000
        TRY .fetch3
        RING3 T + 0x3000
.fetch3: FAULT "ring 3 jumps to a supervisor page", 14, 5, T + 0x3000
        SET 8, page_c, P | W | U
        mov byte [page_c + 0xfff], 0x90         ; nop, then the next page
        TRY .fetch4
        jmp T + 0x8fff
.fetch4: FAULT "execution runs into a not-present page", 14, 0, T + 0x9000

; ---- one code page at two addresses, and one address with two code pages
        mov dword [page_a], 0xc3c88966          ; mov ax, cx; ret
        mov dword [page_b], 0xc3d08966          ; mov ax, dx; ret
        mov cx, 0x1111
        mov dx, 0x2222
        SET 9, page_a, P | W | U
        SET 10, page_a, P | W | U
        FLUSH
        call T + 0x9000
        movzx eax, ax
        EQ "code at one address", eax, 0x1111
        call T + 0xa000
        movzx eax, ax
        EQ "the same code at another", eax, 0x1111
        SET 9, page_b, P | W | U
        INVAL 9
        call T + 0x9000
        movzx eax, ax
        EQ "another page at the first address", eax, 0x2222
        mov word [T + 0xa001], 0xd889           ; through the alias: mov ax, bx
        mov bx, 0x3333
        SET 9, page_a, P | W | U
        INVAL 9
        call T + 0x9000
        movzx eax, ax
        EQ "code changed through an alias", eax, 0x3333

; ---- CR3, global pages
        mov dword [ptt2], page_b + (P | W | U)
        mov dword [page_a], 0xaaaa0001
        mov dword [page_b], 0xbbbb0002
        SET 0, page_a, P | W | U
        FLUSH
        mov eax, [T]
        EQ "first address space", eax, 0xaaaa0001
        mov eax, pd2
        mov cr3, eax
        mov eax, [T]
        EQ "second address space", eax, 0xbbbb0002
        mov eax, cr3
        EQ "mov from cr3", eax, pd2
        mov eax, pd
        mov cr3, eax
        mov eax, [T]
        EQ "the first again", eax, 0xaaaa0001
        mov eax, 1
        cpuid
        mov [user_vars], edx
        test dword [user_vars], 1 << 13
        jz .no_global
        mov eax, cr4
        or eax, 1 << 7
        mov cr4, eax
        SET 11, page_a, P | W | U | G
        FLUSH
        mov eax, [T + 0xb000]
        SET 11, page_b, P | W | U | G
        INVAL 11
        mov eax, [T + 0xb000]
        EQ "invlpg drops a global page", eax, 0xbbbb0002
        SET 11, page_a, P | W | U | G
        mov eax, cr4
        and eax, ~(1 << 7)
        mov cr4, eax
        mov eax, [T + 0xb000]
        EQ "a change of CR4.PGE drops global pages", eax, 0xaaaa0001
.no_global:

; ---- 4 MiB pages
        test dword [user_vars], 1 << 3
        jz .no_pse
        mov dword [pd + 0x50 * 4], 0x400000 + (P | W | U | PS)
        mov eax, cr4
        and eax, ~(1 << 4)
        mov cr4, eax
        ; without PSE the bit is ignored: 0x400000 is taken for a page table, which is the
        ; page directory, whose first entry makes pt0 a page
        mov eax, [0x14000000]
        mov ebx, [pt0]
        EQ "without CR4.PSE bit 7 is ignored", eax, ebx
        mov dword [pd + 0x50 * 4], 0x400000 + (P | W | U | PS)
        mov eax, cr4
        or eax, 1 << 4
        mov cr4, eax
        mov eax, [0x14000000 + page_b - 0x400000]
        EQ "read in a 4 MiB page", eax, 0xbbbb0002
        EQ "a read sets its A", [pd + 0x50 * 4], 0x400000 + (P | W | U | PS | A)
        mov dword [0x14000000 + page_b - 0x400000 + 4], 0x99
        EQ "a write sets its D", [pd + 0x50 * 4], 0x400000 + (P | W | U | PS | A | D)
        EQ "write in a 4 MiB page", [page_b + 4], 0x99
        mov dword [pd + 0x51 * 4], 0x400000 + (P | PS)
        PAGE_FAULT "write to a read-only 4 MiB page", 3, 0x14400000, mov dword [0x14400000], 1
        USER_FAULT "ring 3 reads a supervisor 4 MiB page", 5, 0x14400000, mov eax, [0x14400000]
        mov dword [pd + 0x51 * 4], 0x800000 + (P | W | PS)
        mov eax, 0x14400000
        invlpg [eax]
        mov dword [0x147ffffc], 0x4711
        mov dword [pd + 0x53 * 4], 0x800000 + (P | W | PS)
        EQ "last dword of a 4 MiB page, by another", [0x14fffffc], 0x4711
        mov dword [pd + 0x52 * 4], 0x800000 + (P | W | PS)
        mov dword [0x147ffffe], 0x12345678
        movzx eax, word [0x14800000]
        EQ "across two 4 MiB pages", eax, 0x1234
        movzx eax, word [0x14fffffe]
        EQ "... and its low half", eax, 0x5678
.no_pse:

; ---- page faults leave registers alone
        SET 12, 0, 0
        INVAL 12
        mov eax, 1
        mov ecx, 3
        mov edx, 4
        mov ebx, T + 0xc000
        mov esi, 6
        mov edi, 7
        stc
        TRY .regs
.regs_at: mov [ebx], eax
.regs:  FAULT "store with registers full", 14, 2, .regs_at
        EQ "EAX as before", [exc_eax], 1
        EQ "ECX as before", [exc_ecx], 3
        EQ "EBX as before", [exc_ebx], T + 0xc000
        mov eax, [exc_eflags]
        and eax, 1
        EQ "CF as before", eax, 1
        ; a handler that maps the page: the instruction is executed again
        mov dword [hook], map_page
        mov dword [page_a], 40
        mov eax, 2
        add [T + 0xc000], eax
        mov dword [hook], 0
        EQ "restarted after the page was mapped", [page_a], 42
        ; pusha and enter that fault change nothing
        SET 13, page_b, P | W | U
        SET 12, 0, 0
        FLUSH
        STACK_FAULT "pushad across into a not-present page", 14, 6, USER_DATA, T + 0xd010, pushad
        mov edi, 0x4444
        STACK_FAULT "pop from a not-present page", 14, 4, USER_DATA, T + 0xcffc, pop edi
        EQ "pop's register as before", [exc_edi], 0x4444
        STACK_FAULT "call whose push faults", 14, 6, USER_DATA, T + 0xd000, call main
        STACK_FAULT "enter whose push faults", 14, 6, USER_DATA, T + 0xd000, enter 8, 0
        STACK_FAULT "ret from a not-present page", 14, 4, USER_DATA, T + 0xcff0, ret
        SET 14, 0, 0
        INVAL 14
        STACK_FAULT "popad across into a not-present page", 14, 4, USER_DATA, T + 0xdff8, popad

; ---- SMEP, SMAP
        mov eax, 7
        xor ecx, ecx
        cpuid
        mov [user_vars + 4], ebx
        SET 0, page_a, P | W | U
        FLUSH
        mov byte [page_a], 0xc3
        test dword [user_vars + 4], 1 << 7
        jz .no_smep
        call supervisor_only
        mov eax, cr4
        or eax, 1 << 20
        mov cr4, eax
        TRY .smep
        call T
.smep:  FAULT "SMEP: ring 0 executes a user page", 14, 0x11, T
        mov eax, cr4
        and eax, ~(1 << 20)
        mov cr4, eax
        call T
        EQ "without SMEP it works", 1, 1
.no_smep:
        test dword [user_vars + 4], 1 << 20
        jz .no_smap
        call supervisor_only
        mov eax, cr4
        or eax, 1 << 21
        mov cr4, eax
        clac
        PAGE_FAULT "SMAP: ring 0 reads a user page", 1, T, mov eax, [T]
        PAGE_FAULT "SMAP: ring 0 writes a user page", 3, T, mov [T], eax
        stac
        mov eax, [T]
        clac
        EQ "with AC set it works", 1, 1
        mov eax, cr4
        and eax, ~(1 << 21)
        mov cr4, eax
.no_smap:
; ---- off again
        mov eax, cr0
        and eax, ~(1 << 31 | 1 << 16)
        mov cr0, eax
        EQ "paging is off", [page_b], 0xbbbb0002
        ret

; Makes the identity pages supervisor pages.
supervisor_only:
        and dword [pd], ~U
        and dword [pd + 4], ~U
        FLUSH
        ret

; Exception hook: maps page 12 and goes back.
map_page:
        SET 12, page_a, P | W | U
        stc
        ret
        END
