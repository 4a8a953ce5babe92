; A boot sector that finds the largest 32-bit mode that the VGA BIOS offers up to 2560x1600, sets
; it with its linear framebuffer, and fills the screen: the left half red, the right half blue,
; the last pixel green. Then it says on COM1 which mode it was. VBE Core Functions 3.0, 4.3-4.5.
bits 16
org 0x7c00
INFO equ 0x8000
MODE equ 0x8400
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    mov dword [INFO], 'VBE2'
    mov ax, 0x4f00
    mov di, INFO
    int 0x10
    cmp ax, 0x004f
    jne fail
    lfs si, [INFO+14]       ; the mode list
next:
    mov cx, [fs:si]
    add si, 2
    cmp cx, 0xffff
    je set
    mov ax, 0x4f01
    mov di, MODE
    push cx
    int 0x10
    pop cx
    cmp ax, 0x004f
    jne next
    test byte [MODE], 0x80  ; a linear framebuffer
    jz next
    cmp byte [MODE+25], 32
    jne next
    cmp word [MODE+18], 2560
    ja next
    movzx eax, word [MODE+18]
    movzx edx, word [MODE+20]
    imul eax, edx
    cmp eax, [most]
    jbe next
    mov [most], eax
    mov [best], cx
    jmp next
set:
    mov cx, [best]
    mov ax, 0x4f01
    mov di, MODE
    int 0x10
    mov bx, [best]
    or bx, 0x4000
    mov ax, 0x4f02
    int 0x10
    cmp ax, 0x004f
    jne fail
    ; A data segment of 4 GiB, kept in real mode.
    cli
    lgdt [table]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov es, bx
    and al, 0xfe
    mov cr0, eax
    xor bx, bx
    mov edi, [MODE+40]
    movzx edx, word [MODE+20]
line:
    movzx ecx, word [MODE+18]
    shr ecx, 1
    mov ebx, ecx
    push edi
    mov eax, 0x00ff0000
    a32 rep stosd
    mov ecx, ebx
    mov eax, 0x000000ff
    a32 rep stosd
    mov esi, edi
    pop edi
    movzx eax, word [MODE+16]
    add edi, eax
    dec edx
    jnz line
    a32 mov dword [es:esi-4], 0x0000ff00
    mov ax, [MODE+18]
    call number
    mov al, 'x'
    call say
    mov ax, [MODE+20]
    call number
fail:
    mov al, 10
    call say
stop:
    hlt
    jmp stop
number:                     ; AX in decimal
    xor cx, cx
    mov bx, 10
.digit:
    xor dx, dx
    div bx
    push dx
    inc cx
    test ax, ax
    jnz .digit
.out:
    pop ax
    add al, '0'
    call say
    loop .out
    ret
say:
    mov dx, 0x3f8
    out dx, al
    ret
most: dd 0
best: dw 0
    align 8
descriptors:
    dq 0
    dq 0x00cf92000000ffff
table:
    dw 15
    dd descriptors
    times 510-($-$$) db 0
    dw 0xaa55
    times 1474560-($-$$) db 0
