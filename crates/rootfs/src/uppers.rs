//! The directories that callers gave for writable layers and roots: two containers that write to one, or one that writes below
//! what another reads, would corrupt it, and the kernel only says "busy".
//!
//! A directory is known by device and inode, its own and those of all above it, so that a link or a bind is no way around.
//! What is claimed stands in the container's directory, for the next daemon. Nobody reads a directory of a caller under the
//! lock: it may hang.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use contd_durable::{Fs, RealFs, replace_volatile};
use serde::{Deserialize, Serialize};

use crate::provider::RootfsError;
use crate::users::{User, disk, unwritten};

/// Two chains of at most some hundred directories.
const MAX_CLAIM_BYTES: u64 = 64 * 1024;

/// A directory and all above it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tree {
    path: PathBuf,
    /// Device and inode, its own first.
    chain: Vec<(u64, u64)>,
}

impl Tree {
    /// `path` must be without symlinks.
    fn at(path: &Path) -> io::Result<Self> {
        let identity = |dir: &Path| std::fs::metadata(dir).map(|metadata| (metadata.dev(), metadata.ino()));
        let chain = path.ancestors().map(identity).collect::<io::Result<_>>()?;
        Ok(Self { path: path.to_owned(), chain })
    }

    /// Tells whether one lies in the other, or both are one.
    fn overlaps(&self, other: &Self) -> bool {
        let holds = |inner: &Self, outer: &Self| outer.chain.first().is_some_and(|own| inner.chain.contains(own));
        holds(self, other) || holds(other, self)
    }
}

/// The directories of callers that one container uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// The directory that it writes to.
    upper: Option<Tree>,
    /// The plain directory that it reads.
    lower: Option<Tree>,
}

impl Claim {
    /// Looks at the directories; they must be without symlinks.
    pub(crate) fn new(upper: Option<&Path>, lower: Option<&Path>) -> Result<Self, RootfsError> {
        let at = |dir: Option<&Path>| {
            let failed = |source| RootfsError::Directory { path: dir.unwrap_or(Path::new("")).to_owned(), source };
            dir.map(Tree::at).transpose().map_err(failed)
        };
        let claim = Self { upper: at(upper)?, lower: at(lower)? };
        match (&claim.upper, &claim.lower) {
            (Some(upper), Some(lower)) if upper.overlaps(lower) => {
                Err(RootfsError::UpperIsLower { path: upper.path.clone(), lower: lower.path.clone() })
            }
            _ => Ok(claim),
        }
    }

    fn is_nothing(&self) -> bool {
        self.upper.is_none() && self.lower.is_none()
    }

    /// Finds a directory of ours that must not be one of theirs, and how they have it.
    fn conflict(&self, theirs: &Self) -> Option<(&Path, &'static str)> {
        let (writes, reads) = ("writes to it", "has it as its root");
        let of_upper = clash(&self.upper, &theirs.upper).map(|path| (path, writes));
        let of_root = || clash(&self.upper, &theirs.lower).map(|path| (path, reads));
        let of_lower = || clash(&self.lower, &theirs.upper).map(|path| (path, writes));
        of_upper.or_else(of_root).or_else(of_lower)
    }
}

/// Returns our directory if theirs overlaps it.
fn clash<'a>(ours: &'a Option<Tree>, theirs: &Option<Tree>) -> Option<&'a Path> {
    let (ours, theirs) = (ours.as_ref()?, theirs.as_ref()?);
    ours.overlaps(theirs).then_some(ours.path.as_path())
}

/// The claims of all containers.
#[derive(Debug, Default)]
pub(crate) struct Uppers(Mutex<BTreeMap<User, Claim>>);

impl Uppers {
    /// Claims the directories of a container, in memory and in `note`.
    ///
    /// # Errors
    /// [`RootfsError::UpperInUse`] with the container that has one of them.
    pub(crate) fn claim(&self, user: &User, claim: &Claim, note: &Path) -> Result<(), RootfsError> {
        if claim.is_nothing() {
            return Ok(());
        }
        {
            let mut claims = self.claims();
            for (other, theirs) in claims.iter().filter(|(other, _)| *other != user) {
                if let Some((path, how)) = claim.conflict(theirs) {
                    let (namespace, id) = (other.namespace.clone(), other.id.clone());
                    return Err(RootfsError::UpperInUse { path: path.into(), namespace, id, name: None, how });
                }
            }
            claims.insert(user.clone(), claim.clone());
        }
        if let Some(dir) = note.parent() {
            RealFs.create_dir_all(dir, 0o700).map_err(|source| disk("make", dir, source))?;
        }
        let text = serde_json::to_vec(claim).map_err(|error| disk("write", note, error.into()))?;
        replace_volatile(&RealFs, note, &text, 0o600).map_err(|error| unwritten(note, &error))
    }

    /// Knows again what an earlier daemon's container has; nothing without a note.
    pub(crate) fn remember(&self, user: &User, note: &Path) -> Result<(), RootfsError> {
        let text = match RealFs.read(note, MAX_CLAIM_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(disk("read", note, source)),
        };
        let claim = serde_json::from_slice(&text).map_err(|error| disk("understand", note, error.into()))?;
        self.claims().insert(user.clone(), claim);
        Ok(())
    }

    /// Gives all back.
    pub(crate) fn give_back(&self, user: &User, note: &Path) -> Result<(), RootfsError> {
        match RealFs.remove_file(note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk("remove", note, error)),
            Ok(()) | Err(_) => {}
        }
        self.claims().remove(user);
        Ok(())
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<User, Claim>> {
        // Only looks, inserts and removes happen under it: a panic leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::{ContainerId, NamespaceId};

    fn user(number: u8) -> User {
        User { namespace: NamespaceId::new("ns").unwrap(), id: ContainerId::from_random([number; 16]) }
    }

    #[test]
    fn what_overlaps_is_found_in_both_directions_and_what_lies_beside_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a/inner", "ab", "c"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        let uppers = Uppers::default();
        let claim = |number: u8, upper: Option<&str>, lower: Option<&str>| {
            let (upper, lower) = (upper.map(path), lower.map(path));
            let claim = Claim::new(upper.as_deref(), lower.as_deref())?;
            uppers.claim(&user(number), &claim, &path(&format!("note-{number}")))
        };
        claim(1, Some("a"), None).unwrap();
        claim(1, Some("a"), None).expect("the same container again");
        for (upper, lower) in [(Some("a"), None), (Some("a/inner"), None), (Some(""), None), (None, Some("a"))] {
            let error = claim(2, upper, lower).unwrap_err();
            assert!(matches!(&error, RootfsError::UpperInUse { id, .. } if *id == user(1).id), "{error:?}");
        }
        claim(2, Some("ab"), Some("c")).unwrap();
        claim(3, None, Some("c")).expect("two may read");
        assert!(matches!(claim(4, Some("c"), None), Err(RootfsError::UpperInUse { .. })));
        assert!(matches!(claim(4, Some("c"), Some("c")), Err(RootfsError::UpperIsLower { .. })));
        // The next daemon knows it, until it is given back.
        let next = Uppers::default();
        next.remember(&user(1), &path("note-1")).unwrap();
        next.remember(&user(9), &path("note-9")).unwrap();
        let again = || Claim::new(Some(&path("a/inner")), None).unwrap();
        assert!(next.claim(&user(5), &again(), &path("note-5")).is_err());
        next.give_back(&user(1), &path("note-1")).unwrap();
        next.give_back(&user(1), &path("note-1")).expect("twice is fine");
        next.claim(&user(5), &again(), &path("note-5")).unwrap();
    }
}
