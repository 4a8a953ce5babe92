//! One virtual processor: register file, memory, translations, run loop.
#![allow(unsafe_code)] // enters translated code and owns the return stack's mapping

mod alignment;
pub mod core;
pub mod debug;
mod helpers;
mod operands;
mod run;
pub mod stats;

use self::core::Core;
use crate::board::{Board, IoHandle, Kick};
use crate::clock::VmClock;
use crate::config::EngineKind;
use crate::cpu::cpuid::CpuModel;
use crate::direct::Direct;
use crate::host_fault::{CacheContext, Registration};
use crate::kicker::{Kicker, SharedState};
use crate::memory::GuestRam;
use crate::mmu::Mmu;
use ::core::ffi::c_void;
use hashbrown::HashMap;
use ring3_translator::cache::Translator;
use ring3_translator::classify::FeatureSet;
use ring3_translator::mode::Mode;
use ring3_translator::state::GuestState;
use ring3_translator::state_box::StateBox;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

pub use run::VcpuExit;

/// How much translated code one pass of the run loop enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// A unit and whatever it leads to in the cache.
    Unit,
    /// One instruction, translated for this once.
    Instruction,
    /// One instruction of code that runs this way again and again.
    KeptInstruction,
}

/// Bytes of the code cache; the host gives memory for what is used of it.
const CODE_CACHE: usize = 256 << 20;
/// Bytes of the host stack that translated calls use.
const RETURN_STACK: u64 = 256 << 10;
const HOST_PAGE: u64 = 4096;
/// arch_prctl(2).
const ARCH_SET_GS: i64 = 0x1001;

/// Where polls and unusable segment bases point: two inaccessible addresses, told apart.
#[derive(Clone, Copy, Debug)]
struct Poison {
    poll: u64,
    segment: u64,
}

/// A processor. Build it anywhere, run it on one thread.
pub struct Vcpu {
    shared: Arc<SharedState>,
    core: Box<Core>,
    kicker: Arc<Kicker>,
    area: Area,
    poison: Poison,
    /// What an unarmed poll loads: `GuestState::poll_target` points here.
    _poll_target: Box<u32>,
}

/// Host memory of one processor: a poison page, then a guard page and a return stack for each
/// jump-cache table.
struct Area {
    base: u64,
    len: u64,
}

impl Area {
    fn new() -> io::Result<Self> {
        let len = HOST_PAGE + 2 * (HOST_PAGE + RETURN_STACK);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let p = unsafe {
            libc::mmap(
                ::core::ptr::null_mut(),
                len as usize,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let area = Self {
            base: p as u64,
            len,
        };
        for table in 0..2 {
            let start = area.stack(table).start;
            // SAFETY: a stack part of the mapping above.
            let r = unsafe {
                libc::mprotect(
                    start as *mut c_void,
                    RETURN_STACK as usize,
                    libc::PROT_READ | libc::PROT_WRITE,
                )
            };
            if r < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(area)
    }

    fn guard(&self, table: u64) -> Range<u64> {
        let start = self.base + HOST_PAGE + table * (HOST_PAGE + RETURN_STACK);
        start..start + HOST_PAGE
    }

    fn stack(&self, table: u64) -> Range<u64> {
        let start = self.guard(table).end;
        start..start + RETURN_STACK
    }

    /// Address of the sentinel of a table's stack; `lookup` is what it holds.
    fn sentinel(&self, table: u64, lookup: u64) -> u64 {
        let top = self.stack(table).end - 64;
        // SAFETY: inside the stack's writable mapping, aligned, and nothing else refers to it.
        unsafe { (top as *mut u64).write(lookup) };
        top
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`.
        unsafe { libc::munmap(self.base as *mut c_void, self.len as usize) };
    }
}

impl Vcpu {
    /// Makes a mistake on purpose from now on.
    #[cfg(feature = "mutation")]
    pub fn mutate(&mut self, mutation: ring3_translator::mutation::Mutation) {
        let (st, core) = self.parts_mut();
        st.mutation = mutation as u32 + 1;
        core.translator.mutate(mutation);
    }

    /// A processor after RESET on `ram` and `board`.
    /// # Errors
    /// When the host refuses memory or address space.
    pub fn new(
        ram: Arc<GuestRam>,
        board: Arc<Mutex<Board>>,
        clock: Arc<VmClock>,
        model: CpuModel,
        engine: EngineKind,
    ) -> io::Result<Self> {
        let features = FeatureSet::new(|f| model.supports(f));
        let translator = Translator::new(CODE_CACHE, &features)?;
        let mmu = Mmu::new(ram, model.physical_bits())?;
        let area = Area::new()?;
        let poison = Poison {
            poll: area.base,
            segment: area.base + 64,
        };
        let poll_target = Box::new(0);
        let mut state = StateBox::new();
        let st: &mut GuestState = &mut state;
        helpers::install(st);
        st.poison = poison.segment;
        st.poll_target = &raw const *poll_target as u64;
        st.poll_ptr = st.poll_target;
        for table in 0..2 {
            let top = area.sentinel(table as u64, translator.stubs().return_underflow[table]);
            st.return_tops[table] = top;
            st.return_rsp[table] = top;
        }
        st.window_base = mmu.window.base();
        st.host_mxcsr = 0x1f80;
        st.xsave_mask = if model.xcr0_bits() & 4 != 0 { 7 } else { 3 };
        st.reclassify_segments();
        translator.clear_jump_caches(st);
        let shared = SharedState::new(state);
        let kicker = Arc::new(Kicker::new(Arc::clone(&shared), poison.poll));
        let intr = board
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .interrupt_flag();
        let core = Box::new(Core {
            mmu,
            translator,
            board,
            io: None,
            intr,
            clock,
            model: Arc::new(model),
            kicker: Arc::clone(&kicker),
            engine,
            mode: Mode::default(),
            leave: false,
            completed: false,
            overdue: 0,
            repeating: false,
            debug: debug::Debugger::default(),
            shutdown: false,
            nmi: core::Nmi::default(),
            table_owner: [None; 2],
            filled: [Vec::new(), Vec::new()],
            forget_returns: [false; 2],
            non_global_code: false,
            code_pages: core::CodePages::default(),
            user_code: vec![0; (1 << 20) / 64],
            code_writes: HashMap::new(),
            capture: None,
            direct: Direct::default(),
            stats: stats::ExitStats::default(),
        });
        Ok(Self {
            shared,
            core,
            kicker,
            area,
            poison,
            _poll_target: poll_target,
        })
    }

    /// Wakes this processor from other threads.
    #[must_use]
    pub fn kicker(&self) -> Arc<dyn Kick + Send + Sync> {
        Arc::clone(&self.kicker) as _
    }

    /// Names the I/O thread that deadlines are reported to.
    pub fn set_io(&mut self, io: Option<Arc<IoHandle>>) {
        self.core.io = io;
    }

    /// The register file.
    #[must_use]
    pub fn state(&self) -> &GuestState {
        // SAFETY: other threads touch only `poll_ptr`; translated code does not run while &self is
        // held, because running needs &mut self.
        unsafe { &*self.shared.as_ptr() }
    }

    /// The register file.
    pub fn state_mut(&mut self) -> &mut GuestState {
        // SAFETY: as above, exclusive by &mut self.
        unsafe { &mut *self.shared.as_ptr() }
    }

    /// Memory, translations and counters.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Memory, translations and counters, with the register file.
    pub fn parts_mut(&mut self) -> (&mut GuestState, &mut Core) {
        // SAFETY: the state is a separate allocation; exclusive by &mut self.
        (unsafe { &mut *self.shared.as_ptr() }, &mut self.core)
    }

    /// Resets the processor and drops all its translations.
    pub fn reset(&mut self) {
        let (st, core) = self.parts_mut();
        st.reset();
        core.direct.clear(&mut core.mmu);
        core.mmu.forget(st);
        core.translator.flush(st);
        for table in 0..2 {
            core.filled[table].clear();
            core.forget_returns[table] = true;
            core.table_owner[table] = None;
        }
        core.code_pages.clear();
        core.user_code.fill(0);
        core.shutdown = false;
        core.nmi = core::Nmi::default();
        core.repeating = false;
        core.debug = debug::Debugger::default();
    }

    /// Registers this thread for host signals and as the one to wake.
    /// # Errors
    /// When the host refuses.
    pub fn attach_thread(&self) -> io::Result<Registration> {
        self.kicker.bind_thread();
        // GS is free on x86-64 Linux (thread-local storage uses FS).
        // SAFETY: sets this thread's GS base, which no Rust code relies on.
        if unsafe {
            libc::syscall(
                libc::SYS_arch_prctl,
                ARCH_SET_GS,
                self.core.mmu.window.base(),
            )
        } < 0
        {
            return Err(io::Error::last_os_error());
        }
        Registration::new(CacheContext {
            code: self.core.translator.range(),
            fixed: self.core.translator.range().start..self.core.translator.stubs().end,
            exit_fault: self.core.translator.stubs().exit_fault,
            return_guards: [self.area.guard(0), self.area.guard(1)],
            state: self.shared.as_ptr(),
        })
    }
}
