; Hardware task switches: Intel SDM vol. 3A, chapter 8 (7 in older editions).
%include "boot.inc"

TASK2   equ 0x48                ; available 32-bit TSSs
TASK3   equ 0x50                ; ring 3
TASK4   equ 0x58                ; for exceptions
GATE2   equ 0x60                ; a task gate to TASK2
SMALL_TSS   equ 0x68                ; a TSS with too small a limit
ABSENT  equ 0x70                ; not present
TASK5   equ 0x78                ; with another CR3 and an LDT
LDT5    equ 0x80
TASK16  equ 0x88                ; a 16-bit TSS
BADDS   equ 0x90                ; a TSS whose DS is no data segment
tss2    equ FREE
tss3    equ FREE + 0x100
tss4    equ FREE + 0x200
tss5    equ FREE + 0x300
tss16   equ FREE + 0x400
tssbad  equ FREE + 0x500
ldt5    equ FREE + 0x600
pd_a    equ FREE + 0x10000
pd_b    equ FREE + 0x11000
stack2  equ FREE + 0x8000
result  equ user_vars
NT      equ 0x4000

; TASK address, eip, esp, cs, data selector, eflags: fills a TSS.
%macro TASK 6
        mov dword [%1 + 0x20], %2
        mov dword [%1 + 0x24], %6
        mov dword [%1 + 0x38], %3
        mov dword [%1 + 0x4c], %4
        mov dword [%1 + 0x48], %5
        mov dword [%1 + 0x50], %5
        mov dword [%1 + 0x54], %5
        mov dword [%1 + 0x58], %5
        mov dword [%1 + 0x5c], %5
        mov word [%1 + 0x66], 104
        mov dword [%1 + 4], STACK - 0x8000
        mov dword [%1 + 8], DATA32
%endmacro

; BUSY name, selector, 0 or 1: the busy bit of a TSS descriptor.
%macro BUSY 3
        movzx eax, byte [gdt + %2 + 5]
        shr eax, 1
        and eax, 1
        EQ %1, eax, %3
%endmacro

main:   mov edi, FREE
        mov ecx, 0x2000 / 4
        xor eax, eax
        rep stosd
        DESCRIPTOR TASK2, tss2, 0x67, 0x89, 0
        DESCRIPTOR TASK3, tss3, 0x67, 0x89, 0
        DESCRIPTOR TASK4, tss4, 0x67, 0x89, 0
        DESCRIPTOR SMALL_TSS, tss2, 0x66, 0x89, 0
        DESCRIPTOR ABSENT, tss2, 0x67, 0x09, 0
        DESCRIPTOR TASK5, tss5, 0x67, 0x89, 0
        DESCRIPTOR LDT5, ldt5, 0x17, 0x82, 0
        DESCRIPTOR TASK16, tss16, 0x2b, 0x81, 0
        DESCRIPTOR BADDS, tssbad, 0x67, 0x89, 0
        GATE gdt + GATE2, TASK2, 0, 0x85, 0
        BUSY "ltr made our TSS busy", TSS_SEL, 1

; ---- jmp there and back
        TASK tss2, .task2, stack2, CODE32, DATA32, 2
        mov dword [tss2 + 0x28], 0x1a           ; eax ecx edx ebx, ebp esi edi
        mov dword [tss2 + 0x2c], 0x1c
        mov dword [tss2 + 0x30], 0x1d
        mov dword [tss2 + 0x34], 0x1b
        mov dword [tss2 + 0x3c], 0x1e
        mov dword [tss2 + 0x40], 0x1f
        mov dword [tss2 + 0x44], 0x20
        mov eax, 0xa1
        mov ebx, 0xb1
        mov ecx, 0xc1
        mov ebp, 0xe1
        mov [result + 0x40], esp
        stc
        jmp TASK2:0xdeadbeef
.back:  FLAGS "flags come back", 1, 1
        EQ "EAX comes back", eax, 0xa1
        EQ "EBX comes back", ebx, 0xb1
        EQ "ECX comes back", ecx, 0xc1
        EQ "EBP comes back", ebp, 0xe1
        mov eax, esp
        EQ "ESP comes back", eax, [result + 0x40]
        EQ "the outgoing state was saved: EIP", [tss + 0x20], .back
        EQ "... EAX", [tss + 0x28], 0xa1
        EQ "... CS", [tss + 0x4c], CODE32
        EQ "the new task's EAX", [result], 0x1a
        EQ "EDI", [result + 4], 0x20
        EQ "ESP", [result + 8], stack2
        EQ "its TSS was busy then", [result + 12], 1
        EQ "ours was not", [result + 16], 0
        EQ "str gave it", [result + 20], TASK2
        EQ "jmp sets no NT", [result + 24], 0
        EQ "CR0.TS was set", [result + 28], 8
        BUSY "it is no longer busy", TASK2, 0
        BUSY "ours is again", TSS_SEL, 1
        clts
        jmp .calls
.task2: mov [result], eax
        mov [result + 4], edi
        mov [result + 8], esp
        movzx eax, byte [gdt + TASK2 + 5]
        shr eax, 1
        and eax, 1
        mov [result + 12], eax
        movzx eax, byte [gdt + TSS_SEL + 5]
        shr eax, 1
        and eax, 1
        mov [result + 16], eax
        str eax
        mov [result + 20], eax
        pushfd
        pop eax
        and eax, NT
        mov [result + 24], eax
        mov eax, cr0
        and eax, 8
        mov [result + 28], eax
        jmp TSS_SEL:0

; ---- call and iret
.calls: TASK tss2, .called, stack2, CODE32, DATA32, 2
        mov eax, 0xa2
        call TASK2:0
        EQ "call came back by iret", eax, 0xa2
        EQ "call sets NT", [result], NT
        EQ "call sets the link", [result + 4], TSS_SEL
        EQ "the caller stays busy", [result + 8], 1
        BUSY "iret clears busy", TASK2, 0
        EQ "the saved flags have NT clear", [tss2 + 0x24], 0x2
        pushfd
        pop eax
        and eax, NT
        EQ "our NT is clear", eax, 0
        EQ "iret saved where to go on", [tss2 + 0x20], .called_again
        call TASK2:0
        EQ "a second call goes on behind iret", [result + 12], 0x77
        clts
        call GATE2:0
        EQ "call by a task gate", [result + 12], 0x78
        jmp .ints
.called: pushfd
        pop eax
        and eax, NT
        mov [result], eax
        movzx eax, word [tss2]
        mov [result + 4], eax
        movzx eax, byte [gdt + TSS_SEL + 5]
        shr eax, 1
        and eax, 1
        mov [result + 8], eax
        iretd
.called_again: mov dword [result + 12], 0x77
        iretd
        mov dword [result + 12], 0x78
        iretd

; ---- interrupts and exceptions by task gates
.ints:  GATE idt + 0x50 * 8, TASK4, 0, 0xe5, 0
        TASK tss4, .int_task, stack2 + 0x1000, CODE32, DATA32, 2
        int 0x50
        EQ "int by a task gate", [result], 0x5050
        int 0x50
        EQ "again, behind its iret", [result], 0x5151
        GATE idt + 13 * 8, TASK4, 0, 0x85, 0
        TASK tss4, .gp_task, stack2 + 0x1000, CODE32, DATA32, 2
        mov eax, 0x7ff8
.gp_at: mov fs, ax
        EQ "#GP by a task gate: error code", [result], 0x7ff8
        EQ "... pushed on the new stack", [result + 4], stack2 + 0x1000 - 4
        EQ "... EIP saved in the old TSS", [result + 8], .gp_at
        GATE idt + 13 * 8, CODE32, stubs + 13 * stub_size, 0x8e, 0
        xor eax, eax
        mov fs, ax
        jmp .ring3
.int_task: mov dword [result], 0x5050
        iretd
        mov dword [result], 0x5151
        iretd
.gp_task: mov [result + 4], esp
        pop dword [result]
        mov eax, [tss + 0x20]
        mov [result + 8], eax
        add dword [tss + 0x20], 2               ; behind the load
        iretd

; ---- a task in ring 3, which ends by an exception into ring 0
.ring3: TASK tss3, .user, stack2, USER_CODE, USER_DATA, 2
        TRY .user_back
        jmp TASK3:0
        jmp .home                               ; where our own TSS goes on
.user:  mov eax, cs
.user_at: cli
.user_back:
        FAULT "a task of ring 3: cli", 13, 0, .user_at
        EQ "its CS", [exc_eax], USER_CODE
        EQ "its stack", [exc_esp], stack2
        str eax
        EQ "we are in its TSS still", eax, TASK3
        BUSY "which is busy", TASK3, 1
        jmp TSS_SEL:0
.home:  BUSY "back home", TASK3, 0
        clts

; ---- CR3, LDT, FS by the TSS
        mov edi, pd_a
        mov ecx, 0x2000 / 4
        xor eax, eax
        rep stosd
        mov eax, cr4
        or eax, 1 << 4
        mov cr4, eax
        mov dword [pd_a], 0x83
        mov dword [pd_a + 4], 0x400083
        mov dword [pd_a + 0x40 * 4], 0x400083
        mov dword [pd_b], 0x83
        mov dword [pd_b + 4], 0x400083
        mov dword [pd_b + 0x40 * 4], 0x800083
        mov dword [0x500000], 0x11
        mov dword [0x900000], 0x22
        mov eax, pd_a
        mov cr3, eax
        mov eax, cr0
        or eax, 1 << 31
        mov cr0, eax
        jmp .paged
.paged: mov dword [tss + 0x1c], pd_a
        TASK tss5, .task5, stack2, CODE32, DATA32, 2
        mov dword [tss5 + 0x1c], pd_b
        mov dword [tss5 + 0x60], LDT5
        mov dword [tss5 + 0x58], 0x0c           ; FS from the LDT
        mov dword [ldt5 + 8], 0x0000ffff
        mov dword [ldt5 + 12], 0x00cf9350       ; base 0x500000
        mov eax, [0x10100000]
        EQ "before the switch", eax, 0x11
        call TASK5:0
        EQ "the task's CR3", [result], pd_b
        EQ "its address space", [result + 4], 0x22
        EQ "its LDT", [result + 8], LDT5
        EQ "its FS from the LDT", [result + 12], 0x11
        mov eax, cr3
        EQ "CR3 comes back", eax, pd_a
        mov eax, [0x10100000]
        EQ "our address space", eax, 0x11
        sldt eax
        EQ "our LDT comes back", eax, 0
        mov eax, cr0
        and eax, ~(1 << 31)
        mov cr0, eax
        jmp .faults
.task5: mov eax, cr3
        mov [result], eax
        mov eax, [0x10100000]
        mov [result + 4], eax
        sldt eax
        mov [result + 8], eax
        mov eax, [fs:0]
        mov [result + 12], eax
        iretd

; ---- faults before the switch: in the old task
.faults: FAULTS "jmp to a busy TSS", 13, TSS_SEL, jmp TSS_SEL:0
        FAULTS "call to a busy TSS", 13, TSS_SEL, call TSS_SEL:0
        FAULTS "jmp to a TSS that is not present", 11, ABSENT, jmp ABSENT:0
        FAULTS "jmp to a TSS that is too small", 10, SMALL_TSS, jmp SMALL_TSS:0
        FAULTS "ltr of a busy TSS", 13, TSS_SEL, ltr [sel_busy]
        FAULTS "ltr of a data segment", 13, DATA32, ltr [sel_data]
        FAULTS "ltr of a TSS that is not present", 11, ABSENT, ltr [sel_absent]
        str eax
        EQ "TR as before", eax, TSS_SEL
        BUSY "our TSS stays busy", TSS_SEL, 1
        push dword 2 | NT
        popfd
        mov word [tss], TASK2                   ; not busy: no caller
        FAULTS "iret with NT to a TSS that is not busy", 10, TASK2, iretd
        mov word [tss], 0
        push dword 2
        popfd

; ---- faults in the new task
        TASK tssbad, .never, stack2, CODE32, DATA32, 2
        mov dword [tssbad + 0x54], TASK2        ; DS = a system segment
        TRY .bad_ds
        jmp BADDS:0
        jmp .home2
.never: ud2
.bad_ds: EQ "a bad DS in the new task: #TS", [exc_vector], 10
        EQ "... its selector", [exc_error], TASK2
        NOT_QEMU .bad_done                      ; which gives the jump's address
        EQ "... in the new task's EIP", [exc_eip], .never
.bad_done:
        jmp TSS_SEL:0
.home2: BUSY "home again", TSS_SEL, 1

; ---- a 16-bit TSS
        mov word [tss16 + 0x0e], .entry16 - .low16 + 0x7000
        mov word [tss16 + 0x10], 2
        mov word [tss16 + 0x12], 0x1616
        mov word [tss16 + 0x1a], 0x6000
        mov word [tss16 + 0x22], DATA32         ; es cs ss ds
        mov word [tss16 + 0x24], CODE32
        mov word [tss16 + 0x26], DATA32
        mov word [tss16 + 0x28], DATA32
        mov esi, .low16
        mov edi, 0x7000
        mov ecx, .low16_end - .low16
        rep movsb
        mov ecx, 0xcccc1234
        call TASK16:0
        clts
        movzx eax, word [result]
        EQ "a 16-bit task's AX", eax, 0x1616
        EQ "ECX comes back from a 32-bit TSS", ecx, 0xcccc1234
        BUSY "the 16-bit TSS is free again", TASK16, 0

; ---- the debug trap of a task
        NOT_QEMU .no_trap
        TASK tss2, .trapped, stack2, CODE32, DATA32, 2
        mov word [tss2 + 0x64], 1
        TRY .trap
        jmp TASK2:0
        jmp .no_trap
.trapped: ud2
.trap:  EQ "T bit: #DB", [exc_vector], 1
        EQ "... before the first instruction", [exc_eip], .trapped
        mov eax, dr6
        and eax, 1 << 15
        EQ "... DR6.BT", eax, 1 << 15
        jmp TSS_SEL:0
.no_trap:
        clts
        ret

.low16: 
.entry16: mov [result], ax
        iretd
.low16_end:
sel_busy: dw TSS_SEL
sel_data: dw DATA32
sel_absent: dw ABSENT
        END
