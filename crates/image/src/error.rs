//! Why an image could not be imported.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use crate::layer::LayerError;
use crate::odd;
use contd_flist::FlistErrorKind;
use contd_flist::pack::PackError;

/// What went wrong while importing. The flist has not appeared; blocks may have, but only of an image that was verified
/// as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The image could not be opened.
    #[error("open image {}", path.display())]
    Open {
        /// What was given.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is nothing that is known.
    #[error("open image {}: it is no container image in a form that is known", path.display())]
    NotAnImage {
        /// What was given.
        path: PathBuf,
    },
    /// It is something else, or an image in a form that is not read.
    #[error("open image {}: it is {what}", path.display())]
    OddForm {
        /// What was given.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// The command that makes an image or a flist of it.
        advice: String,
    },
    /// The manifest is of the form that registries had before 2016.
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
        /// What the system says.
        source: io::Error,
    },
    /// The image names something that it does not have.
    #[error("read {what:?} of the image: it is not there")]
    Missing {
        /// The path inside the image.
        what: String,
    },
    /// The archive that holds the image is damaged.
    #[error("read the archive: {reason} (at byte {at})")]
    Archive {
        /// Where.
        at: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A document is not the JSON that it should be.
    #[error("understand {what:?} of the image")]
    Json {
        /// The path inside the image.
        what: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A document makes no sense.
    #[error("understand {what:?} of the image: {reason}")]
    Malformed {
        /// The path inside the image, or a part of it.
        what: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Valid, but this version does not do it.
    #[error("understand {what:?} of the image: {found:?} is not supported")]
    Unsupported {
        /// The path inside the image, or a part of it.
        what: String,
        /// What was found.
        found: String,
    },
    /// More than is ever taken.
    #[error("read {what:?} of the image: more than {limit} {unit}")]
    TooLarge {
        /// What.
        what: String,
        /// How much is taken.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// Something is not what its digest says.
    #[error("verify {what:?} of the image: its digest is {found}, not {expected}")]
    Digest {
        /// The path inside the image.
        what: String,
        /// What the image says.
        expected: String,
        /// What it has.
        found: String,
    },
    /// Something has not the size that its descriptor says.
    #[error("verify {what:?} of the image: it has {found} bytes, not {expected}")]
    Size {
        /// The path inside the image.
        what: String,
        /// What the image says.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// Several images, or none of that name.
    #[error("choose an image{}: there is {}", asked.as_ref().map(|name| format!(" named {name:?}")).unwrap_or_default(), listed(there))]
    NoSuchImage {
        /// The name asked for.
        asked: Option<String>,
        /// The names that there are.
        there: Vec<String>,
    },
    /// None for this platform.
    #[error("choose an image for {asked}: there is {}", listed(there))]
    NoSuchPlatform {
        /// The platform.
        asked: String,
        /// Those that there are.
        there: Vec<String>,
    },
    /// A layer could not be applied.
    #[error("apply layer {layer}")]
    Layer {
        /// Its place and path inside the image.
        layer: String,
        /// Why not.
        source: LayerError,
    },
    /// The content could not be kept while it is sorted.
    #[error("keep the content of the image in {}", folder.display())]
    Scratch {
        /// The folder of the scratch file.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The tree could not be packed.
    #[error("pack the tree of the image")]
    Pack {
        /// Why not.
        source: PackError,
    },
}

/// Names what there is, each quoted: the names are the image's.
fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names => names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "),
    }
}

impl ImportError {
    /// Says what to do next.
    #[must_use]
    pub fn hint(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::OddForm { advice, .. } => return Cow::Owned(advice.clone()),
            Self::Open { path, source } if source.kind() == io::ErrorKind::NotFound => {
                return odd::of_missing(path).map_or(Cow::Borrowed("check the name"), Cow::Owned);
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
            Self::TooLarge { .. } => "no real image has that: look at what made it",
            Self::NoSuchImage { .. } => "name one of them: --ref NAME",
            Self::NoSuchPlatform { .. } => "name one of them: --platform OS/ARCH",
            Self::Layer { source, .. } => source.hint(),
            Self::Scratch { .. } => "free some space there, or name another folder: --scratch DIR",
            Self::Pack { source } => source.hint(),
        })
    }

    /// Says what sort of trouble it is.
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
