//! The containers that use a flist: one small file for each in the lease directory of the flist's server.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use contd_durable::{DurableError, Fs, RealFs, replace_volatile};
use contd_types::{ContainerId, NamespaceId};

use crate::provider::RootfsError;

const USERS_DIR: &str = "users";

/// A file holds a hash of 64 digits.
const MAX_USER_BYTES: u64 = 256;

/// A container, as the name of its file: `<ns>@<id>`. Neither part can hold an `@`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct User {
    /// The namespace.
    pub(crate) namespace: NamespaceId,
    /// The container.
    pub(crate) id: ContainerId,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.namespace, self.id)
    }
}

impl User {
    fn parse(name: &str) -> Option<Self> {
        let (namespace, id) = name.split_once('@')?;
        Some(Self { namespace: NamespaceId::new(namespace).ok()?, id: ContainerId::new(id).ok()? })
    }

    fn file(&self, server: &Path) -> PathBuf {
        server.join(USERS_DIR).join(self.to_string())
    }
}

/// Writes down that the container uses the flist of this server directory.
pub(crate) fn add(server: &Path, user: &User, hash: &str) -> Result<(), RootfsError> {
    let dir = server.join(USERS_DIR);
    RealFs.create_dir_all(&dir, 0o700).map_err(|source| disk("make", &dir, source))?;
    let file = user.file(server);
    replace_volatile(&RealFs, &file, hash.as_bytes(), 0o600).map_err(|error| unwritten(&file, &error))
}

/// Removes it; fine when it is not there.
pub(crate) fn remove(server: &Path, user: &User) -> Result<(), RootfsError> {
    let file = user.file(server);
    match RealFs.remove_file(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| disk("remove", &file, source)),
    }
}

/// Returns the hash of the flist if the container uses this server.
pub(crate) fn hash_of(server: &Path, user: &User) -> Result<Option<String>, RootfsError> {
    let file = user.file(server);
    match RealFs.read(&file, MAX_USER_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(disk("read", &file, source)),
    }
}

/// Lists the users of this server; files with another name (temporary ones of a crash) are none.
pub(crate) fn list(server: &Path) -> Result<Vec<User>, RootfsError> {
    let dir = server.join(USERS_DIR);
    match RealFs.list(&dir) {
        Ok(names) => Ok(names.iter().filter_map(|name| User::parse(name.to_str()?)).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(disk("list", &dir, source)),
    }
}

pub(crate) fn disk(what: &'static str, path: &Path, source: io::Error) -> RootfsError {
    RootfsError::Disk { what, path: path.to_owned(), source }
}

/// The error of a file that could not be replaced, with the number the kernel gave.
pub(crate) fn unwritten(path: &Path, error: &DurableError) -> RootfsError {
    let source = match error.io().map(|io| (io.raw_os_error(), io.kind())) {
        Some((Some(number), _)) => io::Error::from_raw_os_error(number),
        Some((None, kind)) => kind.into(),
        None => io::Error::other(error.to_string()),
    };
    disk("write", path, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_come_and_go_and_foreign_files_are_none() {
        let server = tempfile::tempdir().unwrap();
        let user = User { namespace: NamespaceId::new("a.b-c").unwrap(), id: ContainerId::from_random([7; 16]) };
        assert_eq!(list(server.path()).unwrap(), []);
        add(server.path(), &user, "hash").unwrap();
        add(server.path(), &user, "hash").unwrap();
        std::fs::write(server.path().join("users/.tmp-1"), b"").unwrap();
        std::fs::write(server.path().join("users/no@id"), b"").unwrap();
        assert_eq!(list(server.path()).unwrap(), std::slice::from_ref(&user));
        assert_eq!(hash_of(server.path(), &user).unwrap().as_deref(), Some("hash"));
        remove(server.path(), &user).unwrap();
        remove(server.path(), &user).unwrap();
        assert_eq!(hash_of(server.path(), &user).unwrap(), None);
    }
}
