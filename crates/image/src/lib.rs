//! Makes a flist from a container image: an OCI image layout, a tar of one, an archive of `docker save`, or a directory that
//! skopeo wrote with its transport `dir:`.
//!
//! ```text
//! layout ──manifest──> configuration ──config──> tags, .startup.toml ─────────────────┐
//!    │                                                                                │
//!    └──> layers: verify ─ decompress ─ members ──whiteouts, entries──> model (a tree) ┴─> pack
//!                                           └──content──> scratch (a file without a name) ─┘
//! ```
//!
//! Layers are never extracted: they only change a tree in memory, so their paths cannot lead out of it. Stores get blocks
//! only after all digests were verified. Memory is bounded by the number of entries (some 400 bytes each with a usual path)
//! and [`ImportLimits`]; disk space by the same limits, in an unnamed file that the kernel frees even after a crash.
#![forbid(unsafe_code)]

mod choose;
mod config;
mod decompress;
mod digest;
mod error;
mod layer;
mod layout;
mod manifest;
mod members;
mod model;
mod path;
mod pax;
mod platform;
mod saved;
mod scratch;
mod source_mark;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod unsupported;

use std::cell::Cell;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::ImportError;
pub use layer::{ImportLimits, LayerError};
pub use members::TarError;
pub use path::Fault;
pub use platform::{Platform, PlatformError};
pub use unsupported::{NotAFlist, look_for_image};

use choose::Wanted;
use contd_flist::pack::{self, Entry, EntryKind, FileContent, PackOptions, PackProgress, PackReport, Tree};
use digest::Hashed;
use layer::Layers;
use layout::Layout;
use manifest::{Image, Stored};
use members::{Source, skip_by_reading};
use scratch::Scratch;

/// The most bytes of one tag: the limit of readers, and more than the environment of any image.
const MAX_TAG_BYTES: usize = 60 * 1024;

/// The tags for the origin of a flist: the image's name, the digest of its manifest, its platform.
const NAME_TAG: &str = "oci.ref";
const DIGEST_TAG: &str = "oci.digest";
const PLATFORM_TAG: &str = "oci.arch";

/// The options of an [`import`].
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The options of the packer. A tag given here replaces the image's own.
    pub pack: PackOptions,
    /// The name of the image, for example `docker.io/library/busybox:1.36`; needed if the source holds several.
    pub name: Option<String>,
    /// The platform; with `None` it is this machine's, or that of the only image.
    pub platform: Option<Platform>,
    /// The directory for the content until it is packed; with `None` it is the output's directory.
    pub scratch: Option<PathBuf>,
    /// The limits on the size of the image.
    pub limits: ImportLimits,
}

/// The progress of an [`import`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportProgress {
    /// Layers are being read; bytes are counted as they are stored.
    Layers {
        /// Bytes read so far.
        done_bytes: u64,
        /// Bytes of all layers.
        total_bytes: u64,
    },
    /// The tree is being packed.
    Pack(PackProgress),
}

/// The result of an [`import`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// The packer's report.
    pub pack: PackReport,
    /// The number of layers.
    pub layers: usize,
    /// The platform of the image.
    pub platform: Platform,
    /// The number of extended attributes dropped: a flist cannot hold them.
    pub dropped_xattrs: u64,
    /// The number of entries whose names are not UTF-8, which `rfs` cannot read.
    pub raw_names: usize,
}

/// Imports an image into `out` and the stores, as [`pack`](contd_flist::pack::pack()) does a directory. An `out` made from
/// the same source is updated; any other existing file is refused, unless `options.pack.force` is set.
///
/// # Errors
/// The source is not an image, has no image that fits, is damaged, hostile or larger than the limits; or the packer failed.
/// Then `out` does not exist, and the stores got no block unless the image was read and verified completely.
pub fn import(
    source: &Path,
    out: &Path,
    stores: &[String],
    options: &ImportOptions,
    progress: &dyn Fn(ImportProgress),
) -> Result<ImportReport, ImportError> {
    let force = options.pack.force || source_mark::matches(out, source);
    pack::check_place(out, force).map_err(|source| ImportError::Pack { source })?;
    let layout = Layout::open(source)?;
    let wanted = Wanted { name: options.name.as_deref(), platform: options.platform.as_ref() };
    let image = manifest::find(&layout, source, &wanted)?;
    let tags = tags(&image, &options.pack.tags)?;

    let folder = scratch_folder(out, options);
    let scratch = Scratch::create_in(&folder).map_err(|source| ImportError::Scratch { folder, source })?;
    let mut layers = Layers::new(scratch, options.limits);
    let total_bytes = image.layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.bytes));
    let done_bytes = Cell::new(0_u64);
    let count = |bytes: u64| {
        done_bytes.set(done_bytes.get().saturating_add(bytes));
        progress(ImportProgress::Layers { done_bytes: done_bytes.get(), total_bytes });
    };
    for (number, stored) in (1..).zip(&image.layers) {
        let name = || format!("{number} of {} ({:?})", image.layers.len(), digest::shortened(&stored.path));
        apply(&layout, stored, &mut layers, &name, &count)?;
    }

    let dropped_xattrs = layers.dropped_xattrs;
    let entries = entries(layers, &image)?;
    let tree = Tree::build(entries).map_err(|source| ImportError::Pack { source })?;
    let raw_names = entries_with_raw_names(&tree);
    // The names in a layer were made on another machine, and the importing user cannot change them: so accept raw names.
    let pack_options = PackOptions { tags, raw_names: true, force, ..options.pack.clone() };
    let show = |progress_of_pack| progress(ImportProgress::Pack(progress_of_pack));
    let pack = pack::pack_tree(&tree, out, stores, &pack_options, &show);
    let pack = pack.map_err(|source| ImportError::Pack { source })?;
    source_mark::set(out, source);
    Ok(ImportReport { pack, layers: image.layers.len(), platform: image.config.platform(), dropped_xattrs, raw_names })
}

/// Applies one layer over those before it, and verifies its sizes and digests.
fn apply(
    layout: &Layout,
    stored: &Stored,
    layers: &mut Layers,
    name: &dyn Fn() -> String,
    count: &dyn Fn(u64),
) -> Result<(), ImportError> {
    let failed = |source| ImportError::Layer { layer: name(), source };
    let unread = |source| failed(LayerError::Read { source });
    let part = layout.must_have(&stored.path)?;
    manifest::check_size(&stored.path, stored.bytes, part.len())?;
    // An uncompressed layer has one digest for both forms; compute it once.
    let hasher = stored.digest.as_ref().filter(|digest| **digest != stored.diff_id).map(digest::Digest::hasher);
    let mut packed = Hashed::new(Watched { inner: part, count }, hasher, stored.bytes);
    let plain = decompress::plain(&mut packed).map_err(unread)?;
    let mut tar = Hashed::new(plain, Some(stored.diff_id.hasher()), layers.stream_limit());

    let applied = layers.apply(&mut tar);
    // The digests also cover the bytes after the end of the tar.
    let applied = applied.and_then(|()| tar.drain().map_err(|source| LayerError::Read { source }));
    match applied {
        Err(_) if tar.is_over() => return Err(failed(layers.too_large())),
        applied => applied.map_err(failed)?,
    }
    layers.note_stream(tar.read_bytes());
    if let Some(found) = tar.finish() {
        stored.diff_id.check(&format!("the tar of {}", stored.path), &found)?;
    }
    packed.drain().map_err(unread)?;
    manifest::check_size(&stored.path, stored.bytes, packed.read_bytes())?;
    match (&stored.digest, packed.finish()) {
        (Some(digest), Some(found)) => digest.check(&stored.path, &found),
        _ => Ok(()),
    }
}

/// Returns the tree's entries, and adds a `.startup.toml` for 0-OS unless the image has its own.
fn entries(layers: Layers, image: &Image) -> Result<Vec<Entry>, ImportError> {
    let source = |source| ImportError::Layer { layer: "all".to_owned(), source };
    let mut entries = layers.into_entries().map_err(source)?;
    let is_there = entries.iter().any(|entry| entry.path == config::STARTUP_FILE);
    if let Some(text) = config::startup_toml(&image.config.defaults()).filter(|_| !is_there) {
        let content = FileContent::Bytes(Arc::from(text.into_bytes()));
        let path = config::STARTUP_FILE.to_vec();
        entries.push(Entry { path, kind: EntryKind::File(content), mode: 0o644, uid: 0, gid: 0, mtime: 0, ctime: 0 });
    }
    Ok(entries)
}

/// Returns the caller's tags and those of the image's tags whose keys the caller did not give.
fn tags(image: &Image, own: &[(String, String)]) -> Result<Vec<(String, String)>, ImportError> {
    let mut of_image = image.config.defaults().to_tags();
    let texts = [
        (NAME_TAG, image.name.clone()),
        (DIGEST_TAG, image.digest.as_ref().map(ToString::to_string)),
        (PLATFORM_TAG, Some(image.config.platform().to_string())),
    ];
    of_image.extend(texts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    if let Some((key, _)) = of_image.iter().find(|(_, value)| value.len() > MAX_TAG_BYTES) {
        let what = format!("the configuration, for tag {key}");
        return Err(ImportError::TooLarge { what, limit: MAX_TAG_BYTES as u64, unit: "bytes" });
    }
    if let Some((key, _)) = of_image.iter().find(|(_, value)| value.contains('\0')) {
        let what = format!("the configuration, for tag {key}");
        return Err(ImportError::Malformed { what, reason: "it holds a NUL" });
    }
    of_image.retain(|(key, _)| !own.iter().any(|(of_caller, _)| of_caller == key));
    Ok(own.iter().cloned().chain(of_image).collect())
}

fn entries_with_raw_names(tree: &Tree) -> usize {
    tree.names().filter(|name| std::str::from_utf8(name).is_err()).count()
}

fn scratch_folder(out: &Path, options: &ImportOptions) -> PathBuf {
    let beside = || out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    options.scratch.as_deref().unwrap_or_else(beside).to_owned()
}

/// A reader that reports the bytes read.
struct Watched<'a, R> {
    inner: R,
    count: &'a dyn Fn(u64),
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        (self.count)(read as u64);
        Ok(read)
    }
}

impl<R: Read> Source for &mut Hashed<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        skip_by_reading(self, bytes)
    }
}
