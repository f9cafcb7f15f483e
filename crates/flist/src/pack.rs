//! Packs a directory: its blocks into stores, its tree into a `.fl` that the real `rfs` reads.
//!
//! ```text
//! walk (sorted) ──> entries ──> workers: read, seal, put ──> blocks per file, in order ──> database ──> flush ──> rename
//! ```
//!
//! The same tree gives the same `.fl`, byte for byte: the walk is sorted, inode numbers follow it, and the rows are
//! written by one thread in that order. Nothing is visible under the final name before every block is on disk.

mod database;
mod error;
mod seal;
mod walk;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};

pub use error::PackError;

use crate::atomic::{self, TempFile};
use crate::hash::{finish, hasher, hex};
use crate::metadata::Route;
use crate::store::{self, BlockStore, Range};
use crate::url;

/// How to pack.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Tags to record, each key once.
    pub tags: Vec<(String, String)>,
    /// Leaves the passwords of the stores out of the routes (default), so that readers need public read access.
    pub strip_password: bool,
    /// Threads that read and seal; by default as many as there are cores.
    pub workers: Option<NonZeroUsize>,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { tags: Vec::new(), strip_password: true, workers: None }
    }
}

/// How far a [`pack`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackProgress {
    /// Bytes of content that are sealed and stored.
    pub done_bytes: u64,
    /// Bytes of content that the walk found.
    pub total_bytes: u64,
}

/// What a [`pack`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackReport {
    /// Inodes, the root included.
    pub entries: u64,
    /// Bytes of all files.
    pub content_bytes: u64,
    /// Blocks of all files; equal ones are stored once.
    pub blocks: u64,
    /// BLAKE2b-256 of the `.fl`, as 64 hex digits.
    pub hash: String,
}

/// A store to write to, and what the flist will say about it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) range: Range,
    pub(crate) store: Box<dyn BlockStore>,
    pub(crate) route: Route,
}

/// Packs `dir` into `out` and the stores. `out` appears whole or not at all; blocks may stay behind after a failure.
///
/// A store is `[xx-yy=]URL`, with the first and last value of `id[0]` in hex; without them it takes every block. Each
/// block goes to every store that covers it. Symbolic links are stored as links; `dir` itself may be one. Mount points
/// are crossed, `out` itself is left out. `progress` is called from this thread.
///
/// # Errors
/// A store that cannot be used or is inside `dir`, ids that no store covers, a name that is not UTF-8, a file that
/// changed meanwhile, or whatever the system refuses.
pub fn pack(
    dir: &Path,
    out: &Path,
    stores: &[String],
    options: &PackOptions,
    progress: &dyn Fn(PackProgress),
) -> Result<PackReport, PackError> {
    let root = fs::canonicalize(dir).map_err(|source| PackError::Walk { path: dir.to_owned(), source })?;
    let (folder, name) = out_parts(out)?;
    let out = folder.join(name);
    let targets = targets(stores, &root, options)?;
    let mut temp = TempFile::create_in(&folder).map_err(|source| PackError::Write { path: out.clone(), source })?;
    let tree = walk::walk(&root, &[&out, temp.path()])?;

    let workers = options.workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let blocks = seal::seal_all(&tree, &targets, workers, progress)?;
    for target in &targets {
        target.store.flush().map_err(|source| PackError::Store { source })?;
    }
    database::write(temp.path(), &tree, &blocks, &targets, &options.tags)
        .map_err(|source| PackError::Database { path: out.clone(), source })?;
    let written = |source| PackError::Write { path: out.clone(), source };
    let hash = hash_of(&mut temp).map_err(written)?;
    temp.commit(&out).and_then(|()| atomic::sync_folder(&folder)).map_err(written)?;
    Ok(PackReport {
        entries: tree.entries.len() as u64,
        content_bytes: tree.content_bytes,
        blocks: blocks.iter().map(|of_file| of_file.len() as u64).sum(),
        hash,
    })
}

/// Splits the output path into a folder that exists and a name.
fn out_parts(out: &Path) -> Result<(PathBuf, PathBuf), PackError> {
    let Some(Component::Normal(name)) = out.components().next_back() else {
        return Err(PackError::NoOutName { path: out.to_owned() });
    };
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = fs::canonicalize(folder).map_err(|source| PackError::Write { path: folder.to_owned(), source })?;
    Ok((folder, PathBuf::from(name)))
}

/// Understands the stores, and checks that together they take every block and do not lie in what is packed.
fn targets(stores: &[String], root: &Path, options: &PackOptions) -> Result<Vec<Target>, PackError> {
    let mut targets = Vec::with_capacity(stores.len());
    for text in stores {
        let (range, store_url) = split_range(text);
        let store = store::connect_to_write(store_url).map_err(|source| PackError::Store { source })?;
        if let Ok(folder) = store::dir_path(store_url) {
            check_outside(&folder, root)?;
        }
        let recorded = if options.strip_password { url::strip_password(store_url) } else { store_url.to_owned() };
        targets.push(Target { range, store, route: Route { start: range.start, end: range.end, url: recorded } });
    }
    let covered = |first: u8| targets.iter().any(|target| (target.range.start..=target.range.end).contains(&first));
    match (0..=u8::MAX).find(|first| !covered(*first)) {
        Some(first) => Err(PackError::Uncovered { first }),
        None => Ok(targets),
    }
}

/// Splits `[xx-yy=]URL`.
fn split_range(text: &str) -> (Range, &str) {
    let all = Range { start: 0, end: u8::MAX };
    let ranged = text.split_once('=').and_then(|(range, store_url)| {
        let (start, end) = range.split_once('-')?;
        let byte = |hex: &str| (hex.len() == 2).then(|| u8::from_str_radix(hex, 16).ok()).flatten();
        let (start, end) = (byte(start)?, byte(end)?);
        (start <= end).then_some((Range { start, end }, store_url))
    });
    ranged.unwrap_or((all, text))
}

/// Refuses a store inside the tree: packing it would pack its own output.
fn check_outside(folder: &Path, root: &Path) -> Result<(), PackError> {
    // The folder may not exist yet: what exists of it decides.
    let existing = folder.ancestors().find_map(|ancestor| fs::canonicalize(ancestor).ok().map(|real| (ancestor, real)));
    let real = existing.map_or_else(
        || folder.to_owned(),
        |(ancestor, real)| folder.strip_prefix(ancestor).map_or(real.clone(), |rest| real.join(rest)),
    );
    if real.starts_with(root) { Err(PackError::StoreInside { store: folder.to_owned() }) } else { Ok(()) }
}

fn hash_of(temp: &mut TempFile) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _};
    let (mut state, mut chunk) = (hasher(), vec![0; 64 * 1024]);
    let file = temp.file();
    file.rewind()?;
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex(&finish(&state))),
            read => {
                state.update(chunk.get(..read).unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_before_the_url_is_two_hex_bytes() {
        let range = |start, end| Range { start, end };
        assert_eq!(split_range("00-7f=dir:///a"), (range(0, 0x7f), "dir:///a"));
        assert_eq!(split_range("dir:///a"), (range(0, 0xff), "dir:///a"));
        assert_eq!(split_range("dir:///a-b=c"), (range(0, 0xff), "dir:///a-b=c"));
    }
}
