; A bootable diskette that shows a picture in one screen mode after the other. It says the scene's
; name on COM1 when the picture is complete, and goes on at a key. IBM VGA Technical Reference; VBE
; Core Functions 3.0. Each picture is drawn with what the mode has of its own: set/reset, write and
; read modes, latches, page flips, fonts, banks.
bits 16
cpu 386
org 0x7c00

SEQ     equ 0x3c4
GC      equ 0x3ce
CRTC    equ 0x3d4
FONT    equ 0xa000              ; 256 characters of 16 bytes
SAVED   equ 0xb000              ; what was read from the screen
MODE    equ 0xb400              ; VBE mode information

; A register of an indexed pair.
%macro set 3
    mov dx, %1
    mov ax, %2 | (%3) << 8
    out dx, ax
%endmacro

    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    cld
    mov ax, 0x0200 + SECTORS - 1
    mov bx, 0x7e00
    mov cx, 2
    xor dh, dh
    int 0x13
    jnc scenes
stop:
    hlt
    jmp stop
    times 510-($-$$) db 0
    dw 0xaa55

%macro scene 2                  ; routine, name
    call %1
    call tell
    db %2, 10, 0
%endmacro

scenes:
    scene text, "text"
    scene cursor, "cursor"
    scene fonts, "fonts"
    scene lines50, "text-50"
    scene cga4, "cga-4"
    scene cga2, "cga-2"
    scene planar320, "planar-320x200"
    scene planar640, "planar-640x480"
    scene chained, "chain-4"
    scene modex, "mode-x"
    scene split, "split"
    scene vbe4, "vbe-planar"
    scene banked, "vbe-banked"
    scene started, "vbe-start"
    scene vbe15, "vbe-15"
    scene vbe16, "vbe-16"
    scene vbe24, "vbe-24"
    scene vbe32, "vbe-32"
    jmp stop

; Says the text that follows the call on COM1, waits for a key, and sets ES and DS to 0.
tell:
    xor ax, ax
    mov ds, ax
    mov es, ax
    pop si
.next:
    lodsb
    test al, al
    jz .key
    mov ah, al
    mov dx, 0x3fd
.busy:
    in al, dx
    test al, 0x20
    jz .busy
    mov dx, 0x3f8
    mov al, ah
    out dx, al
    jmp .next
.key:
    xor ah, ah
    int 0x16
    jmp si

; ---- text -------------------------------------------------------------------------------------

text_mode:                      ; 80x25, bright backgrounds, no cursor
    mov ax, 0x0003
    int 0x10
    mov ax, 0x1003
    xor bx, bx
    int 0x10
    mov ah, 0x01
    mov cx, 0x2000
    int 0x10
    ret

; Every character but B0h-BFh, whose ninth dot differs between adapters, in every colour.
characters:                     ; CX cells
    mov ax, 0xb800
    mov es, ax
    xor di, di
    xor bx, bx
.next:
    mov al, bl
    and al, 0xf0
    cmp al, 0xb0
    mov al, bl
    jne .plain
    mov al, ' '
.plain:
    mov ah, bl
    add ah, bh
    rol ah, 3
    stosw
    inc bx
    loop .next
    ret

text:
    call text_mode
    mov cx, 2000
    jmp characters

cursor:                         ; scan lines 4-9 at row 12, column 40
    call text_mode
    set CRTC, 0x0a, 4
    set CRTC, 0x0b, 9
    set CRTC, 0x0e, (12 * 80 + 40) >> 8
    set CRTC, 0x0f, (12 * 80 + 40) & 0xff
    ret

fonts:                          ; attribute bit 3 selects a font of our own: 512 characters
    call text_mode
    mov di, FONT
    xor bx, bx
.next:
    mov al, bl
    mul bh
    add al, bl
    xor al, bh
    stosb
    inc bh
    and bh, 15
    jnz .next
    inc bl
    jnz .next
    mov ax, 0x1100
    mov bx, 0x1001
    mov cx, 256
    xor dx, dx
    mov bp, FONT
    int 0x10
    mov ax, 0x1103
    mov bl, 0x04
    int 0x10
    mov cx, 2000
    jmp characters

lines50:
    call text_mode
    mov ax, 0x1112
    xor bl, bl
    int 0x10
    mov ah, 0x01
    mov cx, 0x2000
    int 0x10
    mov cx, 4000
    jmp characters

; ---- CGA graphics -----------------------------------------------------------------------------

cga4:
    mov ax, 0x0004
    jmp cga
cga2:
    mov ax, 0x0006
cga:
    int 0x10
    mov ax, 0xb800
    mov es, ax
    xor di, di
    mov cx, 0x2000
.next:
    mov ax, di
    xor al, ah
    ror al, 2
    mov ah, al
    not ah
    stosw
    loop .next
    ret

; ---- planes -----------------------------------------------------------------------------------

planar320:                      ; page 1 is shown, page 0 is drawn to afterwards
    mov ax, 0x000d
    int 0x10
    mov ax, 0x0501
    int 0x10
    mov ax, 0xa000
    mov es, ax
    mov di, 0x2000
    call by_planes
    xor di, di
    set SEQ, 2, 0x0f
    mov cx, 4000
    mov ax, 0x5555
    rep stosw
    ret

by_planes:                      ; each plane has a pattern of its own
    mov bx, 0x0801
.plane:
    mov dx, SEQ
    mov al, 2
    mov ah, bl
    out dx, ax
    push di
    mov cx, 8000
.byte:
    mov ax, di
    mul bl
    xor al, ah
    stosb
    loop .byte
    pop di
    shl bl, 1
    cmp bl, bh
    jbe .plane
    ret

planar640:
    mov ax, 0x0012
    int 0x10
    mov ax, 0xa000
    mov es, ax
    xor di, di
    ; 16 bars of 16 lines: write mode 0, set/reset in all planes.
    set GC, 1, 0x0f
    xor bx, bx
.bar:
    mov dx, GC
    mov al, 0
    mov ah, bl
    out dx, ax
    mov cx, 1280 / 4
    rep stosd
    inc bl
    cmp bl, 16
    jb .bar
    ; Below them write mode 2 under a bit mask: the rest comes from the latches.
    set GC, 1, 0x00
    set GC, 5, 0x02
    set GC, 8, 0xe7
    mov cx, 32 * 80
.two:
    mov al, [es:di]
    mov ax, cx
    stosb
    loop .two
    ; Write mode 3: set/reset where the rotated data and the bit mask have ones.
    set GC, 0, 0x0e
    set GC, 5, 0x03
    set GC, 3, 0x03
    set GC, 8, 0x3f
    mov di, 272 * 80
    mov cx, 32 * 80
.three:
    mov al, [es:di]
    mov al, cl
    stosb
    loop .three
    ; AND, OR, XOR over the bars, in planes 0 and 2.
    set GC, 5, 0x00
    set GC, 8, 0xff
    set SEQ, 2, 0x05
    mov bx, 0x0820
    call stripe
    mov bx, 0x1030
    call stripe
    mov bx, 0x1840
    call stripe
    set GC, 3, 0x00
    set SEQ, 2, 0x0f
    ; Write mode 1: 80 lines copied through the latches.
    set GC, 5, 0x01
    push ds
    push es
    pop ds
    mov si, 160 * 80
    mov di, 320 * 80
    mov cx, 80 * 80
    rep movsb
    pop ds
    ; Read mode 1: where is colour 5? Read mode 0: plane 2. Both are drawn.
    set GC, 5, 0x08
    set GC, 2, 0x05
    set GC, 7, 0x0f
    mov di, 400 * 80
    call reread
    set GC, 5, 0x00
    set GC, 4, 0x02
    call reread
    ; Palette and DAC.
    mov ax, 0x1000
    mov bx, 0x2a01
    int 0x10
    mov ax, 0x1010
    mov bx, 0x0002
    mov dh, 20
    mov cx, 0x3c0a
    int 0x10
    ret

stripe:                         ; function BH from column BL on, eight bytes wide, 256 lines
    mov dx, GC
    mov al, 3
    mov ah, bh
    out dx, ax
    movzx di, bl
    mov cx, 256
.line:
    push cx
    mov cx, 8
.byte:
    mov al, [es:di]
    mov al, 0x6c
    stosb
    loop .byte
    pop cx
    add di, 72
    loop .line
    ret

reread:                         ; 32 lines at ES:DI show what lines 72 and following read as
    mov si, 72 * 80
    mov cx, 32 * 80
.next:
    push cx
    mov al, [es:si]
    inc si
    mov cl, al
    mov dx, GC
    in al, dx
    push ax
    mov al, 5
    out dx, al
    inc dx
    in al, dx
    push ax
    xor al, al
    out dx, al
    mov al, cl
    stosb
    pop ax
    out dx, al
    dec dx
    pop ax
    out dx, al
    pop cx
    loop .next
    ret

; ---- 256 colours ------------------------------------------------------------------------------

palette:
    mov dx, 0x3c8
    xor al, al
    out dx, al
    inc dx
    xor cx, cx
.next:
    mov al, cl
    and al, 63
    out dx, al
    mov al, cl
    shr al, 2
    out dx, al
    mov al, cl
    not al
    and al, 63
    out dx, al
    inc cl
    jnz .next
    ret

chained:
    mov ax, 0x0013
    int 0x10
    call palette
    mov ax, 0xa000
    mov es, ax
    xor di, di
    mov cx, 64000
.next:
    mov ax, di
    xor al, ah
    stosb
    loop .next
    ret

unchained:                      ; 320x240 in four planes
    mov ax, 0x0013
    int 0x10
    call palette
    set SEQ, 4, 0x06
    set SEQ, 0, 0x01
    mov dx, 0x3c2
    mov al, 0xe3
    out dx, al
    set SEQ, 0, 0x03
    mov dx, CRTC
    mov al, 0x11
    out dx, al
    inc dx
    in al, dx
    and al, 0x7f
    out dx, al
    dec dx
    mov si, .registers
    mov cx, 10
.next:
    lodsw
    out dx, ax
    loop .next
    ; Page 0 by planes, page 1 in all of them.
    mov ax, 0xa000
    mov es, ax
    mov bl, 1
.plane:
    mov dx, SEQ
    mov al, 2
    mov ah, bl
    out dx, ax
    xor di, di
    mov cx, 19200
.byte:
    mov ax, di
    add al, ah
    xor al, bl
    stosb
    loop .byte
    shl bl, 1
    cmp bl, 16
    jb .plane
    mov cx, 19200
.solid:
    mov ax, cx
    mov al, ah
    stosb
    loop .solid
    ret
.registers:
    dw 0x0d06, 0x3e07, 0x4109, 0xea10, 0xac11, 0xdf12, 0x0014, 0xe715, 0x0616, 0xe317

modex:                          ; page 1, with a block copied there through the latches
    call unchained
    set GC, 5, 0x41
    push ds
    push es
    pop ds
    mov si, 1000
    mov di, 19200 + 4000
    mov dx, 60
.line:
    mov cx, 40
    rep movsb
    add si, 40
    add di, 40
    dec dx
    jnz .line
    pop ds
    set GC, 5, 0x40
    set CRTC, 0x0c, 19200 >> 8
    set CRTC, 0x0d, 19200 & 0xff
    ret

split:                          ; below line 199 the picture starts anew at address 0
    call unchained
    set CRTC, 0x0c, 19200 >> 8
    set CRTC, 0x0d, 19200 & 0xff
    set CRTC, 0x18, 199
    set CRTC, 0x07, 0x2e
    set CRTC, 0x09, 0x01
    ret

; ---- VBE --------------------------------------------------------------------------------------

banked:                         ; 640x480, 256 colours of eight bits, by banks of 64 KiB
    mov ax, 0x4f02
    mov bx, 0x0101
    int 0x10
    mov ax, 0x4f08
    mov bx, 0x0800
    int 0x10
    mov dx, 0x3c8
    xor al, al
    out dx, al
    inc dx
    xor cx, cx
.colour:
    mov al, cl
    out dx, al
    rol al, 2
    out dx, al
    not al
    out dx, al
    inc cl
    jnz .colour
    mov ax, 0xa000
    mov es, ax
    xor dx, dx
.bank:
    mov ax, 0x4f05
    xor bx, bx
    int 0x10
    xor di, di
.byte:
    mov ax, di
    xor al, ah
    add al, dl
    stosb
    test di, di
    jnz .byte
    inc dx
    cmp dx, 10
    jb .bank
    ret

started:                        ; the same with longer lines, from a pixel within
    call banked
    mov ax, 0x4f06
    mov bx, 0x0000
    mov cx, 800
    int 0x10
    mov ax, 0x4f07
    xor bx, bx
    mov cx, 64
    mov dx, 24
    int 0x10
    ret

vbe15:
    mov bx, 0x4110
    jmp linear
vbe16:
    mov bx, 0x4111
    jmp linear
vbe24:
    mov bx, 0x4112
    jmp linear
vbe32:
    mov bx, 0x4142
linear:                         ; 640x480 in BX, by the linear framebuffer
    push bx
    mov ax, 0x4f02
    int 0x10
    pop cx
    and cx, 0x0fff
    mov ax, 0x4f01
    mov di, MODE
    int 0x10
    ; A data segment of 4 GiB, kept in real mode.
    cli
    lgdt [.table]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov es, bx
    and al, 0xfe
    mov cr0, eax
    mov edi, [MODE + 40]
    movzx ecx, word [MODE + 16]
    imul ecx, 480
    xor ebx, ebx
.byte:
    mov eax, ebx
    imul eax, 0x01010107
    shr eax, 9
    xor al, ah
    a32 mov [es:edi + ebx], al
    inc ebx
    cmp ebx, ecx
    jb .byte
    sti
    ret
    align 8
.descriptors:
    dq 0
    dq 0x00cf92000000ffff
.table:
    dw 15
    dd .descriptors

vbe4:                           ; 800x600 in four planes
    mov ax, 0x4f02
    mov bx, 0x0102
    int 0x10
    mov ax, 0xa000
    mov es, ax
    mov bl, 1
.plane:
    mov dx, SEQ
    mov al, 2
    mov ah, bl
    out dx, ax
    xor di, di
    mov cx, 60000
.byte:
    mov ax, di
    mul bl
    xor al, ah
    stosb
    loop .byte
    shl bl, 1
    cmp bl, 16
    jb .plane
    ret

SECTORS equ ($ - $$ + 511) / 512
%if SECTORS > 18
%error the first track is full
%endif
    times 1474560-($-$$) db 0
