//! Host signals in translated code. Everything in `on_signal` runs in signal context: it touches
//! only the interrupted context, one thread-local pointer and the guest state, and calls nothing.
#![allow(unsafe_code)] // signal context

use crate::host_tsc;
use core::cell::Cell;
use core::ffi::c_void;
use core::ops::Range;
use ring3_translator::state::{GuestState, HostFault};
use std::io;

/// What the handler needs to know about the processor that runs on this thread.
#[derive(Clone, Debug)]
pub struct CacheContext {
    /// Host addresses of translated code.
    pub code: Range<u64>,
    /// The fixed code in it: thunks and exits.
    pub fixed: Range<u64>,
    /// Where faults go.
    pub exit_fault: u64,
    /// The inaccessible pages below the return stacks.
    pub return_guards: [Range<u64>; 2],
    /// The processor's state.
    pub state: *mut GuestState,
}

thread_local! {
    // Per thread because a host thread runs one processor; const, so that the handler's access
    // cannot allocate.
    static CONTEXT: Cell<*const CacheContext> = const { Cell::new(core::ptr::null()) };
}

const SIGNALS: [i32; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
const ALTERNATE_STACK: usize = 64 * 1024;

/// Registers a processor with its thread; dropping it takes the registration back.
pub struct Registration {
    context: Box<CacheContext>,
    stack: *mut c_void,
}

impl Registration {
    /// Installs the handlers (process-wide, idempotent) and this thread's alternate stack.
    /// # Errors
    /// When the host refuses.
    pub fn new(context: CacheContext) -> io::Result<Self> {
        // SAFETY: a fresh mapping, given to sigaltstack, unmapped after it is disabled in drop.
        let stack = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                ALTERNATE_STACK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if stack == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let alternate = libc::stack_t {
            ss_sp: stack,
            ss_flags: 0,
            ss_size: ALTERNATE_STACK,
        };
        // SAFETY: the structure describes the mapping above.
        if unsafe { libc::sigaltstack(&raw const alternate, core::ptr::null_mut()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        for signal in SIGNALS {
            // SAFETY: an all-zero sigaction is valid; the handler has the SA_SIGINFO signature.
            let result = unsafe {
                let mut action: libc::sigaction = core::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                libc::sigaction(signal, &raw const action, core::ptr::null_mut())
            };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        let context = Box::new(context);
        CONTEXT.set(&raw const *context);
        Ok(Self { context, stack })
    }

    /// The registered context.
    #[must_use]
    pub fn context(&self) -> &CacheContext {
        &self.context
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        CONTEXT.set(core::ptr::null());
        let none = libc::stack_t {
            ss_sp: core::ptr::null_mut(),
            ss_flags: libc::SS_DISABLE,
            ss_size: 0,
        };
        // SAFETY: disables the alternate stack, then unmaps it; no handler runs on it now.
        unsafe {
            libc::sigaltstack(&raw const none, core::ptr::null_mut());
            libc::munmap(self.stack, ALTERNATE_STACK);
        }
    }
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    let ours = CONTEXT.get();
    // SAFETY: the kernel passes a valid ucontext; `ours` is null or the boxed context of this
    // thread's registration, which outlives every run of translated code.
    unsafe {
        let uc = &mut *context.cast::<libc::ucontext_t>();
        let regs = &mut uc.uc_mcontext.gregs;
        let rip = regs[libc::REG_RIP as usize] as u64;
        if let Some(ours) = ours.as_ref()
            && ours.code.contains(&rip)
        {
            let address = regs[libc::REG_CR2 as usize] as u64;
            let trapno = regs[libc::REG_TRAPNO as usize] as u32;
            let state = &mut *ours.state;
            if trapno == 14 && ours.return_guards.iter().any(|g| g.contains(&address)) {
                // The return stack is full: forget it and push again at the top. A thunk keeps the
                // one frame it will return by; it is what RSP points to.
                let mut top = state.return_stack_top;
                if ours.fixed.contains(&rip) {
                    let frame = (regs[libc::REG_RSP as usize] as *const u64).read();
                    top -= 8;
                    (top as *mut u64).write(frame);
                }
                regs[libc::REG_RSP as usize] = top as i64;
                return;
            }
            state.fault = HostFault {
                rip,
                addr: address,
                trapno,
                err: regs[libc::REG_ERR as usize] as u32,
            };
            regs[libc::REG_RIP as usize] = ours.exit_fault as i64;
            // The exit saves DF and the arithmetic flags; TF and RF must not stay.
            regs[libc::REG_EFL as usize] &= !0x1_0100;
            return;
        }
        let _ = info;
        if host_tsc::is_hidden() {
            // Perhaps a clock of the C library. If not, the fault comes again.
            host_tsc::show();
            return;
        }
        // A fault of the monitor itself: let it take the default action, with a core dump.
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(signal, &raw const action, core::ptr::null_mut());
    }
}
