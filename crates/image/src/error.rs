//! The errors of an import, with a hint for each.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use crate::layer::LayerError;
use crate::unsupported;
use contd_flist::FlistErrorKind;
use contd_flist::pack::PackError;

/// An import failed. The output does not exist; stores may have got blocks, but only of an image that was verified
/// completely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The image could not be opened.
    #[error("open image {}", path.display())]
    Open {
        /// The path given.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file or directory is not an image.
    #[error("open image {}: it is no container image in a known form", path.display())]
    NotAnImage {
        /// The path given.
        path: PathBuf,
    },
    /// The source is another kind of file, or an image in a form that is not supported.
    #[error("open image {}: it is {what}", path.display())]
    OddForm {
        /// The path given.
        path: PathBuf,
        /// The kind of file or image.
        what: &'static str,
        /// The command that makes an image or a flist of it.
        advice: String,
    },
    /// The manifest has the form that registries used before 2016.
    #[error("understand {what:?} of the image: it is a manifest of docker's schema 1, which has no configuration")]
    OldManifest {
        /// The path inside the image.
        what: String,
    },
    /// Something in the image could not be read.
    #[error("read {what:?} of the image")]
    Read {
        /// The path inside the image.
        what: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The image refers to a part that it does not contain.
    #[error("read {what:?} of the image: not found")]
    Missing {
        /// The path inside the image.
        what: String,
    },
    /// The archive that holds the image is damaged.
    #[error("read the archive: {reason} (at byte {at})")]
    Archive {
        /// The byte offset in the archive.
        at: u64,
        /// The damage.
        reason: &'static str,
    },
    /// A document is not valid JSON of the expected form.
    #[error("understand {what:?} of the image")]
    Json {
        /// The path inside the image.
        what: String,
        /// The decoder's error.
        source: serde_json::Error,
    },
    /// A document is valid JSON, but its content is inconsistent.
    #[error("understand {what:?} of the image: {reason}")]
    Malformed {
        /// The path inside the image, or a part of it.
        what: String,
        /// The inconsistency.
        reason: &'static str,
    },
    /// The image uses a valid feature that this version does not support.
    #[error("understand {what:?} of the image: {found:?} is not supported")]
    Unsupported {
        /// The path inside the image, or a part of it.
        what: String,
        /// The feature, as the image writes it.
        found: String,
    },
    /// A part of the image exceeds a fixed limit.
    #[error("read {what:?} of the image: more than {limit} {unit}")]
    TooLarge {
        /// The part of the image.
        what: String,
        /// The limit.
        limit: u64,
        /// The unit of the limit.
        unit: &'static str,
    },
    /// The digest of a part is not the one in the image's documents.
    #[error("verify {what:?} of the image: its digest is {found}, not {expected}")]
    Digest {
        /// The path inside the image.
        what: String,
        /// The digest in the documents.
        expected: String,
        /// The digest computed.
        found: String,
    },
    /// The size of a part is not the one in its descriptor.
    #[error("verify {what:?} of the image: it has {found} bytes, not {expected}")]
    Size {
        /// The path inside the image.
        what: String,
        /// The size in the descriptor, in bytes.
        expected: u64,
        /// The size found, in bytes.
        found: u64,
    },
    /// The source holds several images and none was named, or none has that name.
    #[error("choose an image{}: there is {}", asked.as_ref().map(|name| format!(" named {name:?}")).unwrap_or_default(), listed(there))]
    NoSuchImage {
        /// The name asked for.
        asked: Option<String>,
        /// The names of the images in the source.
        there: Vec<String>,
    },
    /// No image in the source is for this platform.
    #[error("choose an image for {asked}: there is {}", listed(there))]
    NoSuchPlatform {
        /// The platform.
        asked: String,
        /// The platforms of the images in the source.
        there: Vec<String>,
    },
    /// A layer could not be applied.
    #[error("apply layer {layer}")]
    Layer {
        /// The layer's number and its path inside the image.
        layer: String,
        /// The error of the layer.
        source: LayerError,
    },
    /// The content of the layers could not be written to the scratch file.
    #[error("keep the content of the image in {}", folder.display())]
    Scratch {
        /// The folder of the scratch file.
        folder: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The tree could not be packed.
    #[error("pack the tree of the image")]
    Pack {
        /// The packer's error.
        source: PackError,
    },
}

/// Lists names, each quoted because they come from the image.
fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "),
    }
}

impl ImportError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::OddForm { advice, .. } => return Cow::Owned(advice.clone()),
            Self::Open { path, source } if source.kind() == io::ErrorKind::NotFound => {
                return unsupported::hint_for_missing(path).map_or(Cow::Borrowed("check the name"), Cow::Owned);
            }
            Self::OldManifest { .. } => {
                "convert it: skopeo copy --format oci dir:DIR oci:NEW, and import NEW (or docker-archive:, if it is one)"
            }
            Self::NoSuchImage { there, .. } if there.is_empty() => {
                "it holds no image: export it again, by a name or an id"
            }
            Self::Open { .. } => "check the name and the permissions",
            Self::NotAnImage { .. } => {
                "name an OCI image layout (a directory or a tar), an archive of `docker save` or `podman save`, or a \
                 directory that `skopeo copy … dir:` wrote"
            }
            Self::Read { .. } => "check the disk and the permissions; blobs must be files, not symbolic links",
            Self::Missing { .. } | Self::Archive { .. } | Self::Digest { .. } | Self::Size { .. } => {
                "the image is incomplete or damaged: copy or export it again"
            }
            Self::Json { .. } | Self::Malformed { .. } => "the image is damaged or hostile: export it again",
            Self::Unsupported { .. } => "export it as an OCI image with tar, gzip or zstd layers",
            Self::TooLarge { .. } => "no real image is so large: check the tool that made it",
            Self::NoSuchImage { .. } => "name one of them: --ref NAME",
            Self::NoSuchPlatform { .. } => "name one of them: --platform OS/ARCH",
            Self::Layer { source, .. } => source.hint(),
            Self::Scratch { .. } => "free some space there, or name another folder: --scratch DIR",
            Self::Pack { source } => source.hint(),
        })
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => FlistErrorKind::NotFound,
            Self::Open { .. } | Self::Read { .. } | Self::Scratch { .. } => FlistErrorKind::Io,
            Self::NotAnImage { .. } => FlistErrorKind::Invalid,
            Self::OddForm { .. } | Self::OldManifest { .. } => FlistErrorKind::Unsupported,
            Self::NoSuchImage { .. } | Self::NoSuchPlatform { .. } => FlistErrorKind::NotFound,
            Self::Unsupported { .. } => FlistErrorKind::Unsupported,
            Self::Layer { source, .. } => source.kind(),
            Self::Pack { source } => source.kind(),
            Self::Missing { .. }
            | Self::Archive { .. }
            | Self::Json { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Digest { .. }
            | Self::Size { .. } => FlistErrorKind::Corrupt,
        }
    }
}
