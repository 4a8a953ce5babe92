; x87, MMX and SSE: state across task switches by CR0.TS, exceptions, FXSAVE and XSAVE.
; Intel SDM vol. 1, chapters 8-10 and 13; vol. 3A, 2.5 (CR0) and chapter 14.
%include "boot.inc"

area_a  equ FREE                ; FXSAVE areas, aligned
area_b  equ FREE + 0x1000
image_at equ FREE + 0x2000
xsave_a equ FREE + 0x3000
num     equ user_vars
lazy_count equ user_vars + 0x40

; CR0_SET mask, CR0_CLEAR mask. Clobber EAX.
%macro CR0_SET 1
        mov eax, cr0
        or eax, %1
        mov cr0, eax
%endmacro
%macro CR0_CLEAR 1
        mov eax, cr0
        and eax, ~(%1)
        mov cr0, eax
%endmacro
TS equ 8
EM equ 4
MP equ 2
NE equ 32

main:   CR0_SET NE | MP
        fninit
        fnstcw [num]
        movzx eax, word [num]
        EQ "fninit: control word", eax, 0x37f
        fnstsw ax
        movzx eax, ax
        EQ "fninit: status word", eax, 0
        fnsave [image_at]
        movzx eax, word [image_at + 8]
        EQ "fninit: tag word", eax, 0xffff

; ---- arithmetic
        fld1
        fldpi
        fmulp
        fstp qword [num]
        EQ "pi in double precision: low", [num], 0x54442d18
        EQ "pi in double precision: high", [num + 4], 0x400921fb
        fldpi
        fstp tword [num]
        EQ "pi in extended precision: low", [num], 0x2168c235
        EQ "pi in extended precision: middle", [num + 4], 0xc90fdaa2
        movzx eax, word [num + 8]
        EQ "pi in extended precision: exponent", eax, 0x4000
        mov dword [num], 2
        fild dword [num]
        fsqrt
        fstp qword [num]
        EQ "sqrt(2): low", [num], 0x667f3bcd
        EQ "sqrt(2): high", [num + 4], 0x3ff6a09e
        mov dword [num], 10
        mov dword [num + 4], 3
        fild dword [num]
        fild dword [num + 4]
        fprem
        fistp dword [num]
        fstp st0
        fnstsw ax
        and eax, 0x3800
        EQ "the stack is balanced", eax, 0
        EQ "fprem leaves 3 by 10 in ST0", [num], 3
        ; rounding: 2.5 by each mode
        mov dword [num], 5
        mov dword [num + 4], 2
%macro ROUND 3
        mov word [num + 8], 0x37f | %2 << 10
        fldcw [num + 8]
        fild dword [num]
        fidiv dword [num + 4]
        fistp dword [num + 12]
        EQ %1, [num + 12], %3
%endmacro
        ROUND "2.5 to nearest even", 0, 2
        ROUND "2.5 down", 1, 2
        ROUND "2.5 up", 2, 3
        ROUND "2.5 to zero", 3, 2
        fninit
        fld1
        fldz
        fcomip st0, st1
        FLAGS "fcomip 0 < 1", 0x45, 1
        fld1
        fcomi st0, st1
        FLAGS "fcomi 1 = 1", 0x45, 0x40
        fcmove st0, st1
        fninit
        mov dword [num], 0x89abcdef
        mov dword [num + 4], 0x01234567
        fild qword [num]
        fbstp [num + 16]
        EQ "fbstp: low digits", [num + 16], 0x16486895
        fild qword [num]
        fistp qword [num + 8]
        EQ "64-bit integers pass: low", [num + 8], 0x89abcdef
        EQ "64-bit integers pass: high", [num + 12], 0x01234567

; ---- x87 exceptions
        fninit
        fld1
        fldz
        fdivp
        fnstsw ax
        and eax, 0xff
        EQ "masked divide by zero sets ZE", eax, 4
        fninit
        mov word [num], 0x37b                   ; ZE unmasked
        fldcw [num]
        fld1
        fldz
        mov ebx, 5
        fdivp                                   ; pending, not yet raised
        mov ebx, 6
        TRY .mf
.mf_at: fwait
.mf:    FAULT "unmasked divide by zero is raised by the next wait", 16, 0, .mf_at
        EQ "instructions between ran", [exc_ebx], 6
        fnstsw ax
        and eax, 0x80ff
        EQ "status: ES and ZE", eax, 0x8084
        fnclex
        fnstsw ax
        and eax, 0x80ff
        EQ "fnclex clears", eax, 0
        fninit
        fldcw [num]
        fld1
        fldz
        fdivp
        NOT_QEMU .no_next                       ; which checks in fwait only
        FAULTS "... or by the next x87 instruction", 16, 0, fld1
.no_next:
        WORKS "fnstsw waits for nothing", fnstsw ax
        WORKS "fninit neither", fninit
        mov word [num], 0x37e                   ; IE unmasked
        fldcw [num]
        NOT_QEMU .no_stack                      ; it has no stack faults
        TRY .stack
        fstp st0                                ; empty
.stack_at: fwait
.stack: FAULT "stack underflow", 16, 0, .stack_at
        fnstsw ax
        and eax, 0x2c1
        EQ "status: IE, SF, C1 clear", eax, 0xc1
.no_stack:
        fninit

; ---- CR0.TS, EM, MP
        CR0_SET TS
        FAULTS "TS: x87", 7, 0, fld1
        FAULTS "TS and MP: wait", 7, 0, fwait
        CR0_CLEAR MP
        WORKS "TS without MP: wait", fwait
        CR0_SET MP
        mov ebx, num
        FAULTS "TS: fnstcw too", 7, 0, fnstcw [ebx]
        FAULTS "TS: fnsave too", 7, 0, fnsave [ebx]
        WORKS "clts", clts
        mov eax, cr0
        and eax, TS
        EQ "clts clears TS", eax, 0
        WORKS "then x87 works", fninit
        CR0_SET EM
        FAULTS "EM: x87", 7, 0, fld1
        WORKS "EM without TS: wait", fwait
        CR0_CLEAR EM

; ---- MMX
        mov eax, 1
        cpuid
        mov [user_vars + 0x80], edx
        mov [user_vars + 0x84], ecx
        test edx, 1 << 23
        jz near .no_mmx
        fninit
        mov dword [num], 0x00ff7fff
        mov dword [num + 4], 0x12345678
        movq mm0, [num]
        movq mm1, mm0
        paddusb mm1, mm0
        movd eax, mm1
        EQ "paddusb", eax, 0x00fffeff
        fnsave [image_at]
        NOT_QEMU .no_exponent
        movzx eax, word [image_at + 28 + 8]
        EQ "MMX sets the exponent to ones", eax, 0xffff
.no_exponent:
        EQ "MMX lies in the x87 register", [image_at + 28], 0x00ff7fff
        emms
        CR0_SET TS
        FAULTS "TS: MMX", 7, 0, movd eax, mm0
        CR0_CLEAR TS
        CR0_SET EM
        FAULTS "EM: MMX is invalid", 6, 0, movd eax, mm0
        CR0_CLEAR EM
.no_mmx:

; ---- SSE
        test dword [user_vars + 0x80], 1 << 25
        jz near .no_sse
        mov eax, cr4
        and eax, ~(1 << 9 | 1 << 10 | 1 << 18)
        mov cr4, eax
        FAULTS "SSE without OSFXSR", 6, 0, xorps xmm0, xmm0
        mov eax, cr4
        or eax, 1 << 9
        mov cr4, eax
        WORKS "SSE with OSFXSR", xorps xmm0, xmm0
        mov dword [num], 0x1f80
        ldmxcsr [num]
        mov dword [num], 4
        cvtsi2ss xmm0, [num]
        sqrtss xmm0, xmm0
        cvtss2si eax, xmm0
        EQ "sqrtss", eax, 2
        mov dword [num], 0x1f80 & ~0x200        ; ZM clear
        ldmxcsr [num]
        mov eax, 1
        cvtsi2ss xmm0, eax
        xorps xmm1, xmm1
        NOT_QEMU .osxmm                         ; it raises no SSE exceptions
        FAULTS "unmasked SSE exception without OSXMMEXCPT", 6, 0, divss xmm0, xmm1
.osxmm: mov eax, cr4
        or eax, 1 << 10
        mov cr4, eax
        cmp dword [is_qemu], 1
        je .no_xm                               ; it raises no SSE exceptions
        FAULTS "unmasked SSE divide by zero", 19, 0, divss xmm0, xmm1
        stmxcsr [num]
        mov eax, [num]
        and eax, 0x3f
        EQ "MXCSR: ZE", eax, 4
        mov dword [num], 0x10000
        FAULTS "ldmxcsr of a reserved bit", 13, 0, ldmxcsr [num]
        FAULTS "movaps of an odd address", 13, 0, movaps xmm0, [num + 4]
        FAULTS "addps of an odd address", 13, 0, addps xmm0, [num + 4]
.no_xm: WORKS "movups of an odd address", movups xmm0, [num + 4]
        mov dword [num], 0x1f80
        ldmxcsr [num]
        CR0_SET TS
        FAULTS "TS: SSE", 7, 0, xorps xmm0, xmm0
        FAULTS "TS: ldmxcsr", 7, 0, ldmxcsr [num]
        FAULTS "TS: fxsave", 7, 0, fxsave [area_a]
        CR0_CLEAR TS
        CR0_SET EM
        FAULTS "EM: SSE is invalid", 6, 0, xorps xmm0, xmm0
        CR0_CLEAR EM
        WORKS "prefetch, sfence", prefetcht0 [num]
        sfence

; ---- FXSAVE, FXRSTOR
        fninit
        mov eax, 0x11111111
        movd xmm7, eax
        fld1
        fldpi
        mov dword [num], 0x1fa0
        ldmxcsr [num]
        fxsave [area_a]
        movzx eax, word [area_a]
        EQ "fxsave: control word", eax, 0x37f
        movzx eax, byte [area_a + 4]
        EQ "fxsave: short tags", eax, 0xc0
        EQ "fxsave: MXCSR", [area_a + 24], 0x1fa0
        EQ "fxsave: ST0 first", [area_a + 32], 0x2168c235
        EQ "fxsave: XMM7", [area_a + 160 + 7 * 16], 0x11111111
        fninit
        xorps xmm7, xmm7
        mov dword [num], 0x1f80
        ldmxcsr [num]
        fxrstor [area_a]
        movd eax, xmm7
        EQ "fxrstor: XMM7", eax, 0x11111111
        stmxcsr [num]
        EQ "fxrstor: MXCSR", [num], 0x1fa0
        fstp tword [num]
        EQ "fxrstor: ST0", [num], 0x2168c235
        fstp st0
        cmp dword [is_qemu], 1
        je .no_align
        FAULTS "fxsave of an odd address", 13, 0, fxsave [area_a + 4]
        mov dword [area_a + 24], 0x80001f80
        FAULTS "fxrstor with reserved MXCSR bits", 13, 0, fxrstor [area_a]
.no_align:

; ---- two tasks with lazily switched state: #NM saves one and loads the other
        fninit
        fxsave [area_a]
        mov eax, 0xaaaa
        movd xmm3, eax
        mov dword [num], 1000
        fild dword [num]
        fxsave [area_a]                         ; task A: 1000, 0xaaaa
        mov eax, 0xbbbb
        movd xmm3, eax
        fstp st0
        mov dword [num], 2000
        fild dword [num]
        fxsave [area_b]                         ; task B: 2000, 0xbbbb (B's is loaded)
        mov dword [hook], lazy
        mov dword [lazy_count], 0
        mov ecx, 50
.switch: CR0_SET TS                             ; now A runs
        mov dword [num], 1
        fiadd dword [num]
        movd eax, xmm3
        inc eax
        movd xmm3, eax
        CR0_SET TS                              ; now B runs
        movd eax, xmm3
        add eax, 2
        movd xmm3, eax
        mov dword [num], 2
        fiadd dword [num]
        loop .switch
        mov dword [hook], 0
        EQ "each switch gave one #NM", [lazy_count], 100
        movd eax, xmm3
        EQ "task B's XMM3", eax, 0xbbbb + 100
        fistp dword [num]
        EQ "task B's ST0", [num], 2100
        fxrstor [area_a]
        movd eax, xmm3
        EQ "task A's XMM3", eax, 0xaaaa + 50
        fistp dword [num]
        EQ "task A's ST0", [num], 1050
.no_sse:

; ---- state lives through exceptions, port I/O and CPUID
        fninit
        fldpi
        fld1
        test dword [user_vars + 0x80], 1 << 26
        jz near .no_sse2
        mov eax, 0x51525354
        movd xmm0, eax
        pshufd xmm5, xmm0, 0
        mov ecx, 100
.noise: push ecx
        xor eax, eax
        cpuid
        in al, 0x80
        TRY .noise_after
        ud2
.noise_after:
        mov dword [try_resume], 0
        pop ecx
        rdtsc
        loop .noise
        movdqu [num], xmm5
        EQ "XMM5, lane 3", [num + 12], 0x51525354
        EQ "XMM5, lane 0", [num], 0x51525354
        fstp st0
        fstp tword [num]
        EQ "ST1", [num], 0x2168c235
.no_sse2:

; ---- XSAVE and AVX
        test dword [user_vars + 0x84], 1 << 26
        jz near .no_xsave
        FAULTS "xgetbv without OSXSAVE", 6, 0, xgetbv
        mov eax, cr4
        or eax, 1 << 18
        mov cr4, eax
        mov eax, 1
        cpuid
        and ecx, 1 << 27
        EQ "CPUID shows OSXSAVE", ecx, 1 << 27
        xor ecx, ecx
        mov eax, 3
        xor edx, edx
        WORKS "xsetbv: x87 and SSE", xsetbv
        mov eax, 0
        xor edx, edx
        FAULTS "xsetbv without x87", 13, 0, xsetbv
        xor ecx, ecx
        xgetbv
        EQ "xgetbv", eax, 3
        mov edi, xsave_a
        mov ecx, 0x400
        xor eax, eax
        rep stosd
        fninit
        fldpi
        mov eax, 0x77777777
        movd xmm1, eax
        mov eax, 3
        xor edx, edx
        xsave [xsave_a]
        EQ "xsave: header", [xsave_a + 512], 3
        EQ "xsave: XMM1", [xsave_a + 176], 0x77777777
        xorps xmm1, xmm1
        fninit
        mov eax, 3
        xor edx, edx
        xrstor [xsave_a]
        movd eax, xmm1
        EQ "xrstor: XMM1", eax, 0x77777777
        fstp tword [num]
        EQ "xrstor: ST0", [num], 0x2168c235
        mov dword [xsave_a + 512], 1
        mov eax, 3
        xor edx, edx
        xrstor [xsave_a]
        movd eax, xmm1
        EQ "xrstor: a component that is not in the header becomes zero", eax, 0
        test dword [user_vars + 0x84], 1 << 28
        jz near .no_xsave
        xor ecx, ecx
        xor edx, edx
        FAULTS "AVX without its bit in XCR0", 6, 0, vxorps ymm0, ymm0, ymm0
        mov eax, 7
        xor edx, edx
        xor ecx, ecx
        WORKS "xsetbv: AVX", xsetbv
        mov dword [num], 0x3f800000
        vbroadcastss ymm2, [num]
        vaddps ymm2, ymm2, ymm2
        vextractf128 xmm3, ymm2, 1
        vmovd eax, xmm3
        EQ "AVX, upper half", eax, 0x40000000
        mov ecx, 3
.avx_noise: push ecx
        xor eax, eax
        cpuid
        in al, 0x80
        pop ecx
        loop .avx_noise
        vextractf128 xmm3, ymm2, 1
        vmovd eax, xmm3
        EQ "the upper half lives through exits", eax, 0x40000000
        vzeroupper
.no_xsave:
        fninit
        ret

; Exception hook for #NM: the state in the registers belongs to the other task.
lazy:   cmp dword [exc_vector], 7
        jne .no
        clts
        inc dword [lazy_count]
        test dword [lazy_count], 1
        jz .to_b
        fxsave [area_b]
        fxrstor [area_a]
        stc
        ret
.to_b:  fxsave [area_a]
        fxrstor [area_b]
        stc
        ret
.no:    clc
        ret
        END
