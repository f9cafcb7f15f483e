//! The calls that the compiler cannot check.

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
