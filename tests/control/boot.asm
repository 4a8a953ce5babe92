; A boot sector and what it loads: shows keys, the mouse, what is in the floppy drive and in the
; CD-ROM drive, and the power button, in text. Boots from a hard disk through SeaBIOS.

        bits 16
        org 0x7c00

PM_EVENTS       equ 0x600       ; PM1a status, where SeaBIOS puts it
PM_CONTROL      equ 0x604

start:  cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        sti
        mov ax, 0x0204          ; four sectors after this one
        mov bx, 0x7e00
        mov cx, 0x0002
        mov dh, 0
        int 0x13
        jc $
        jmp main
        times 510-($-$$) db 0
        dw 0xaa55

main:   mov ax, 0x0003
        int 0x10
        mov ax, 0xc205          ; initialize the mouse, packets of three bytes
        mov bh, 3
        int 0x15
        mov ax, 0xc207
        mov bx, mouse
        int 0x15
        mov ax, 0xc200
        mov bh, 1
        int 0x15
        mov si, ready
        call print

idle:   hlt
        inc byte [count]
        mov ax, 0xb800          ; something that moves, at the right end of the first line
        mov es, ax
        mov al, [count]
        and al, 15
        add al, 'A'
        mov [es:158], al
        xor ax, ax
        mov es, ax
        cmp byte [moved], 0
        je .still
        mov byte [moved], 0
        mov al, 'M'
        call char
        mov al, [buttons]
        call hex
        mov al, [dx_]
        call hex
        mov al, [dy_]
        call hex
        call blank
.still: mov dx, PM_EVENTS
        in ax, dx
        test ah, 1              ; PWRBTN_STS
        jz .on
        mov dx, PM_CONTROL
        mov ax, 0x2000          ; S5, SLP_EN
        out dx, ax
.on:    mov ah, 1
        int 0x16
        jz idle
        xor ah, ah
        int 0x16
        push ax
        mov al, 'K'
        call char
        pop ax
        push ax
        mov al, ah
        call hex
        pop ax
        push ax
        call hex
        call blank
        pop ax
        cmp ax, 0x3b00          ; F1
        je floppy
        cmp ax, 0x3c00          ; F2
        je disc
        cmp ax, 0x3d00          ; F3
        jne idle
        mov ax, 0x0013
        int 0x10
        jmp idle

floppy: mov cx, 3               ; the first tries report the change
.again: push cx
        mov ax, 0x0201
        mov bx, buffer
        mov cx, 0x0002
        mov dx, 0
        int 0x13
        pop cx
        jnc .read
        loop .again
        mov byte [buffer], '-'
.read:  mov al, 'F'
        jmp result

; READ(10) of sector 16 from the master of the secondary channel, by PIO.
disc:   mov cx, 3               ; the first tries report the change
.again: push cx
        mov dx, 0x176
        mov al, 0xa0
        out dx, al
        call ready_
        mov dx, 0x171
        xor al, al
        out dx, al
        mov dx, 0x174
        out dx, al
        inc dx
        mov al, 8               ; up to 2048 bytes at once
        out dx, al
        mov dx, 0x177
        mov al, 0xa0            ; PACKET
        out dx, al
        call ready_
        mov dx, 0x170
        mov si, packet
        mov cx, 6
        rep outsw
        call ready_
        pop cx
        test al, 1              ; ERR
        jz .data
        loop .again
        mov byte [buffer], '-'
        jmp .read
.data:  mov dx, 0x170
        mov di, buffer
        mov cx, 1024
        rep insw
        call ready_
.read:  mov al, 'D'
        jmp result

; Waits until the drive is not busy; its status in AL.
ready_: mov dx, 0x177
        in al, dx
        test al, 0x80
        jnz ready_
        ret

result: call char
        mov al, ':'
        call char
        mov al, [buffer]
        call char
        call blank
        jmp idle

; Called by the BIOS: status, x, y and z lie above the far return address.
mouse:  push bp
        mov bp, sp
        push ax
        push ds
        xor ax, ax
        mov ds, ax
        mov ax, [bp+12]
        mov [buttons], al
        mov ax, [bp+10]
        mov [dx_], al
        mov ax, [bp+8]
        mov [dy_], al
        mov byte [moved], 1
        pop ds
        pop ax
        pop bp
        retf

hex:    push ax
        shr al, 4
        call .digit
        pop ax
        and al, 15
.digit: add al, '0'
        cmp al, '9'
        jbe char
        add al, 'a' - '9' - 1
char:   mov ah, 0x0e
        mov bx, 7
        int 0x10
        ret
blank:  mov al, ' '
        jmp char

print:  lodsb
        or al, al
        jz .end
        call char
        jmp print
.end:   ret

ready:  db 0x01, 0x82, 0xe1, 0xb0, 0xdb, 0xf7, " ready", 13, 10, 0
count:  db 0
moved:  db 0
buttons: db 0
dx_:    db 0
dy_:    db 0
packet: db 0x28, 0, 0, 0, 0, 16, 0, 0, 1, 0, 0, 0
        times 2560-($-$$) db 0
buffer: equ 0x9000
