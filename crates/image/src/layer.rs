//! Applies layers one over the other, as the OCI image specification defines it.
//!
//! A whiteout hides entries of lower layers, never an entry of its own layer, at whatever place in the tar it stands. So
//! whiteouts and entries are collected until the layer has been read; then the whiteouts are applied to the tree of the
//! lower layers, and the entries are added after them. Whiteouts are applied from the root downwards. Where the layer has a
//! directory in the place of a lower layer's symbolic link, the link is removed first: an entry inside that directory must
//! not follow the link to its old target.

use std::io;

use crate::members::{Member, MemberKind, Members, Source, TarError};
use crate::model::{Item, Leaf, Meta, Model};
use crate::path::{Fault, Meaning, components, meaning};
use crate::scratch::{Extent, Scratch};
use contd_flist::FlistErrorKind;
use contd_flist::pack::Entry;

/// The most bytes of all paths and link targets of an image: the text kept in memory for two million entries.
const MAX_TEXT_BYTES: usize = 512 * 1024 * 1024;

/// The longest target of a symbolic link (`PATH_MAX` without its NUL).
const MAX_TARGET_BYTES: usize = 4095;

/// The kernel keeps 12 bits of a major number and 20 of a minor one.
const MAX_MAJOR: u32 = 0xfff;
const MAX_MINOR: u32 = 0xf_ffff;

/// The most bytes of a stream that are headers and padding, not content: 2 KiB for each of two million entries.
const MAX_HEADER_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// The limits of an import, so that a small archive cannot fill a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportLimits {
    /// The most bytes of content in all layers, files that later layers hide included.
    pub image_bytes: u64,
    /// The most bytes of one file.
    pub file_bytes: u64,
    /// The most entries of all layers together.
    pub entries: usize,
}

impl Default for ImportLimits {
    fn default() -> Self {
        // The largest images, of models and their tools, have some 40 GiB; a reader accepts no more inodes than this.
        Self {
            image_bytes: 64 * 1024 * 1024 * 1024,
            file_bytes: 32 * 1024 * 1024 * 1024,
            entries: contd_flist::metadata::MAX_INODES,
        }
    }
}

/// A layer could not be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The layer is not a valid tar, or its headers could not be read.
    #[error("read its tar")]
    Tar {
        /// The error of the tar.
        source: TarError,
    },
    /// The layer could not be decompressed or read to its end.
    #[error("read it to the end")]
    Read {
        /// The error of the decompressor or the operating system.
        source: io::Error,
    },
    /// An entry cannot be added to the tree.
    #[error("put {path:?} into the tree")]
    Entry {
        /// The entry's path, as the layer writes it.
        path: String,
        /// The reason.
        source: Fault,
    },
    /// One file is larger than the limit.
    #[error("take the content of {path:?}: {bytes} bytes, and the limit is {limit}")]
    FileTooLarge {
        /// The file's path.
        path: String,
        /// The file's size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The content of all files exceeds the limit.
    #[error("take the content of the image: more than {limit} bytes")]
    ImageTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// All paths and link targets together are too long.
    #[error("take the paths of the image: more than {MAX_TEXT_BYTES} bytes")]
    TooMuchText,
    /// The content of a file could not be written to the scratch file.
    #[error("keep the content of {path:?}")]
    Scratch {
        /// The file's path.
        path: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl From<TarError> for LayerError {
    fn from(source: TarError) -> Self {
        Self::Tar { source }
    }
}

impl LayerError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Tar { .. } | Self::Read { .. } => "the layer is damaged or hostile: copy or export the image again",
            Self::Entry { .. } => "the layer is hostile, or was made by a faulty tool: check the tool",
            Self::FileTooLarge { .. } => "if the image is meant to be so large, say so: --max-file SIZE",
            Self::ImageTooLarge { .. } => "if the image is meant to be so large, say so: --max-size SIZE",
            Self::TooMuchText => "no real image is so large: check the tool that made it",
            Self::Scratch { .. } => "free some space there, or name another folder: --scratch DIR",
        }
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::Scratch { .. } => FlistErrorKind::Io,
            _ => FlistErrorKind::Corrupt,
        }
    }
}

/// A change to the tree of the lower layers; at one depth the changes are made in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Hide,
    Unlink,
}

/// An image whose layers are being applied.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) model: Model,
    scratch: Scratch,
    limits: ImportLimits,
    content_bytes: u64,
    stream_bytes: u64,
    text_bytes: usize,
    /// The number of extended attributes dropped: a flist cannot hold them.
    pub(super) dropped_xattrs: u64,
}

impl Layers {
    /// Starts with an empty tree.
    pub(super) fn new(scratch: Scratch, limits: ImportLimits) -> Self {
        Self {
            model: Model::new(limits.entries),
            scratch,
            limits,
            content_bytes: 0,
            stream_bytes: 0,
            text_bytes: 0,
            dropped_xattrs: 0,
        }
    }

    /// Returns the most bytes that the tar of the next layer may have.
    pub(super) fn stream_limit(&self) -> u64 {
        self.limits.image_bytes.saturating_add(MAX_HEADER_BYTES).saturating_sub(self.stream_bytes)
    }

    /// Adds the size of the last layer's tar to the total.
    pub(super) fn note_stream(&mut self, bytes: u64) {
        self.stream_bytes = self.stream_bytes.saturating_add(bytes);
    }

    /// Returns the error for a stream longer than [`Self::stream_limit`].
    pub(super) fn too_large(&self) -> LayerError {
        LayerError::ImageTooLarge { limit: self.limits.image_bytes }
    }

    /// Applies one layer over those before it.
    pub(super) fn apply(&mut self, tar: impl Source) -> Result<(), LayerError> {
        let mut members = Members::new(tar);
        let (mut whiteouts, mut waiting) = (Vec::new(), Vec::new());
        while let Some(member) = members.next()? {
            let fault = |source| LayerError::Entry { path: shown(&member.path), source };
            let meaning = meaning(&member.path).map_err(fault)?;
            if meaning == Meaning::Ignored {
                continue;
            }
            if whiteouts.len().saturating_add(waiting.len()) >= self.limits.entries {
                return Err(fault(Fault::TooMany { limit: self.limits.entries }));
            }
            self.count_text(member.path.len().saturating_add(member.link.len()))?;
            if matches!(meaning, Meaning::Entry(_)) {
                let item = self.item(&mut members, &member)?;
                waiting.push((member.path, item));
            } else {
                whiteouts.push(member.path);
            }
        }
        self.apply_whiteouts(&whiteouts, &waiting)?;
        for (path, item) in waiting {
            let put = components(&path).and_then(|names| self.model.put(&names, item));
            put.map_err(|source| LayerError::Entry { path: shown(&path), source })?;
        }
        Ok(())
    }

    /// Applies the next layer's whiteouts to the tree below, and replaces links where the layer has directories.
    fn apply_whiteouts(&mut self, whiteouts: &[Vec<u8>], waiting: &[(Vec<u8>, Item)]) -> Result<(), LayerError> {
        let mut steps = Vec::new();
        let fault = |path: &[u8]| {
            let path = shown(path);
            move |source| LayerError::Entry { path, source }
        };
        for path in whiteouts {
            match meaning(path).map_err(fault(path))? {
                Meaning::Whiteout(directory, _) => steps.push((directory.len() + 1, Step::Hide, path)),
                Meaning::Opaque(directory) => {
                    // An opaque whiteout implies that the layer has this directory.
                    steps.push((directory.len(), Step::Unlink, path));
                    steps.push((directory.len() + 1, Step::Hide, path));
                }
                Meaning::Entry(_) | Meaning::Ignored => {}
            }
        }
        for (path, _) in waiting.iter().filter(|(_, item)| matches!(item, Item::Directory(_))) {
            steps.push((components(path).map_err(fault(path))?.len(), Step::Unlink, path));
        }
        // The sort is stable, and at each depth hiding comes before unlinking: a hidden link needs no replacement.
        steps.sort_by_key(|(depth, step, _)| (*depth, *step));
        for (_, step, path) in steps {
            let done = match (step, meaning(path).map_err(fault(path))?) {
                (Step::Hide, Meaning::Whiteout(directory, name)) => self.model.hide(&directory, name),
                (Step::Hide, Meaning::Opaque(directory)) => self.model.hide_children(&directory),
                (_, Meaning::Opaque(directory) | Meaning::Entry(directory)) => {
                    self.model.unlink_for_directory(&directory)
                }
                (_, Meaning::Whiteout(..) | Meaning::Ignored) => Ok(()),
            };
            done.map_err(fault(path))?;
        }
        Ok(())
    }

    /// Returns the tree for the packer.
    pub(super) fn into_entries(self) -> Result<Vec<Entry>, LayerError> {
        let entries = self.model.into_entries(&self.scratch.file(), MAX_TEXT_BYTES);
        entries.ok_or(LayerError::TooMuchText)
    }

    fn count_text(&mut self, bytes: usize) -> Result<(), LayerError> {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
        if self.text_bytes > MAX_TEXT_BYTES { Err(LayerError::TooMuchText) } else { Ok(()) }
    }

    fn item<R: Source>(&mut self, members: &mut Members<R>, member: &Member) -> Result<Item, LayerError> {
        let fault = |source| LayerError::Entry { path: shown(&member.path), source };
        let id = |id: u64| u32::try_from(id).map_err(|_too_large| fault(Fault::BadOwner));
        let meta = Meta { mode: member.mode, uid: id(member.uid)?, gid: id(member.gid)?, mtime: member.mtime };
        self.dropped_xattrs = self.dropped_xattrs.saturating_add(member.xattrs);
        Ok(match member.kind {
            MemberKind::Directory => Item::Directory(meta),
            MemberKind::HardLink => {
                components(&member.link).map_err(fault)?;
                Item::HardLink(member.link.clone())
            }
            MemberKind::File => Item::Leaf(meta, Leaf::File(self.keep(members, member)?)),
            MemberKind::Symlink => {
                let target = &member.link;
                if target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains(&0) {
                    return Err(fault(Fault::BadTarget));
                }
                Item::Leaf(meta, Leaf::Symlink(target.as_slice().into()))
            }
            MemberKind::CharDevice => Item::Leaf(meta, Leaf::CharDevice(rdev(member.device).map_err(fault)?)),
            MemberKind::BlockDevice => Item::Leaf(meta, Leaf::BlockDevice(rdev(member.device).map_err(fault)?)),
            MemberKind::Fifo => Item::Leaf(meta, Leaf::Fifo),
            MemberKind::Unknown => return Err(fault(Fault::UnknownType)),
        })
    }

    /// Copies the content of a file to the scratch file.
    fn keep<R: Source>(&mut self, members: &mut Members<R>, member: &Member) -> Result<Extent, LayerError> {
        let (path, bytes) = (|| shown(&member.path), member.size);
        if bytes > self.limits.file_bytes {
            return Err(LayerError::FileTooLarge { path: path(), bytes, limit: self.limits.file_bytes });
        }
        self.content_bytes = self.content_bytes.saturating_add(bytes);
        if self.content_bytes > self.limits.image_bytes {
            return Err(self.too_large());
        }
        let failed = |source| LayerError::Scratch { path: path(), source };
        let extent = self.scratch.reserve(bytes).map_err(failed)?;
        let scratch = &self.scratch;
        members.content(member, |at, part| scratch.write(extent, at, part).map_err(failed))?;
        Ok(extent)
    }
}

/// Combines major and minor number as glibc's `dev_t` does.
fn rdev((major, minor): (u32, u32)) -> Result<u64, Fault> {
    if major > MAX_MAJOR || minor > MAX_MINOR {
        return Err(Fault::BadDevice);
    }
    let (major, minor) = (u64::from(major), u64::from(minor));
    Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// Shortens a path of a layer for an error message.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(300).collect()
}
