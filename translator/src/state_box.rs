//! Owns the memory of a [`GuestState`].
#![allow(unsafe_code)] // the structure is over a mebibyte: it is allocated zeroed, never on a stack

use crate::state::GuestState;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

/// A heap-allocated [`GuestState`] after RESET, whose address never changes.
pub struct StateBox(NonNull<GuestState>);

// SAFETY: the box owns its allocation; raw pointers inside are only used by the owning vCPU thread.
unsafe impl Send for StateBox {}

impl StateBox {
    /// A processor after RESET, with empty TLBs and no run-time wiring.
    #[must_use]
    pub fn new() -> Self {
        let layout = Layout::new::<GuestState>();
        // SAFETY: the layout has a non-zero size, and all-zero bytes are a valid GuestState
        // (integers, a null pointer, enums whose 0 discriminant exists).
        let pointer = unsafe { alloc_zeroed(layout) }.cast::<GuestState>();
        let Some(pointer) = NonNull::new(pointer) else {
            handle_alloc_error(layout)
        };
        let mut state = Self(pointer);
        state.flush_soft_tlb();
        state.reset();
        state
    }

    /// The state's address, for r15.
    #[must_use]
    pub fn as_ptr(&self) -> *mut GuestState {
        self.0.as_ptr()
    }
}

impl Default for StateBox {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for StateBox {
    type Target = GuestState;
    fn deref(&self) -> &GuestState {
        // SAFETY: the allocation is live and initialised for as long as self exists.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for StateBox {
    fn deref_mut(&mut self) -> &mut GuestState {
        // SAFETY: as above, and &mut self makes the access exclusive.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for StateBox {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, dropped once.
        unsafe { dealloc(self.0.as_ptr().cast(), Layout::new::<GuestState>()) }
    }
}
