; A boot sector that turns the machine off as DOS programs do: by the APM interface of the BIOS.
; APM BIOS Interface Specification 1.2, 4.6.
bits 16
org 0x7c00
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7c00
    mov ax, 0x5300          ; installed?
    xor bx, bx
    int 0x15
    jc .fail
    cmp bx, 0x504d          ; "PM"
    jne .fail
    mov ax, 0x5301          ; connect the real-mode interface
    xor bx, bx
    int 0x15
    jc .fail
    mov ax, 0x530e          ; driver version 1.2
    xor bx, bx
    mov cx, 0x0102
    int 0x15
    mov ax, 0x5307          ; every device: off
    mov bx, 1
    mov cx, 3
    int 0x15
.fail:
    mov ax, 0x0e46          ; 'F'
    mov bx, 7
    int 0x10
    cli
    hlt
    times 510-($-$$) db 0
    dw 0xaa55
    times 1474560-($-$$) db 0
