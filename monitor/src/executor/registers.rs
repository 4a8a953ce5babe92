//! Guest registers and their form in a traced process.

use libc::user_regs_struct;

/// Selector of 32-bit user code in every x86-64 Linux.
pub const USER32_CS: u16 = 0x23;
/// Selector of 64-bit user code.
pub const USER_CS: u16 = 0x33;
/// Selector of flat user data.
pub const USER_DS: u16 = 0x2b;

/// EFLAGS bits that ptrace can set: all that ring 3 can change, but ID.
const SETTABLE: u64 = 0x5_4dd5;
/// EFLAGS.ID.
pub const FLAG_ID: u64 = 1 << 21;
/// EFLAGS.TF.
pub const FLAG_TF: u64 = 1 << 8;
const FLAG_RF: u64 = 1 << 16;
const FLAG_IF: u64 = 1 << 9;
const FLAG_FIXED: u64 = 1 << 1;

/// The general registers of 32-bit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserRegs {
    /// EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI: encoding order.
    pub gpr: [u32; 8],
    /// Instruction pointer.
    pub eip: u32,
    /// EFLAGS. Written: arithmetic flags, DF, TF, NT, AC, ID. Read: as the processor had it, with
    /// RF clear, IF set and IOPL 0.
    pub eflags: u32,
    /// Base of FS; None for a null selector, with which every access raises #GP(0).
    pub fs_base: Option<u32>,
    /// Base of GS, likewise.
    pub gs_base: Option<u32>,
}

/// Segment selectors as a trap found them. Others than [`Self::loaded`] mean that guest code has
/// loaded one itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// Code segment.
    pub cs: u16,
    /// Stack segment.
    pub ss: u16,
    /// Data segment.
    pub ds: u16,
    /// Extra segment.
    pub es: u16,
    /// FS.
    pub fs: u16,
    /// GS.
    pub gs: u16,
}

impl Selectors {
    /// What the monitor loads to run `regs`: flat segments, and null where FS or GS are.
    #[must_use]
    pub fn loaded(regs: &UserRegs) -> Self {
        let based = |base: Option<u32>| if base.is_some() { USER_DS } else { 0 };
        Self {
            cs: USER32_CS,
            ss: USER_DS,
            ds: USER_DS,
            es: USER_DS,
            fs: based(regs.fs_base),
            gs: based(regs.gs_base),
        }
    }
}

/// The words of `r` in the order of the structure, which is their order for PTRACE_POKEUSER.
fn words(r: &user_regs_struct) -> [u64; 27] {
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx,
        r.rsi, r.rdi, r.orig_rax, r.rip, r.cs, r.eflags, r.rsp, r.ss, r.fs_base, r.gs_base, r.ds,
        r.es, r.fs, r.gs,
    ]
}

/// The registers of `new` that differ from `old`: byte offset and value.
pub fn differences(
    new: &user_regs_struct,
    old: &user_regs_struct,
) -> impl Iterator<Item = (usize, u64)> {
    words(new)
        .into_iter()
        .zip(words(old))
        .enumerate()
        .filter(|(_, (n, o))| n != o)
        .map(|(i, (n, _))| (8 * i, n))
}

/// All registers zero, no system call in progress.
#[must_use]
pub fn blank() -> user_regs_struct {
    user_regs_struct {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        rbp: 0,
        rbx: 0,
        r11: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rax: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        // Never a call number: the kernel would "restart" a call if EAX looked like -ERESTART*.
        orig_rax: u64::MAX,
        rip: 0,
        cs: u64::from(USER_CS),
        eflags: FLAG_FIXED | FLAG_IF,
        rsp: 0,
        ss: u64::from(USER_DS),
        fs_base: 0,
        gs_base: 0,
        ds: 0,
        es: 0,
        fs: 0,
        gs: 0,
    }
}

impl UserRegs {
    /// The registers for running these in compatibility mode; flags that ptrace does not set are
    /// taken from `old`.
    #[must_use]
    pub fn to_host(&self, old: &user_regs_struct) -> user_regs_struct {
        let [eax, ecx, edx, ebx, esp, ebp, esi, edi] = self.gpr.map(u64::from);
        let data = u64::from(USER_DS);
        let selectors = Selectors::loaded(self);
        user_regs_struct {
            rax: eax,
            rcx: ecx,
            rdx: edx,
            rbx: ebx,
            rsp: esp,
            rbp: ebp,
            rsi: esi,
            rdi: edi,
            rip: u64::from(self.eip),
            eflags: (u64::from(self.eflags) & SETTABLE & !FLAG_RF) | (old.eflags & !SETTABLE),
            fs_base: u64::from(self.fs_base.unwrap_or(0)),
            gs_base: u64::from(self.gs_base.unwrap_or(0)),
            cs: u64::from(USER32_CS),
            ds: data,
            es: data,
            fs: u64::from(selectors.fs),
            gs: u64::from(selectors.gs),
            ..blank()
        }
    }

    /// Takes the low halves of a stopped process's registers.
    pub fn set_from_host(&mut self, r: &user_regs_struct) {
        // In a system-call stop EAX has moved aside for the result.
        let eax = if (r.orig_rax as i64) >= 0 {
            r.orig_rax
        } else {
            r.rax
        };
        self.gpr = [eax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi].map(|v| v as u32);
        self.eip = r.rip as u32;
        self.eflags = (r.eflags & !FLAG_RF) as u32;
    }
}

/// The selectors in a stopped process's registers.
#[must_use]
pub fn selectors(r: &user_regs_struct) -> Selectors {
    Selectors {
        cs: r.cs as u16,
        ss: r.ss as u16,
        ds: r.ds as u16,
        es: r.es as u16,
        fs: r.fs as u16,
        gs: r.gs as u16,
    }
}
