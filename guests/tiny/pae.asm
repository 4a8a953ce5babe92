; PAE paging: Intel SDM vol. 3A, 4.4 (PAE paging), 4.6 (access rights: execute-disable), 4.7.
; Identity mapping of the first 16 MiB by 2 MiB pages; the tests' pages at 0x40000000.
%include "boot.inc"

pdpt    equ FREE                ; page-directory-pointer table, 32 bytes
pd0     equ FREE + 0x1000
pd1     equ FREE + 0x2000       ; 0x40000000
ptt     equ FREE + 0x3000
pd1b    equ FREE + 0x4000       ; another directory for the same gigabyte
page_a  equ 0x600000
page_b  equ 0x601000
page_c  equ 0x602000
big     equ 0x800000            ; a 2 MiB page
T       equ 0x40000000
user_stack equ FREE + 0x20000
P equ 1
W equ 2
U equ 4
A equ 0x20
D equ 0x40
PS equ 0x80
NX equ 0x80000000               ; in the upper half

%include "paging.inc"

; RESERVED name, error, address, instruction: a page fault for a reserved bit, which QEMU's
; translator reports without the P bit.
%macro RESERVED 4+
        NOT_QEMU %%skip
        PAGE_FAULT %1, %2, %3, %4
%%skip:
%endmacro

; SET page, physical, flags, upper half
%macro SET 4
        mov dword [ptt + (%1) * 8 + 4], %4
        mov dword [ptt + (%1) * 8], (%2) + (%3)
%endmacro

main:
        mov eax, 1
        cpuid
        test edx, 1 << 6
        jnz .pae
        EQ "CPUID has PAE", 0, 1
        ret
.pae:   mov edi, pdpt
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
        mov dword [pd1b], ptt + (P | W | U)
        mov eax, cr4
        or eax, 1 << 5
        mov cr4, eax
        mov eax, pdpt
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31 | 1 << 16
        mov cr0, eax
        jmp .on
.on:    EQ "PAE paging is on", 1, 1
        mov dword [page_a], 0xaaaa0001
        mov dword [page_b], 0xbbbb0002
        mov dword [page_c], 0xcccc0003

; ---- accessed and dirty
        SET 0, page_a, P | W | U, 0
        mov eax, [T]
        EQ "read through three levels", eax, 0xaaaa0001
        EQ "a read sets A only", [ptt], page_a + (P | W | U | A)
        EQ "a walk sets A of the directory entry", [pd1], ptt + (P | W | U | A)
        NOT_QEMU .no_pointer_check              ; which sets A there
        EQ "the pointer table's entry is not changed", [pdpt + 8], pd1 + P
.no_pointer_check:
        mov dword [T + 4], 0x77
        EQ "a write sets D", [ptt], page_a + (P | W | U | A | D)
        EQ "the write arrived", [page_a + 4], 0x77
        EQ "the upper half is unchanged", [ptt + 4], 0

; ---- faults
        PAGE_FAULT "read of a not-present page", 0, T + 0x1008, mov eax, [T + 0x1008]
        PAGE_FAULT "write of a not-present page", 2, T + 0x1008, mov [T + 0x1008], eax
        PAGE_FAULT "no directory entry", 0, T + 0x200000, mov eax, [T + 0x200000]
        PAGE_FAULT "no pointer table entry", 0, 0x80000000, mov eax, [0x80000000]
        SET 1, page_b, P | U, 0
        PAGE_FAULT "write of a read-only page with WP", 3, T + 0x1000, mov [T + 0x1000], eax
        WRITE_PROTECT 0
        mov dword [T + 0x1004], 5
        EQ "without WP it works", [page_b + 4], 5
        WRITE_PROTECT 1
        SET 2, page_c, P | W, 0
        USER_FAULT "ring 3 reads a supervisor page", 5, T + 0x2000, mov eax, [T + 0x2000]
        USER_FAULT "ring 3 writes a read-only page", 7, T + 0x1000, mov [T + 0x1000], eax
        USER_FAULT "ring 3 writes a not-present page", 6, T + 0x3000, mov [T + 0x3000], eax
        SET 3, page_a, P | W | U, 0x00100000    ; bit 52: beyond any physical address
        RESERVED "reserved address bit", 9, T + 0x3000, mov eax, [T + 0x3000]
        SET 3, page_a, P | W | U, 0
        INVAL 3
        mov dword [pd1 + 8], big + 0x2000 + (P | W | PS)
        RESERVED "reserved bits of a 2 MiB page", 9, T + 0x200000, mov eax, [T + 0x200000]

; ---- the pointer table is read when CR3 is loaded
        mov dword [pdpt + 8], 0
        NOT_QEMU .pointer_loaded                ; which reads it at each walk
        mov eax, T
        invlpg [eax]
        mov eax, [T]
        EQ "a change of the pointer table does not matter before CR3 is loaded", eax, 0xaaaa0001
.pointer_loaded:
        FLUSH
        PAGE_FAULT "but then", 0, T, mov eax, [T]
        mov dword [pdpt + 8], pd1b + P
        FLUSH
        mov eax, [T]
        EQ "another directory", eax, 0xaaaa0001
        EQ "its A", [pd1b], ptt + (P | W | U | A)
        mov dword [pdpt + 8], pd1 + (P | W | U)
        mov ecx, pdpt
        TRY .reserved
.reserved_at: mov cr3, ecx
.reserved:
        cmp dword [is_qemu], 1
        je .no_pdpte_check
        FAULT "reserved bits of a pointer entry: #GP on the load", 13, 0, .reserved_at
.no_pdpte_check:
        mov dword [try_resume], 0
        mov dword [pdpt + 8], pd1 + P
        FLUSH

; ---- 2 MiB pages
        mov dword [pd1 + 8], big + (P | W | U | PS)
        mov dword [big + 0x1ffffc], 0x4711
        mov eax, [T + 0x3ffffc]
        EQ "last dword of a 2 MiB page", eax, 0x4711
        EQ "a read sets its A", [pd1 + 8], big + (P | W | U | PS | A)
        mov dword [T + 0x200000], 0x4712
        EQ "a write sets its D", [pd1 + 8], big + (P | W | U | PS | A | D)
        EQ "the write arrived", [big], 0x4712
        mov dword [pd1 + 16], 0
        PAGE_FAULT "across its end", 2, T + 0x400000, mov [T + 0x3ffffe], eax
        EQ "no half of it was written", [big + 0x1ffffc], 0x4711

; ---- execute disable
        mov eax, 0x80000000
        cpuid
        cmp eax, 0x80000001
        jb .no_nx
        mov eax, 0x80000001
        cpuid
        test edx, 1 << 20
        jz .no_nx
        ; without EFER.NXE bit 63 is reserved
        mov byte [page_a + 0x100], 0xc3
        SET 4, page_a, P | W | U, NX
        RESERVED "without NXE bit 63 is reserved", 9, T + 0x4000, mov eax, [T + 0x4000]
        mov ecx, 0xc0000080
        rdmsr
        or eax, 1 << 11
        wrmsr
        rdmsr
        and eax, 1 << 11
        EQ "EFER keeps NXE", eax, 1 << 11
        mov eax, [T + 0x4000]
        EQ "data of an NX page", eax, 0xaaaa0001
        TRY .nx1
        call T + 0x4100
.nx1:   FAULT "ring 0 executes an NX page", 14, 0x11, T + 0x4100
        EQ "its CR2", [exc_cr2], T + 0x4100
        TRY .nx2
        RING3 T + 0x4100
.nx2:   FAULT "ring 3 executes an NX page", 14, 0x15, T + 0x4100
        TRY .nx3
        jmp T + 0x7000
.nx3:   FAULT "fetch from a not-present page with NXE", 14, 0x10, T + 0x7000
        SET 4, page_a, P | W | U, 0
        INVAL 4
        call T + 0x4100
        EQ "without NX it runs", 1, 1
        SET 4, page_a, P | W | U, NX
        INVAL 4
        TRY .nx4
        call T + 0x4100
.nx4:   FAULT "translated code does not outlive NX", 14, 0x11, T + 0x4100
        SET 4, page_a, P | W | U, 0
        mov dword [pd1 + 4], NX
        FLUSH
        TRY .nx5
        call T + 0x4100
.nx5:   FAULT "NX of the directory entry", 14, 0x11, T + 0x4100
        mov dword [pd1 + 4], 0
        FLUSH
        ; an instruction that runs into an NX page
        mov byte [page_a + 0xfff], 0xb8
        SET 4, page_a, P | W | U, 0
        SET 5, page_b, P | W | U, NX
        FLUSH
        TRY .nx6
        jmp T + 0x4fff
.nx6:   FAULT "fetch across into an NX page", 14, 0x11, T + 0x4fff
        EQ "its CR2", [exc_cr2], T + 0x5000
        mov ecx, 0xc0000080
        rdmsr
        and eax, ~(1 << 11)
        wrmsr
        SET 5, page_b, P | W | U, 0
.no_nx:

; ---- cmpxchg8b across pages, as kernels change entries
        SET 6, page_a, P | W | U, 0
        SET 7, page_c, P | W | U, 0
        FLUSH
        mov dword [page_a + 0xffc], 1
        mov dword [page_c], 2
        mov eax, 1
        mov edx, 2
        mov ebx, 3
        mov ecx, 4
        lock cmpxchg8b [T + 0x6ffc]
        FLAGS "cmpxchg8b across pages: equal", 0x40, 0x40
        EQ "low half", [page_a + 0xffc], 3
        EQ "high half", [page_c], 4
        mov eax, 9
        cmpxchg8b [T + 0x6ffc]
        FLAGS "cmpxchg8b: not equal", 0x40, 0
        EQ "gives the low half", eax, 3
        EQ "gives the high half", edx, 4
        SET 7, 0, 0, 0
        INVAL 7
        mov eax, 3
        mov edx, 4
        NOT_QEMU .off
        PAGE_FAULT "cmpxchg8b into a not-present page", 2, T + 0x7000, lock cmpxchg8b [T + 0x6ffc]
        EQ "and nothing of it was written", [page_a + 0xffc], 3
.off:   mov eax, cr0
        and eax, ~(1 << 31 | 1 << 16)
        mov cr0, eax
        mov eax, cr4
        and eax, ~(1 << 5)
        mov cr4, eax
        ret
        END
