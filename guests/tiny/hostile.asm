; What a guest may try against its monitor. The first letter of the command line chooses, the next
; one seeds what is random; each says "GO", then goes on for ever or until the machine ends it. None of it may harm anyone else.
%include "boot.inc"

random  equ user_vars
page_directory equ FREE
tables  equ FREE + 0x1000       ; two page tables

main:
        mov ebx, [command_line]
        movzx eax, byte [ebx + 1]
        imul eax, eax, 0x9e3779b9
        xor eax, 0x2545f491
        mov [random], eax
        mov esi, go
        call print
        call newline
        mov al, [ebx]
        mov esi, cases
.find:  cmp byte [esi], 0
        je .none
        cmp al, [esi]
        je .found
        add esi, 5
        jmp .find
.found: jmp [esi + 1]
.none:  ret
go:     db "GO", 0

%macro CASE 2
        db %1
        dd %2
%endmacro
cases:
        CASE "t", triple_fault
        CASE "w", wild_jumps
        CASE "f", fault_loop
        CASE "u", undefined_loop
        CASE "p", own_page_tables
        CASE "c", own_code
        CASE "r", store_everywhere
        CASE "o", random_ports
        CASE "d", dma_to_nowhere
        CASE "s", endless_calls
        CASE "v", device_code
        CASE "m", device_copies
        CASE "g", random_descriptors
        CASE "x", random_registers
        CASE "i", interrupt_storm
        CASE "h", dead_halt
        db 0

; EAX = a random number (xorshift). Clobbers EDX.
next:   mov eax, [random]
        mov edx, eax
        shl edx, 13
        xor eax, edx
        mov edx, eax
        shr edx, 17
        xor eax, edx
        mov edx, eax
        shl edx, 5
        xor eax, edx
        mov [random], eax
        ret

triple_fault:
        mov word [idtr], 0
        lidt [idtr]
        int3

; Jumps anywhere, and from wherever that faults again.
wild_jumps:
        mov dword [hook], .again
.again: mov eax, DATA32
        mov ds, eax
        mov ss, eax
        mov esp, STACK
        call next
        mov ebx, eax
        call next
        test al, 3
        jz .anywhere
        and ebx, 0x3ffffff              ; mostly where there is memory
.anywhere:
        jmp ebx

fault_loop:
        call paging
        mov dword [hook], .back
        mov dword [tables + 0x1ff * 4], 0
        mov cr3, edi
        mov eax, [0x1ff000]
        ret
.back:  stc
        ret

undefined_loop:
        mov dword [hook], fault_loop.back
        ud2

; Identity mapping of 8 MiB; EDI = its directory.
paging: mov edi, tables
        mov eax, 7
        mov ecx, 2048
.fill:  stosd
        add eax, 0x1000
        loop .fill
        mov edi, page_directory
        push edi
        mov ecx, 1024
        xor eax, eax
        rep stosd
        pop edi
        mov dword [edi], tables + 7
        mov dword [edi + 4], tables + 0x1007
        mov cr3, edi
        mov eax, cr0
        or eax, 1 << 31 | 1 << 16
        mov cr0, eax
        ret

; Random entries into the tables in use, through themselves; only this code stays where it is.
own_page_tables:
        call paging
        mov dword [hook], .again
.again: mov esp, STACK
.more:  call next
        mov ebx, eax
        and ebx, 0x7ff
        cmp ebx, 0x100                  ; code
        jb .skip
        cmp ebx, 0x300                  ; variables and the stack
        jb .more
.skip:  cmp ebx, 0x110
        jb .more
        call next
        mov [tables + ebx * 4], eax
        mov eax, [random]
        and eax, 0x7fffff
        invlpg [eax]
        test dword [random], 0x100
        jz .read
        mov [eax], ebx
        jmp .more
.read:  mov eax, [eax]
        mov eax, cr3
        mov cr3, eax
        jmp .more

; Writes random bytes into a page that it runs.
own_code:
        mov dword [hook], .again
        mov edi, FREE
        mov ecx, 0x1000
        mov al, 0x90
        rep stosb
        mov byte [edi], 0xc3
.again: mov eax, DATA32
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov esp, STACK
.more:  call next
        mov ebx, eax
        and ebx, 0xfff
        call next
        mov [FREE + ebx], al
        and ah, 0xf
        jnz .run
        mov dword [FREE + ebx], 0x90909090
.run:   call FREE
        jmp .more

store_everywhere:
        mov al, 0xf4
        mov edi, image_end
        mov ecx, -1
        rep stosb
        jmp store_everywhere

; Random values to all ports, but for those that end the machine by design.
random_ports:
        call next
        mov ebx, eax
        call next
        movzx edx, bx
        shr edx, 2
        mov ecx, .not_these_end - .not_these
        shr ecx, 1
        mov edi, .not_these
        mov esi, eax
        mov eax, edx
        repne scasw
        mov eax, esi
        je random_ports
        mov edx, ebx
        cmp dh, 0xb0                    ; power management
        je random_ports
        test ebx, 0x10000
        jz .dword
        out dx, al
        in al, dx
        jmp random_ports
.dword: test ebx, 0x20000
        jz .word
        out dx, eax
        in eax, dx
        jmp random_ports
.word:  out dx, ax
        in ax, dx
        jmp random_ports
.not_these:
        dw 0x60 >> 2, 0x64 >> 2, 0x8c >> 2, 0x90 >> 2, 0x500 >> 2, 0xcf4 >> 2, 0xcf8 >> 2
.not_these_end:

; Every bus master that PCI shows, and the ISA DMA controller: descriptors and buffers nowhere.
dma_to_nowhere:
        mov ebx, 0x80000000             ; bus 0, all slots and functions
.slot:  lea eax, [ebx + 4]
        mov dx, 0xcf8
        out dx, eax
        mov dx, 0xcfc
        in eax, dx
        or eax, 7                       ; I/O, memory, bus master
        out dx, eax
        lea eax, [ebx + 0x20]           ; BAR 4: where IDE has its bus master registers
        mov dx, 0xcf8
        out dx, eax
        mov dx, 0xcfc
        mov eax, 0xc001
        out dx, eax
        call .bus_master
        add ebx, 0x100
        cmp ebx, 0x80010000
        jb .slot
        xor ecx, ecx
.isa:   mov al, 0xff                    ; 8237, channel 2: address FFFFH, page FFH, count FFFFH
        out 0x04, al
        out 0x04, al
        out 0x81, al
        out 0x05, al
        out 0x05, al
        mov al, 0x46
        out 0x0b, al
        mov al, 2
        out 0x0a, al
        out 0x09, al
        loop .isa
        jmp dma_to_nowhere
.bus_master:
        mov dx, 0xc004
        mov eax, 0xfffffffc             ; a table of descriptors beyond memory
        test ebx, 0x100
        jz .table
        mov dword [FREE], 0xfffffff0    ; or one that names memory that is not there
        mov dword [FREE + 4], 0x8000fffe
        mov eax, FREE
.table: out dx, eax
        mov dx, 0x1f6
        mov al, 0xe0
        out dx, al
        mov dx, 0x1f2
        mov al, 0xff
        out dx, al
        mov dx, 0x1f7
        mov al, 0xc8                    ; READ DMA
        out dx, al
        mov dx, 0xc000
        mov al, 9
        out dx, al
        ret

endless_calls:
        mov dword [hook], .again
.again: mov esp, STACK
.call:  call .call
        jmp .call

; Instructions from device memory, holes and the end of the address space.
device_code:
        mov dword [hook], .again
        mov dword [user_vars + 4], 0
.again: mov eax, DATA32
        mov ds, eax
        mov ss, eax
        mov esp, STACK
        inc dword [user_vars + 4]
        mov eax, [user_vars + 4]
        and eax, 7
        jmp [places + eax * 4]
places: dd 0xa0000, 0xb8000, 0xc0000, 0xe0000000, 0xfec00000, 0xfee00000, 0xfffffff0, 0x3fffffe

device_copies:
        mov dword [hook], .again
        mov dword [user_vars + 4], 0
.again: mov esp, STACK
        cld
        inc dword [user_vars + 4]
        mov eax, [user_vars + 4]
        mov edx, eax
        and eax, 7
        shr edx, 3
        and edx, 7
        mov esi, [places + eax * 4]
        mov edi, [places + edx * 4]
        sub esi, 0x10
        mov ecx, 0x100
        rep movsd
        mov edi, [places + edx * 4]
        sub edi, 0x10
        fnsave [edi]
        fxsave [edi + 0x20]
        lock xadd [edi], eax
        call [edi]
        jmp .again

; Random GDT and IDT entries, then everything that uses one.
random_descriptors:
        mov dword [hook], .again
.again: mov eax, DATA32
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov esp, STACK
        mov ecx, 16
.fill:  call next
        mov ebx, eax
        and ebx, 0x7f
        call next
        mov [gdt + FIRST_FREE_SEL + ebx * 2], eax
        loop .fill
        call next
        mov ebx, eax
        and ebx, 0x7f
        call next
        mov [idt + 0x80 * 8 + ebx * 8], eax
        call next
        and eax, 0x1ff
        add eax, FIRST_FREE_SEL
        mov ebx, [random]
        and ebx, 0x70
        shr ebx, 2
        jmp [.uses + ebx]
        align 4
.uses:  dd .ds, .ss, .far, .lldt, .ltr, .lar, .int, .iret
.ds:    mov fs, eax
        mov [fs:ebx], ebx
        jmp .again
.ss:    mov ss, eax
        push eax
        jmp .again
.far:   push eax
        push dword .again
        retf
.lldt:  lldt ax
        jmp .again
.ltr:   ltr ax
        jmp .again
.lar:   lar ecx, eax
        lsl edx, eax
        verr ax
        verw ax
        jmp .again
.int:   int 0x81
        int 0x9f
        int 0xc0
        jmp .again
.iret:  push dword [random]
        push eax
        push dword .again
        iretd

; Random values in control, debug and model-specific registers.
random_registers:
        mov dword [hook], .again
.again: mov eax, DATA32
        mov ds, eax
        mov ss, eax
        mov esp, STACK
.begin: call next
        mov ebx, eax
        call next
        and ebx, 7
        jmp [.which + ebx * 4]
        align 4
.which: dd .cr4, .dr7, .dr, .msr, .xcr, .flags, .cr2, .cr0
.cr4:   and eax, ~(1 << 5)              ; PAE would end it at once
        mov cr4, eax
        jmp .again
.dr7:   mov dr7, eax
        jmp .again
.dr:    mov dr0, eax
        mov eax, .begin
        mov dr1, eax
        mov dr6, eax
        jmp .again
.msr:   mov ecx, eax
        and ecx, 0xfff
        test eax, 0x1000
        jz .low
        or ecx, 0xc0000000
.low:   mov edx, [random]
        test eax, 0x2000
        jz .read
        wrmsr
        jmp .again
.read:  rdmsr
        jmp .again
.xcr:   xor ecx, ecx
        xor edx, edx
        xsetbv
        jmp .again
.flags: push eax
        popfd
        jmp .again
.cr2:   mov cr2, eax
        jmp .again
.cr0:   and eax, ~(1 << 31)
        or eax, 1
        mov cr0, eax
        jmp .again

; The timer as fast as it goes, never acknowledged right, with a handler that returns at once.
interrupt_storm:
        mov al, 0x34
        out 0x43, al
        mov al, 2
        out 0x40, al
        mov al, 0
        out 0x40, al
        mov al, 0x13                    ; single, with ICW4
        out 0x20, al
        mov al, 0x40
        out 0x21, al
        mov al, 3                       ; automatic EOI
        out 0x21, al
        mov al, 0
        out 0x21, al
        GATE idt + 0x40 * 8, CODE32, .tick, 0x8e, 0
        sti
.spin:  jmp .spin
.tick:  sti
        iretd

dead_halt:
        cli
        hlt
        jmp dead_halt
        END
