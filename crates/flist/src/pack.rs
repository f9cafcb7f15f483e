//! Packs a directory, or a given tree: its blocks into stores, its metadata into a `.fl` that the real `rfs` reads.
//!
//! ```text
//! walk, or a caller ──> Tree (sorted) ──> workers: read, seal, put ──> blocks per file, in order ──> database ──> flush ──> rename
//! ```
//!
//! The same tree gives the same `.fl`, byte for byte: the tree is sorted, inode numbers follow that order, and one thread
//! writes the rows in it. The flist appears under its name only after all blocks are in the stores.

mod database;
mod error;
mod seal;
mod tree;
mod walk;

use std::collections::HashSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};

pub(crate) use database::write_routes;
pub use error::PackError;
pub use tree::{DiskFile, Entry, EntryKind, FileContent, Tree};

use crate::atomic::{self, TempFile};
use crate::hash::hash_stream;
use crate::metadata::{MAX_HEAD_BYTES, MAX_NAME_BYTES, MAX_TAGS, Route};
use crate::store::{self, BlockStore, Range};
use crate::url;

/// The longest tag, key and value together: readers take rows of 64 KiB.
const MAX_TAG_BYTES: usize = 60_000;

/// The options of packing.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Tags to record, each key once.
    pub tags: Vec<(String, String)>,
    /// Records the stores without their passwords (default); readers then need public read access.
    pub strip_password: bool,
    /// Accepts names that are not UTF-8. They are written unchanged, which `rfs` cannot read; refused by default.
    pub raw_names: bool,
    /// The number of threads that read and seal; by default the number of cores.
    pub workers: Option<NonZeroUsize>,
    /// The routes to record in place of the stores, for readers that get the blocks elsewhere, for example from a web server.
    /// Each is `[xx-yy=]URL`.
    pub routes: Vec<String>,
    /// Replaces an existing `out`; refused by default.
    pub force: bool,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            strip_password: true,
            raw_names: false,
            workers: None,
            routes: Vec::new(),
            force: false,
        }
    }
}

/// The progress of a [`pack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackProgress {
    /// Bytes of content sealed and stored so far.
    pub done_bytes: u64,
    /// Bytes of content in total.
    pub total_bytes: u64,
}

/// The result of a [`pack`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackReport {
    /// The number of inodes, the root included.
    pub entries: u64,
    /// Bytes of content of all files.
    pub content_bytes: u64,
    /// The number of blocks of all files; equal blocks are stored once.
    pub blocks: u64,
    /// BLAKE2b-256 of the `.fl`, as 64 hex digits.
    pub hash: String,
}

/// A store to write to, and the route that is recorded for it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) range: Range,
    pub(crate) store: Box<dyn BlockStore>,
    pub(crate) route: Route,
}

/// Packs `dir` into `out` and the stores. `out` appears complete or not at all; blocks may stay after a failure.
///
/// A store is `[xx-yy=]URL`, with the first and last value of `id[0]` in hex; without a range it takes every block. Each
/// block is written to every store that covers it. Symbolic links are stored as links, except that `dir` itself is followed.
/// Mount points are crossed, and `out` itself is left out. `progress` is called on the calling thread.
///
/// # Errors
/// A store cannot be used or is inside `dir`, no store covers some ids, a name is not UTF-8, a file changed while it was
/// read, or an operation failed.
pub fn pack(
    dir: &Path,
    out: &Path,
    stores: &[String],
    options: &PackOptions,
    progress: &dyn Fn(PackProgress),
) -> Result<PackReport, PackError> {
    let root = fs::canonicalize(dir).map_err(|source| PackError::Walk { path: dir.to_owned(), source })?;
    let output = Output::create(out, options.force)?;
    let targets = targets(stores, Some(&root), options)?;
    let tree = Tree::build(walk::walk(&root, &[&output.path, output.temp.path()])?)?;
    write(&tree, output, &targets, options, progress)
}

/// Packs a given tree: entries with their content. Otherwise as [`pack`].
///
/// # Errors
/// As [`pack`].
pub fn pack_tree(
    tree: &Tree,
    out: &Path,
    stores: &[String],
    options: &PackOptions,
    progress: &dyn Fn(PackProgress),
) -> Result<PackReport, PackError> {
    let output = Output::create(out, options.force)?;
    let targets = targets(stores, None, options)?;
    write(tree, output, &targets, options, progress)
}

/// The flist that is being written.
struct Output {
    folder: PathBuf,
    path: PathBuf,
    temp: TempFile,
    force: bool,
}

impl Output {
    fn create(out: &Path, force: bool) -> Result<Self, PackError> {
        let (folder, name) = out_parts(out)?;
        let path = folder.join(name);
        check_place(&path, force)?;
        let temp = TempFile::create_in(&folder).map_err(|source| PackError::Write { path: path.clone(), source })?;
        Ok(Self { folder, path, temp, force })
    }
}

/// Refuses an existing output. With `force`, a file may be replaced, but never a directory, a device or another kind.
///
/// # Errors
/// The output exists.
pub fn check_place(out: &Path, force: bool) -> Result<(), PackError> {
    match fs::symlink_metadata(out) {
        Ok(metadata) if metadata.is_file() || metadata.is_symlink() => {
            if force {
                Ok(())
            } else {
                Err(PackError::Exists { path: out.to_owned() })
            }
        }
        Ok(_) => Err(PackError::NotAFile { path: out.to_owned() }),
        // Other faults are found when the output is written.
        Err(_not_there) => Ok(()),
    }
}

fn write(
    tree: &Tree,
    Output { folder, path: out, mut temp, force }: Output,
    targets: &[Target],
    options: &PackOptions,
    progress: &dyn Fn(PackProgress),
) -> Result<PackReport, PackError> {
    check_tags(&options.tags)?;
    let routes = recorded(targets, options)?;
    if !options.raw_names {
        let is_raw = |(_, entry): &&(i64, Entry)| std::str::from_utf8(entry.name()).is_err();
        if let Some((_, entry)) = tree.entries.iter().find(is_raw) {
            return Err(PackError::NameNotUtf8 { path: entry.shown_path() });
        }
    }
    let workers = options.workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let blocks = seal::seal_all(tree, targets, workers, progress)?;
    for target in targets {
        target.store.flush().map_err(|source| PackError::Store { source })?;
    }
    database::write(temp.path(), tree, &blocks, &routes, &options.tags)
        .map_err(|source| PackError::Database { path: out.clone(), source })?;
    let written = |source| PackError::Write { path: out.clone(), source };
    let hash = hash_of(&mut temp).map_err(written)?;
    let shown = if force { temp.commit(&out) } else { temp.commit_new(&out) };
    match shown {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(PackError::Exists { path: out }),
        shown => shown.and_then(|()| atomic::sync_folder(&folder)).map_err(written)?,
    }
    Ok(PackReport {
        entries: tree.entries.len() as u64,
        content_bytes: tree.content_bytes,
        blocks: blocks.iter().map(|of_file| of_file.len() as u64).sum(),
        hash,
    })
}

/// Returns the routes that are recorded in the flist.
fn recorded(targets: &[Target], options: &PackOptions) -> Result<Vec<Route>, PackError> {
    if options.routes.is_empty() {
        return Ok(targets.iter().map(|target| target.route.clone()).collect());
    }
    let mut routes = Vec::with_capacity(options.routes.len());
    for text in &options.routes {
        routes.push(crate::route::parse(text, !options.strip_password)?);
    }
    crate::route::check(&routes)?;
    Ok(routes)
}

/// Refuses tags that readers would refuse.
fn check_tags(tags: &[(String, String)]) -> Result<(), PackError> {
    if tags.len() > MAX_TAGS {
        return Err(PackError::TooMany { what: "tags", limit: MAX_TAGS });
    }
    if tags.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_HEAD_BYTES {
        return Err(PackError::TooMany { what: "bytes of tags", limit: MAX_HEAD_BYTES });
    }
    let mut seen = HashSet::new();
    for (key, value) in tags {
        let refused = |reason| Err(PackError::Tag { key: key.chars().take(MAX_NAME_BYTES).collect(), reason });
        if key.len() + value.len() > MAX_TAG_BYTES {
            return refused("it is longer than 60,000 bytes");
        }
        if !seen.insert(key) {
            return refused("it is there twice");
        }
    }
    Ok(())
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

/// Connects to the stores, and checks that together they cover every block and are not inside the packed tree.
fn targets(stores: &[String], root: Option<&Path>, options: &PackOptions) -> Result<Vec<Target>, PackError> {
    let mut targets = Vec::with_capacity(stores.len());
    for text in stores {
        let Route { start, end, url: store_url } = Route::parse(text);
        let range = Range { start, end };
        let store_url = store_url.as_str();
        let store = store::connect_to_write(store_url).map_err(|source| PackError::Store { source })?;
        if let (Some(root), Ok(folder)) = (root, store::dir_path(store_url)) {
            check_outside(&folder, root)?;
        }
        let recorded = if options.strip_password { url::strip_password(store_url) } else { store_url.to_owned() };
        targets.push(Target { range, store, route: Route { start, end, url: recorded } });
    }
    let covered = |first: u8| targets.iter().any(|target| (target.range.start..=target.range.end).contains(&first));
    match (0..=u8::MAX).find(|first| !covered(*first)) {
        Some(first) => Err(PackError::Uncovered { first }),
        None => Ok(targets),
    }
}

/// Refuses a store inside the tree: packing it would pack its own output.
fn check_outside(folder: &Path, root: &Path) -> Result<(), PackError> {
    // The directory may not exist yet: resolve its nearest existing ancestor.
    let existing = folder.ancestors().find_map(|ancestor| fs::canonicalize(ancestor).ok().map(|real| (ancestor, real)));
    let real = existing.map_or_else(
        || folder.to_owned(),
        |(ancestor, real)| folder.strip_prefix(ancestor).map_or(real.clone(), |rest| real.join(rest)),
    );
    if real.starts_with(root) { Err(PackError::StoreInside { store: folder.to_owned() }) } else { Ok(()) }
}

fn hash_of(temp: &mut TempFile) -> std::io::Result<String> {
    use std::io::Seek as _;
    temp.file().rewind()?;
    hash_stream(temp.file())
}
