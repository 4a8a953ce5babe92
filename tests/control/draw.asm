; Draws into the linear framebuffer: a line at the start and one for each key that goes down.
; 32-bit code without paging, at 1 MiB, from a board that firmware has not touched.

        bits 32
        org 0x100000

FRAMEBUFFER     equ 0xfd000000
PITCH           equ 640 * 4

        mov esp, 0x90000
        mov ebx, modes
.mode:  mov dx, 0x1ce
        mov ax, [ebx]
        out dx, ax
        inc dx
        mov ax, [ebx + 2]
        out dx, ax
        add ebx, 4
        cmp ebx, modes.end
        jne .mode
        mov edi, FRAMEBUFFER + 100 * PITCH
        call line
        mov al, 0xae            ; enable the keyboard
        out 0x64, al
        mov al, 0xf4
        out 0x60, al
wait_:  in al, 0x64
        test al, 1
        jz wait_
        in al, 0x60
        test al, 0x80
        jnz wait_
        mov edi, FRAMEBUFFER + 300 * PITCH
        call line
        jmp wait_

line:   mov ecx, 640
        mov eax, 0x00ff8040
        rep stosd
        ret

modes:  dw 4, 0,  1, 640,  2, 480,  3, 32,  4, 0x41
.end:
