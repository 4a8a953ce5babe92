; The last bytes of the ROM: from the reset vector to the kernel. Intel SDM vol. 3A, 9.1.4 and 9.9.
; ROM_SIZE: the ROM's size; KERNEL_SIZE: bytes of kernel and rows at its beginning.

KERNEL  equ 0x200000

        bits 16
        org 0xff00
start:
        cli
        o32 lgdt [cs:gdtr]
        mov eax, cr0
        and eax, 0x1fffffff             ; caches on
        or al, 1
        mov cr0, eax
        jmp dword 8:0xffff0000 + flat
        bits 32
flat:   mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        in al, 0x92
        or al, 2                        ; A20 open
        and al, 0xfe
        out 0x92, al
        cld
        mov esi, 0 - ROM_SIZE
        mov edi, KERNEL
        mov ecx, (KERNEL_SIZE + 3) / 4
        rep movsd
        mov eax, KERNEL
        jmp eax
        align 8
gdt:    dq 0
        dq 0x00cf9b000000ffff
        dq 0x00cf93000000ffff
gdtr:   dw 23
        dd 0xffff0000 + gdt
        times 0xf0 - ($ - $$) db 0
        bits 16
        jmp start
        times 0x100 - ($ - $$) db 0
