//! The fixed code at the start of the cache: entry, exits, helper thunks, lookups.
//!
//! Invariants: in the cache r15 is `GuestState`, r12 the guest's ESP, rsp a bounded return stack;
//! r8-r11, r13, r14 are scratch; helper thunks preserve r8 and r11. `GuestState::host_rsp` is the
//! monitor's stack, 16-byte aligned.

use crate::asm::{CodeBuf, Half, HostMem, cond, reg, short};
use crate::helper::Helper;
use crate::state::{ExitKind, GuestState, eflags};
use dynasmrt::{DynasmApi, dynasm};

/// Displacement of a `GuestState` field from r15.
#[macro_export]
macro_rules! off {
    ($($field:tt)+) => { core::mem::offset_of!($crate::state::GuestState, $($field)+) as i32 };
}

/// Offset of general register `n` in `GuestState`.
#[must_use]
pub const fn gpr_off(n: usize) -> i32 {
    off!(gpr) + n as i32 * 8
}

/// Offset of jump cache `table`.
#[must_use]
pub const fn jump_cache_off(table: usize) -> i32 {
    off!(jump_cache) + (table * crate::state::JUMP_CACHE_ENTRIES * 8) as i32
}

/// Emits a `jmp` or `call` to a constant EIP through jump cache `table`. Clobbers r13.
pub(crate) fn jump_by_cache(c: &mut CodeBuf, table: usize, eip: u32, call: bool) {
    c.mov_imm(reg::R13, eip);
    let slot = jump_cache_off(table) + (eip & 0xffff) as i32 * 8;
    c.transfer(&HostMem::state(slot), call);
}

/// Host addresses of the fixed code.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stubs {
    /// `extern "sysv64" fn(*mut GuestState, target: u64)`: enters the cache at `target`.
    pub enter: u64,
    /// `extern "sysv64" fn(*mut GuestState)`: continues after a host fault at `resume_rip`.
    pub resume: u64,
    /// Exit by an unlinked jump (`rip` and `exit_arg` stored).
    pub exit_link: u64,
    /// Exit at the end of an unchained unit (`rip` stored).
    pub exit_end: u64,
    /// Where the signal handler sends a faulting instruction.
    pub exit_fault: u64,
    /// Jump-cache miss: r13 is the target.
    pub jump_miss: u64,
    /// Return-address mismatch, for each table: looks r13 up. The host stack stays as it is: a
    /// guest that replaces its return address (a retpoline) keeps its outer frames.
    pub return_lookup: [u64; 2],
    /// What the return stack of each table holds at its top: starts anew there, looks r13 up.
    pub return_underflow: [u64; 2],
    /// Helper thunks.
    pub callout: u64,
    /// Soft read: r13 linear, r9d EIP, r10d info; r14 = delta on return.
    pub soft_read: u64,
    /// Soft write, alike.
    pub soft_write: u64,
    /// Commit; may leave.
    pub commit: u64,
    /// Segment check: r13 offset in, linear address out.
    pub segment_check: u64,
    /// Loads the guest's FPU state into the host's registers; preserves everything else.
    pub fpu_load: u64,
    /// First byte after the fixed code.
    pub end: u64,
}

/// What a thunk returns in registers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ThunkResult {
    None,
    /// r14 = soft_ptr - r13.
    Delta,
    /// r13 = soft_ptr.
    Linear,
}

fn save_guest(c: &mut CodeBuf) {
    dynasm!(c ; .arch x64
        ; mov [r15 + gpr_off(0)], rax ; mov [r15 + gpr_off(1)], rcx
        ; mov [r15 + gpr_off(2)], rdx ; mov [r15 + gpr_off(3)], rbx
        ; mov [r15 + gpr_off(4)], r12 ; mov [r15 + gpr_off(5)], rbp
        ; mov [r15 + gpr_off(6)], rsi ; mov [r15 + gpr_off(7)], rdi
        ; pushfq ; pop QWORD [r15 + off!(arith_flags)] ; cld
    );
}

fn load_guest(c: &mut CodeBuf) {
    dynasm!(c ; .arch x64
        ; mov rax, [r15 + gpr_off(0)] ; mov rcx, [r15 + gpr_off(1)]
        ; mov rdx, [r15 + gpr_off(2)] ; mov rbx, [r15 + gpr_off(3)]
        ; mov r12, [r15 + gpr_off(4)] ; mov rbp, [r15 + gpr_off(5)]
        ; mov rsi, [r15 + gpr_off(6)] ; mov rdi, [r15 + gpr_off(7)]
    );
}

/// Loads the arithmetic flags; POPF takes tens of cycles, so DF set is the slow path.
/// Uses rax, rcx and the stack.
fn load_flags(c: &mut CodeBuf) {
    dynasm!(c ; .arch x64
        ; mov eax, [r15 + off!(arith_flags)]
        ; test eax, eflags::DF as i32
    );
    let slow = c.short(short::JNE);
    dynasm!(c ; .arch x64
        ; mov ecx, eax ; shr ecx, 11 ; and ecx, 1 ; add cl, 0x7f ; mov ah, al ; sahf
    );
    let done = c.short(short::JMP);
    c.bind_short(slow);
    // IF is always set on the host; TF, NT and AC must not be taken from the guest.
    dynasm!(c ; .arch x64 ; and eax, eflags::ARITH as i32 ; push rax ; popfq);
    c.bind_short(done);
}

/// Saves the guest's FPU state if it is live and gives the monitor a sane control state.
/// Uses rax and rdx (already saved); changes flags.
fn save_fpu(c: &mut CodeBuf) {
    dynasm!(c ; .arch x64 ; cmp DWORD [r15 + off!(fpu_live)], 0);
    let skip = c.short(short::JE);
    dynasm!(c ; .arch x64
        ; mov eax, [r15 + off!(xsave_mask)] ; xor edx, edx
    );
    // XSAVEOPT or XSAVE [r15 + xsave]; the former may leave MXCSR unwritten, so that is stored
    // apart. The monitor uses no x87 instruction: the x87 state can stay, MXCSR matters.
    let operation = if std::arch::is_x86_feature_detected!("xsaveopt") {
        6
    } else {
        4
    };
    c.bytes(&[0x41, 0x0f, 0xae, 0x87 | (operation << 3)]);
    c.bytes(&(off!(xsave)).to_le_bytes());
    dynasm!(c ; .arch x64
        ; mov DWORD [r15 + off!(fpu_live)], 0
        ; stmxcsr [r15 + off!(xsave) + 24]
        ; mov eax, [r15 + off!(xsave) + 24] ; cmp eax, [r15 + off!(host_mxcsr)]
    );
    let usual = c.short(short::JE);
    dynasm!(c ; .arch x64 ; ldmxcsr [r15 + off!(host_mxcsr)]);
    c.bind_short(usual);
    c.bind_short(skip);
}

fn leave(c: &mut CodeBuf) {
    dynasm!(c ; .arch x64
        ; mov rsp, [r15 + off!(host_rsp)] ; add rsp, 8
        ; pop r15 ; pop r14 ; pop r13 ; pop r12 ; pop rbp ; pop rbx ; ret
    );
}

fn exit(c: &mut CodeBuf, kind: ExitKind) {
    save_guest(c);
    save_fpu(c);
    dynasm!(c ; .arch x64
        ; mov [r15 + off!(cache_rsp)], rsp
        ; mov DWORD [r15 + off!(exit_kind)], kind as i32
    );
    leave(c);
}

fn thunk(c: &mut CodeBuf, helper: Helper, result: ThunkResult) {
    let entry = off!(helpers) + helper as i32 * 8;
    save_guest(c);
    dynasm!(c ; .arch x64
        ; mov [r15 + gpr_off(8)], r8 ; mov [r15 + gpr_off(11)], r11
        ; mov r14d, [r15 + off!(fpu_live)]
    );
    save_fpu(c);
    dynasm!(c ; .arch x64
        ; mov [r15 + off!(cache_rsp)], rsp ; mov rsp, [r15 + off!(host_rsp)]
        ; mov rdi, r15 ; mov esi, r9d ; mov edx, r10d ; mov rcx, r13
        ; call QWORD [r15 + entry]
        ; test eax, eax
    );
    let stay = c.label();
    c.jcc(cond::E, stay);
    dynasm!(c ; .arch x64 ; mov DWORD [r15 + off!(exit_kind)], ExitKind::Helper as i32);
    leave(c);
    c.bind(stay);
    dynasm!(c ; .arch x64 ; mov rsp, [r15 + off!(cache_rsp)] ; test r14d, r14d);
    let no_fpu = c.short(short::JE);
    xrstor(c);
    c.bind_short(no_fpu);
    match result {
        ThunkResult::None => {}
        ThunkResult::Delta => {
            dynasm!(c ; .arch x64 ; mov r14, [r15 + off!(soft_ptr)] ; sub r14, r13)
        }
        ThunkResult::Linear => dynasm!(c ; .arch x64 ; mov r13, [r15 + off!(soft_ptr)]),
    }
    load_flags(c);
    load_guest(c);
    dynasm!(c ; .arch x64
        ; mov r8, [r15 + gpr_off(8)] ; mov r11, [r15 + gpr_off(11)] ; ret
    );
}

/// Uses rax and rdx.
fn xrstor(c: &mut CodeBuf) {
    dynasm!(c ; .arch x64
        ; mov eax, [r15 + off!(xsave_mask)] ; mov edx, 0 ; xrstor [r15 + off!(xsave)]
        ; mov DWORD [r15 + off!(fpu_live)], 1
    );
}

/// Emits the fixed code for host address `base`.
pub fn emit(c: &mut CodeBuf, base: u64) -> Stubs {
    c.clear();
    c.select(Half::Hot);
    let here = |c: &mut CodeBuf| {
        c.align(16, 0xcc);
        base + u64::from(c.pos())
    };
    let mut s = Stubs {
        enter: here(c),
        ..Stubs::default()
    };
    dynasm!(c ; .arch x64
        ; push rbx ; push rbp ; push r12 ; push r13 ; push r14 ; push r15 ; sub rsp, 8
        ; mov r15, rdi ; mov r14, rsi
        ; mov [r15 + off!(host_rsp)], rsp
        ; mov rsp, [r15 + off!(cache_rsp)]
    );
    load_flags(c);
    load_guest(c);
    dynasm!(c ; .arch x64 ; jmp r14);

    s.resume = here(c);
    dynasm!(c ; .arch x64
        ; push rbx ; push rbp ; push r12 ; push r13 ; push r14 ; push r15 ; sub rsp, 8
        ; mov r15, rdi
        ; mov [r15 + off!(host_rsp)], rsp
        ; mov rsp, [r15 + off!(cache_rsp)]
        ; cmp DWORD [r15 + off!(resume_fpu)], 0
    );
    let no_fpu = c.short(short::JE);
    xrstor(c);
    c.bind_short(no_fpu);
    load_flags(c);
    load_guest(c);
    dynasm!(c ; .arch x64
        ; mov r8, [r15 + gpr_off(8)] ; mov r9, [r15 + gpr_off(9)]
        ; mov r10, [r15 + gpr_off(10)] ; mov r11, [r15 + gpr_off(11)]
        ; mov r13, [r15 + gpr_off(13)] ; mov r14, [r15 + gpr_off(14)]
        ; jmp QWORD [r15 + off!(resume_rip)]
    );

    s.exit_link = here(c);
    exit(c, ExitKind::Link);
    s.exit_end = here(c);
    exit(c, ExitKind::End);

    s.exit_fault = here(c);
    dynasm!(c ; .arch x64
        ; mov [r15 + gpr_off(8)], r8 ; mov [r15 + gpr_off(9)], r9
        ; mov [r15 + gpr_off(10)], r10 ; mov [r15 + gpr_off(11)], r11
        ; mov [r15 + gpr_off(13)], r13 ; mov [r15 + gpr_off(14)], r14
        ; mov r8d, [r15 + off!(fpu_live)] ; mov [r15 + off!(resume_fpu)], r8d
    );
    exit(c, ExitKind::Fault);

    s.jump_miss = here(c);
    dynasm!(c ; .arch x64 ; mov [r15 + off!(rip)], r13);
    exit(c, ExitKind::Indirect);

    for table in 0..2 {
        s.return_underflow[table] = here(c);
        dynasm!(c ; .arch x64 ; mov rsp, [r15 + off!(return_stack_top)]);
        s.return_lookup[table] = base + u64::from(c.pos());
        // A poll: a loop may be closed by returns that match no call. The guest is at r13.
        dynasm!(c ; .arch x64
            ; mov r14, [r15 + off!(poll_ptr)] ; mov r14d, [r14]
            ; movzx r14d, r13w
            ; jmp QWORD [r15 + r14 * 8 + jump_cache_off(table)]
        );
    }

    s.callout = here(c);
    thunk(c, Helper::Callout, ThunkResult::None);
    s.soft_read = here(c);
    thunk(c, Helper::SoftRead, ThunkResult::Delta);
    s.soft_write = here(c);
    thunk(c, Helper::SoftWrite, ThunkResult::Delta);
    s.commit = here(c);
    thunk(c, Helper::Commit, ThunkResult::None);
    s.segment_check = here(c);
    thunk(c, Helper::SegmentCheck, ThunkResult::Linear);

    s.fpu_load = here(c);
    dynasm!(c ; .arch x64 ; mov r13, rax ; mov r14, rdx);
    xrstor(c);
    dynasm!(c ; .arch x64 ; mov rax, r13 ; mov rdx, r14 ; ret);

    s.end = here(c);
    s
}

const _: () = assert!(core::mem::align_of::<GuestState>() == 4096);
