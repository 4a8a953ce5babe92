//! What the checker knows of a register: the abstract values of its data-flow analysis.

/// A soft look-up: which table, for how many bytes, for writing or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lookup {
    pub table: usize,
    pub write: bool,
    /// Constant bytes from r13 on.
    pub bytes: u32,
    /// Count times this many bytes more (0: none).
    pub scaled: u32,
}

/// What a host register holds. "Number" values reveal no host address; all others may be used only
/// in the forms made for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Val {
    /// Nothing that may be relied on or even read.
    Unset,
    // ---- numbers ----
    /// Any 64-bit number.
    Wide,
    /// Upper half zero.
    U32,
    /// Below 65536.
    U16,
    /// Below this power of two.
    Below(u32),
    /// A constant.
    Const(u32),
    /// A 32-bit repeat count, compared with the bound but the branch not yet taken.
    Candidate,
    /// A repeat count below 4096.
    Count,
    /// The current [`Val::Count`] times this.
    Scaled(u32),
    /// What PEXT with the long-count mask left of the candidate: 0 if it is small.
    High,
    /// `string_step`, truncated.
    Step,
    /// `string_step` - 1: 0 if DF is clear.
    StepLessOne,
    /// Index of r13's entry in the soft TLB.
    Index,
    /// Twice that: the entry is at r15 + 8 * this.
    Entry,
    /// The entry's tag.
    Tag { table: usize, write: bool },
    /// Its complement.
    NotTag { table: usize, write: bool },
    /// Last byte of the access minus the tag.
    Distance(Lookup),
    /// Page bits of that: 0 on a hit.
    Miss(Lookup),
    // ---- host addresses ----
    /// Host minus linear address of what r13 points at.
    Delta(Lookup),
    /// Host address of looked-up bytes.
    Host(Lookup),
    /// The window's base.
    Window,
    /// A place in the window.
    InWindow,
    /// A place in the window or within 16 KiB of it, after a string instruction.
    NearWindow,
    /// Loaded from `poll_ptr`, `fs_base_ptr` or `gs_base_ptr`: readable or unmapped.
    Readable,
}

impl Val {
    /// True if it may be read as a number.
    pub(super) fn is_number(self) -> bool {
        !matches!(
            self,
            Self::Unset
                | Self::Delta(_)
                | Self::Host(_)
                | Self::Window
                | Self::InWindow
                | Self::NearWindow
                | Self::Readable
        )
    }

    /// True for numbers whose upper half is zero.
    pub(super) fn is_u32(self) -> bool {
        self.is_number() && self != Self::Wide
    }

    /// True if it means something only as long as r13 stays the same.
    fn about_r13(self) -> bool {
        matches!(
            self,
            Self::Index
                | Self::Entry
                | Self::Tag { .. }
                | Self::NotTag { .. }
                | Self::Distance(_)
                | Self::Miss(_)
                | Self::Delta(_)
        )
    }

    /// True if it means something only for the current repeat count.
    fn about_count(self) -> bool {
        matches!(
            self,
            Self::Candidate | Self::Count | Self::Scaled(_) | Self::High
        ) || matches!(self, Self::Host(l) | Self::Delta(l) | Self::Miss(l) | Self::Distance(l) if l.scaled != 0)
    }

    /// What is left when its meaning is lost.
    fn forgotten(self) -> Self {
        if self.is_number() {
            Self::U32
        } else {
            Self::Unset
        }
    }

    fn join(self, other: Self) -> Self {
        if self == other {
            self
        } else if self.is_u32() && other.is_u32() {
            Self::U32
        } else if self.is_number() && other.is_number() {
            Self::Wide
        } else {
            Self::Unset
        }
    }
}

/// Host register numbers that hold guest registers.
pub(super) const GUEST: [usize; 8] = [0, 1, 2, 3, 5, 6, 7, 12];

/// The state at one point of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub regs: [Val; 16],
    /// A look-up of r13 hit.
    pub hit: Option<Lookup>,
    /// DF is clear on the host.
    pub forward: bool,
}

impl Facts {
    /// At an entry: guest registers are zero-extended, scratch is garbage.
    pub(super) fn entry(r13: Val) -> Self {
        let mut regs = [Val::Unset; 16];
        for g in GUEST {
            regs[g] = Val::U32;
        }
        regs[13] = r13;
        Self {
            regs,
            hit: None,
            forward: false,
        }
    }

    /// Changes a register, and forgets what rested on the old value.
    pub(super) fn set(&mut self, register: usize, value: Val) {
        if register == 13 {
            self.hit = None;
            for r in &mut self.regs {
                if r.about_r13() {
                    *r = r.forgotten();
                }
            }
        }
        self.regs[register] = value;
    }

    /// Forgets everything about the repeat count: it changes, or another is looked at.
    pub(super) fn forget_count(&mut self) {
        if self.hit.is_some_and(|h| h.scaled != 0) {
            self.hit = None;
        }
        for r in &mut self.regs {
            if r.about_count() {
                *r = r.forgotten();
            }
        }
    }

    /// What holds on both ways; true if `self` changed.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let old = *self;
        for (a, b) in self.regs.iter_mut().zip(other.regs) {
            *a = a.join(b);
        }
        if self.hit != other.hit {
            self.hit = None;
        }
        self.forward &= other.forward;
        *self != old
    }
}
