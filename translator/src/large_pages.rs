//! The host's large pages, for long lists: an optimization that a host may refuse.
//!
//! Not for the code cache: large pages of a memfd have to be collapsed from small ones, which cost more
//! than it saved.
#![allow(unsafe_code)] // advises memory

use core::ffi::c_void;

/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;

/// A list with room for `capacity` elements, in large pages if the host likes. Memory is taken
/// as it fills.
#[must_use]
pub fn list<T>(capacity: usize) -> Vec<T> {
    let list = Vec::with_capacity(capacity);
    let start = (list.as_ptr() as usize).next_multiple_of(LARGE_PAGE);
    let end = (list.as_ptr() as usize + capacity * size_of::<T>()) / LARGE_PAGE * LARGE_PAGE;
    if end > start {
        // SAFETY: memory of the list's own; the advice changes nothing but the size of pages.
        unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_HUGEPAGE) };
    }
    list
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn lists_hold_what_any_list_holds() {
        let mut l = list::<u64>(1 << 20);
        l.extend(0..2_000_000);
        assert!(l.iter().enumerate().all(|(i, &v)| i as u64 == v));
    }
}
