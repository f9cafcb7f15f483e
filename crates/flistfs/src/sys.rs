//! The calls that the compiler cannot check.

use std::io;
use std::num::NonZero;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU32;

use nix::sys::mman::{MapFlags, ProtFlags, mlock, mmap};

/// Maps a part of a memory file for as long as the process lives; its pages are there at once if they are to be locked.
///
/// # Errors
/// When there is no room for it, or the part is empty.
pub(crate) fn map(memory: impl AsFd, offset: usize, bytes: usize) -> io::Result<&'static mut [u8]> {
    let len = NonZero::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
    let at = nix::libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice, which overlaps nothing of ours.
    let start = unsafe { mmap(None, len, access, MapFlags::MAP_SHARED, memory, at) }?;
    // SAFETY: so many readable and writable bytes begin there, they stay for as long as the process lives, and no other reference
    // of this process is to them. The file has them all, as the caller has checked, and is never made shorter; another process
    // writes to it only before this one begins or after it is dead.
    Ok(unsafe { std::slice::from_raw_parts_mut(start.cast::<u8>().as_ptr(), bytes) })
}

/// Brings mapped memory in and keeps it in.
///
/// # Errors
/// `EPERM` or `ENOMEM` when this process may not lock so much.
pub(crate) fn lock(memory: &mut [u8]) -> io::Result<()> {
    let start = std::ptr::NonNull::from(&mut *memory).cast();
    // SAFETY: it changes where the kernel keeps these pages, which are ours, and nothing in them.
    Ok(unsafe { mlock(start, memory.len()) }?)
}

/// Takes memory as marks.
pub(crate) fn as_marks(memory: &'static mut [u8]) -> &'static [AtomicU32] {
    // SAFETY: every value of four aligned bytes is a valid `AtomicU32`, and `align_to` takes only aligned ones.
    let (_, marks, _) = unsafe { memory.align_to::<AtomicU32>() };
    marks
}

/// Keeps the allocator from holding on to what large buffers have used, and gives back what is free. To be called before
/// the threads start.
pub(crate) fn keep_memory_small() {
    /// Heaps beside the main one: each thread would otherwise have its own, and keep its largest.
    const MAX_HEAPS: i32 = 2;
    /// Buffers from this size on are mapped, and go back to the kernel when they are freed.
    const MAP_FROM_BYTES: i32 = 256 * 1024;
    /// The most bytes that stay free at the end of a heap: with less, memory would be given back and asked for again with every block.
    const MAX_FREE_BYTES: i32 = 1024 * 1024;
    let settings = [
        (nix::libc::M_ARENA_MAX, MAX_HEAPS),
        (nix::libc::M_MMAP_THRESHOLD, MAP_FROM_BYTES),
        (nix::libc::M_TRIM_THRESHOLD, MAX_FREE_BYTES),
    ];
    for (setting, value) in settings {
        // SAFETY: `mallopt` takes two numbers and no pointer, and locks what it changes; a value that it does not like
        // is refused with 0 and changes nothing.
        let _memory_only = unsafe { nix::libc::mallopt(setting, value) };
    }
    // The memory that reading the metadata took for a moment.
    give_back_memory();
}

/// Gives the free pages of the heaps back to the system.
pub(crate) fn give_back_memory() {
    // SAFETY: `malloc_trim` takes a number, locks the heaps, and touches only what is free.
    let _was_there_any = unsafe { nix::libc::malloc_trim(0) };
}
