//! Durable file operations: after a crash or a power loss a file is whole or absent.
//!
//! Takes in: bytes and paths. Gives out: [`Fs`], the boundary to the disk, and on top of it the few sequences of
//! operations that survive a crash or a power loss:
//!
//! ```text
//! replace           temp file ─ write ─ fsync ─ rename ─ fsync directory     old or new, never a mixture
//! replace_volatile  temp file ─ write ─ rename                               the same, but not across a power loss
//! create_dirs       mkdir each part ─ fsync each parent                      the directory is there after a power loss
//! remove            unlink ─ fsync directory                                 a removed file stays removed
//! ```
//!
//! Never does: decide where data is stored, follow a format, keep a descriptor open that it did not return. All calls
//! block; an async caller makes them on a blocking pool. Every sequence may be repeated after any failure. Feature
//! `testing` adds `FaultyFs`, which fails at the n-th operation.
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "testing"))]
mod faulty;
mod fs;
mod sequence;

#[cfg(any(test, feature = "testing"))]
pub use faulty::{Call, Fault, FaultyFs, Operation, Pieces};
pub use fs::{FileId, Fs, ReadFile, RealFs};
pub use sequence::{
    DurableError, create_dirs, create_dirs_volatile, remove, remove_volatile, replace, replace_volatile, sweep_temps,
    sync_dirs,
};
