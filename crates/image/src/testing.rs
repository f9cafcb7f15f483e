//! Applies plain tars as layers and lists the resulting tree, for the fuzzer and for tests with an oracle.

use std::os::unix::fs::FileExt as _;

use crate::layer::{ImportLimits, LayerError, Layers};
use crate::scratch::Scratch;
use contd_flist::pack::{Entry, EntryKind, FileContent, PackError, Tree};

/// One entry of the resulting tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laid {
    /// The path from the root, without a leading `/`; empty for the root.
    pub path: Vec<u8>,
    /// `d`, `f`, `l`, `c`, `b`, or `p`.
    pub kind: char,
    /// The permission bits, at most `0o7777`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The modification time in seconds since 1970.
    pub mtime: i64,
    /// The content of a file, the target of a link, or the number of a device in decimal.
    pub content: Vec<u8>,
}

/// Applies the tars one over the other, the first one lowest, and sorts the resulting entries by path.
///
/// # Errors
/// The first error of a layer.
pub fn lay(tars: &[&[u8]], limits: ImportLimits) -> Result<Vec<Laid>, LayerError> {
    let scratch = Scratch::create_in(&std::env::temp_dir());
    let scratch = scratch.map_err(|source| LayerError::Scratch { path: String::new(), source })?;
    let mut layers = Layers::new(scratch, limits);
    for tar in tars {
        layers.apply(*tar)?;
    }
    let mut laid = layers.into_entries()?.iter().map(laid).collect::<Result<Vec<_>, _>>()?;
    laid.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(laid)
}

/// Tells whether the packer accepts the resulting tree.
///
/// # Errors
/// As [`lay`]; the inner error is the packer's.
pub fn pack_accepts(tars: &[&[u8]], limits: ImportLimits) -> Result<Result<(), PackError>, LayerError> {
    let scratch = Scratch::create_in(&std::env::temp_dir());
    let scratch = scratch.map_err(|source| LayerError::Scratch { path: String::new(), source })?;
    let mut layers = Layers::new(scratch, limits);
    for tar in tars {
        layers.apply(*tar)?;
    }
    Ok(Tree::build(layers.into_entries()?).map(drop))
}

fn laid(entry: &Entry) -> Result<Laid, LayerError> {
    let (kind, content) = match &entry.kind {
        EntryKind::File(FileContent::Bytes(bytes)) => ('f', bytes.to_vec()),
        EntryKind::File(FileContent::Part { file, offset, len }) => {
            let mut bytes = vec![0; usize::try_from(*len).unwrap_or_default()];
            let read = file.read_exact_at(&mut bytes, *offset);
            read.map_err(|source| LayerError::Scratch { path: String::new(), source })?;
            ('f', bytes)
        }
        EntryKind::Symlink { target } => ('l', target.clone()),
        EntryKind::CharDevice { rdev } => ('c', rdev.to_string().into_bytes()),
        EntryKind::BlockDevice { rdev } => ('b', rdev.to_string().into_bytes()),
        EntryKind::Fifo => ('p', Vec::new()),
        _ => ('d', Vec::new()),
    };
    let Entry { path, mode, uid, gid, mtime, .. } = entry.clone();
    Ok(Laid { path, kind, mode, uid, gid, mtime, content })
}
