//! The errors of the record store.

use std::io;
use std::path::PathBuf;

use contd_durable::DurableError;
use contd_types::{ContainerId, ErrorKind, Explain, NamespaceId, Shortage};

/// An operation on a record or on the store that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory of all records could not be made.
    #[error("open store {}", root.display())]
    Open {
        /// The directory.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record could not be turned into JSON.
    #[error("encode the record of container {namespace}/{id}")]
    Encode {
        /// Its namespace.
        namespace: NamespaceId,
        /// Its id.
        id: ContainerId,
        /// Why.
        source: serde_json::Error,
    },
    /// A record could not be written; the old one is stored, or the new one, which a power loss may undo.
    #[error("write the record of container {namespace}/{id}")]
    Write {
        /// Its namespace.
        namespace: NamespaceId,
        /// Its id.
        id: ContainerId,
        /// Why.
        source: DurableError,
    },
    /// A newer record of this container was written before.
    #[error("write the record of container {namespace}/{id}: generation {given} is older than {stored}")]
    Stale {
        /// Its namespace.
        namespace: NamespaceId,
        /// Its id.
        id: ContainerId,
        /// The generation of the record that was given.
        given: u64,
        /// The generation of the record that is stored.
        stored: u64,
    },
    /// The record was removed before. A deleted container stays deleted.
    #[error("write the record of container {namespace}/{id}: it was removed")]
    Removed {
        /// Its namespace.
        namespace: NamespaceId,
        /// Its id.
        id: ContainerId,
    },
    /// A record could not be removed, or not so that it stays removed.
    #[error("remove the record of container {namespace}/{id}")]
    Remove {
        /// Its namespace.
        namespace: NamespaceId,
        /// Its id.
        id: ContainerId,
        /// Why.
        source: DurableError,
    },
    /// A record could not be read.
    #[error("read record {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory could not be listed.
    #[error("list records in {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record is not valid JSON of the current version.
    #[error("decode record {}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A record is in a format of a later version.
    #[error("read record {}: format version {found}, this contd knows up to {}", path.display(), crate::RECORD_VERSION)]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: u32,
    },
    /// A record names another container than its path does.
    #[error("read record {}: it is of container {namespace}/{id}", path.display())]
    Misfiled {
        /// The file.
        path: PathBuf,
        /// The namespace in it.
        namespace: NamespaceId,
        /// The id in it.
        id: ContainerId,
    },
}

impl StoreError {
    /// Tells whether the content is damaged, not the disk: then a second read would fail in the same way.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Decode { .. } | Self::NewerVersion { .. } | Self::Misfiled { .. } => true,
            Self::Read { source, .. } => source.kind() == io::ErrorKind::FileTooLarge,
            _ => false,
        }
    }

    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Open { source, .. } | Self::Read { source, .. } | Self::List { source, .. } => Some(source),
            Self::Write { source, .. } | Self::Remove { source, .. } => source.io(),
            _ => None,
        }
    }
}

impl Explain for StoreError {
    fn kind(&self) -> ErrorKind {
        if Shortage::behind(self).is_some() {
            return ErrorKind::OutOfResources;
        }
        match self {
            Self::Encode { .. } => ErrorKind::Internal,
            Self::Stale { .. } | Self::Removed { .. } => ErrorKind::Conflict,
            Self::Decode { .. } | Self::Misfiled { .. } => ErrorKind::Corrupt,
            Self::NewerVersion { .. } => ErrorKind::VersionMismatch,
            _ => match self.io().map(io::Error::kind) {
                Some(io::ErrorKind::PermissionDenied) => ErrorKind::PermissionDenied,
                Some(io::ErrorKind::FileTooLarge) => ErrorKind::Corrupt,
                _ => ErrorKind::Unavailable,
            },
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(shortage) = Shortage::behind(self) {
            return Some(shortage.hint().to_owned());
        }
        let text = match self {
            Self::Write { source, .. } | Self::Remove { source, .. } => source.hint(),
            Self::Decode { .. } | Self::Misfiled { .. } => {
                "the record is kept beside its place; look at it, then delete or repair it and restart the daemon"
            }
            Self::NewerVersion { .. } => "run the newer contd, and move the record back to record.json",
            Self::Open { .. } | Self::Read { .. } | Self::List { .. } => {
                "the state directory must be readable and writable for contd; look at the disk and the kernel log"
            }
            Self::Encode { .. } | Self::Stale { .. } | Self::Removed { .. } => return None,
        };
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_durable::DurableError;

    #[test]
    fn whatever_runs_out_under_a_record_is_named_with_its_path() {
        let (namespace, id) = (NamespaceId::new("a").unwrap(), ContainerId::from_random([1; 16]));
        for (number, limit) in [(28, "space"), (122, "quota"), (24, "open files"), (23, "fs.file-max"), (12, "memory")]
        {
            let source = || io::Error::from_raw_os_error(number);
            let path = || PathBuf::from("/state/a/x");
            let durable = DurableError::Write { path: path(), source: source() };
            let write = StoreError::Write { namespace: namespace.clone(), id: id.clone(), source: durable };
            for error in [write, StoreError::Read { path: path(), source: source() }] {
                assert_eq!(error.kind(), ErrorKind::OutOfResources, "{number}");
                assert!(error.hint().unwrap().contains(limit), "{number}: {:?}", error.hint());
                let chain = contd_types::ApiError::from_error(&error).chain();
                assert!(chain.contains("/state/a/x"), "{chain}");
            }
        }
    }
}
