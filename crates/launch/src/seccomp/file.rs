//! The file format of a compiled program: a header, the instructions, a checksum.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Program;

/// The version of the layout; part of the key, so that another version uses another file.
pub(super) const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"contdbpf";
/// The header: magic, version, flags, number of instructions.
const HEADER_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 32;
/// The most instructions that the kernel accepts (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;
/// The size in bytes of the largest file.
pub(super) const MAX_BYTES: usize = HEADER_BYTES + MAX_INSTRUCTIONS * 8 + CHECKSUM_BYTES;

pub(super) fn encode(program: &Program) -> Vec<u8> {
    let count = u32::try_from(program.instructions.len()).unwrap_or(u32::MAX);
    let mut bytes = MAGIC.to_vec();
    for number in [VERSION, program.flags, count] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for instruction in &program.instructions {
        bytes.extend_from_slice(&instruction.to_ne_bytes());
    }
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// Decodes a program; `None` when it is damaged.
pub(super) fn decode(bytes: &[u8]) -> Option<Program> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    let (header, code) = body.split_at_checked(HEADER_BYTES)?;
    let number = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let count = usize::try_from(number(16)?).ok()?;
    let is_whole = header.starts_with(&MAGIC)
        && number(8)? == VERSION
        && (1..=MAX_INSTRUCTIONS).contains(&count)
        && code.len() == count * 8
        && checksum(body) == sum;
    if !is_whole {
        return None;
    }
    let instructions = code.chunks_exact(8).filter_map(|chunk| Some(u64::from_ne_bytes(chunk.try_into().ok()?)));
    Some(Program { instructions: instructions.collect(), flags: number(12)? })
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake2b_simd::Params::new().hash_length(CHECKSUM_BYTES).hash(bytes);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(hash.as_bytes());
    sum
}

/// Reads a cached file; `None` when it is absent, damaged, or another user could have written it.
pub(super) fn read(path: &Path) -> Option<Program> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let is_ours = metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    if !is_ours || !metadata.is_file() {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).ok()?.min(MAX_BYTES) + 1);
    file.take(MAX_BYTES as u64).read_to_end(&mut bytes).ok()?;
    decode(&bytes)
}

/// Writes a file by rename. Not synced: a lost file is compiled again.
pub(super) fn write(path: &Path, program: &Program) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&encode(program))?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // Return the first failure, not one of the removal.
        let _left_behind = fs::remove_file(&temporary);
    })
}

/// Makes room for one more file. A failure is ignored: too many files only take space.
pub(super) fn remove_oldest(dir: &Path, max: usize) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dated = |path: PathBuf| Some((fs::symlink_metadata(&path).ok()?.modified().ok()?, path));
    let mut files: Vec<_> = entries.filter_map(|entry| dated(entry.path())).collect();
    files.sort();
    let surplus = (files.len() + 1).saturating_sub(max);
    for (_, path) in files.into_iter().take(surplus) {
        let _somebody_was_faster = fs::remove_file(path);
    }
}
