//! Limits the memory that an input may cost, which catches a decoder that trusts an announced length.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory that any input may cost: the largest message, once as bytes, a few times as fields.
const BASE_BYTES: usize = 8 * 1024 * 1024;
/// The memory that each byte of the input may cost in addition: a small element of a list becomes a struct.
const PER_BYTE: usize = 400;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with counters.
pub struct Counted;

// SAFETY: every call is passed on unchanged to the system's allocator; the counters do not affect the contract.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` above, so from the system, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs a check, and fails if it needs more memory than an input of this length may cost.
pub fn bounded(length: usize, check: impl FnOnce()) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    check();
    let used = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let limit = BASE_BYTES + length * PER_BYTE;
    assert!(used <= limit, "{length} bytes of input cost {used} bytes of memory, above {limit}");
}
