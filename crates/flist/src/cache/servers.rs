//! Finds the fetched flists that the servers of this node use.
//!
//! A server opens its flist at its start and closes it again, but its successor needs it. The server's flist is named in the
//! `serve.json` of its lease directory, `<run>/f/<key>/`, from before its start until the lease is retired. That file is not
//! parsed here: a flist whose hash occurs anywhere in such a file is in use.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// The most bytes read of one file: servers read no more either.
const MAX_SPEC_BYTES: u64 = 64 * 1024;

/// More servers than a node can have. If there are more, no flist is removed.
const MAX_SERVERS: usize = 1 << 14;

/// The flists in use, as far as known.
#[derive(Debug)]
pub(super) enum FlistsInUse {
    /// Unknown: no flist is removed.
    Unknown,
    /// The contents of the servers' files.
    Named(Vec<Vec<u8>>),
}

impl FlistsInUse {
    /// Reads the files of the servers below this directory. A missing directory has no servers.
    pub(super) fn read(servers: Option<&Path>) -> Self {
        let Some(servers) = servers else { return Self::Unknown };
        match specs(servers) {
            Ok(specs) => Self::Named(specs),
            Err(error) => {
                tracing::warn!(servers = %servers.display(), %error, "flists in use not known, all kept");
                Self::Unknown
            }
        }
    }

    /// Tells whether a flist of the cache, `fl/<hash>.fl`, is in use.
    pub(super) fn contain(&self, flist: &Path) -> bool {
        let Self::Named(specs) = self else { return true };
        let hash = flist.file_stem().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default();
        // A file with another name is not the cache's: keep it.
        hash.len() != 64 || specs.iter().any(|spec| spec.windows(hash.len()).any(|part| part == hash))
    }
}

fn specs(servers: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut specs = Vec::new();
    let entries = match fs::read_dir(servers) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(specs),
        other => other?,
    };
    for entry in entries {
        let file = match File::open(entry?.path().join("serve.json")) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            other => other?,
        };
        if specs.len() == MAX_SERVERS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let mut spec = Vec::new();
        file.take(MAX_SPEC_BYTES).read_to_end(&mut spec)?;
        specs.push(spec);
    }
    Ok(specs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flist_is_in_use_while_a_servers_file_names_it_and_all_are_when_nobody_can_tell() {
        let run = tempfile::tempdir().unwrap();
        let servers = run.path().join("f");
        let flist = |digit: &str| Path::new("fl").join(format!("{}.fl", digit.repeat(64)));
        assert!(FlistsInUse::read(None).contain(&flist("a")));
        assert!(!FlistsInUse::read(Some(&servers)).contain(&flist("a")), "no server was ever started");
        fs::create_dir_all(servers.join("0123456789abcdef")).unwrap();
        fs::write(servers.join("a file"), "").unwrap();
        let spec = format!("{{\"hash\":\"{}\"}}", "a".repeat(64));
        fs::write(servers.join("0123456789abcdef/serve.json"), spec).unwrap();
        let in_use = FlistsInUse::read(Some(&servers));
        assert!(in_use.contain(&flist("a")) && !in_use.contain(&flist("b")));
        assert!(in_use.contain(Path::new("fl/mine.fl")));
        fs::create_dir_all(servers.join("fedcba9876543210/serve.json")).unwrap();
        assert!(FlistsInUse::read(Some(&servers)).contain(&flist("b")), "one cannot be read");
    }
}
