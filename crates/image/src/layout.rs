//! Opens the parts of an image, in a directory or in a tar.
//!
//! Paths come from the image. In a directory the kernel keeps a lookup below it and refuses links (`openat2`); in a tar a
//! path is only looked up in the list of members.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::ImportError;
use crate::members::{MemberKind, Members, Source, TarError};
use crate::path::components;
use crate::unsupported;
use contd_flist::regular::{self, Opened};

/// The most members of an archive: a large registry export has some thousands, most images a few dozen.
const MAX_MEMBERS: usize = 100_000;

/// The most bytes of all their names.
const MAX_NAMES_BYTES: usize = 16 * 1024 * 1024;

/// The most links followed to one part: `docker save` stores a layer that occurs twice as a link to the first.
const MAX_LINKS: usize = 8;

/// The most bytes of an index, manifest or configuration: the limit of registries.
pub(super) const MAX_DOCUMENT_BYTES: u64 = 4 * 1024 * 1024;

/// An opened image.
#[derive(Debug)]
pub(super) enum Layout {
    /// A directory.
    Folder(File),
    /// A tar with the positions of its members.
    Archive { file: Arc<File>, members: HashMap<String, Found> },
}

/// The content of one archive member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Part { offset: u64, len: u64 },
    Link(String),
}

/// One part of the image: a range of bytes of a file.
#[derive(Debug, Clone)]
pub(super) struct Part {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Part {
    /// Returns the number of unread bytes.
    pub(super) fn len(&self) -> u64 {
        self.end.saturating_sub(self.position)
    }
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.len()).unwrap_or(usize::MAX).min(buf.len());
        let read = self.file.read_at(buf.get_mut(..want).unwrap_or_default(), self.position)?;
        self.position = self.position.saturating_add(read as u64);
        Ok(read)
    }
}

impl Source for Part {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > self.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position = self.position.saturating_add(bytes);
        Ok(())
    }
}

impl Layout {
    /// Opens a directory or a tar.
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Open { path: path.to_owned(), source };
        let file = match regular::open(path).map_err(failed)? {
            Opened::File(file) => file,
            Opened::Directory(folder) => return Ok(Self::Folder(folder)),
            Opened::Other(_) => return Err(ImportError::NotAnImage { path: path.to_owned() }),
        };
        let metadata = file.metadata().map_err(failed)?;
        let file = Arc::new(file);
        let whole = Part { file: Arc::clone(&file), position: 0, end: metadata.len() };
        match list(whole) {
            Ok(members) if members.is_empty() => Err(ImportError::NotAnImage { path: path.to_owned() }),
            Ok(members) => Ok(Self::Archive { file, members }),
            // The first header is invalid, so the file is not a tar.
            Err(ImportError::Archive { at, .. }) if at <= 512 => Err(unsupported::of_file(path, &file)),
            Err(error) => Err(error),
        }
    }

    /// Tells whether an entry of any kind has this path.
    pub(super) fn has(&self, path: &str) -> bool {
        match self {
            Self::Folder(folder) => openat2(folder.as_fd(), path, beneath(OFlag::O_PATH)).is_ok(),
            Self::Archive { members, .. } => members.contains_key(path),
        }
    }

    /// Tells whether the top level has a folder of this name; in an archive it must hold an entry.
    pub(super) fn has_folder(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => openat2(folder.as_fd(), name, beneath(OFlag::O_PATH | OFlag::O_DIRECTORY)).is_ok(),
            Self::Archive { members, .. } => {
                members.keys().any(|path| path.split_once('/').is_some_and(|(first, _)| first == name))
            }
        }
    }

    /// Opens a part by its path; `None` if it does not exist.
    pub(super) fn part(&self, path: &str) -> Result<Option<Part>, ImportError> {
        match self {
            Self::Folder(folder) => part_of_folder(folder, path),
            Self::Archive { file, members } => {
                let part = find(members, path);
                Ok(part.map(|(offset, len)| Part {
                    file: Arc::clone(file),
                    position: offset,
                    end: offset.saturating_add(len),
                }))
            }
        }
    }

    /// Opens a part; a missing one is an error.
    pub(super) fn must_have(&self, path: &str) -> Result<Part, ImportError> {
        self.part(path)?.ok_or_else(|| ImportError::Missing { what: path.to_owned() })
    }

    /// Reads a document of at most [`MAX_DOCUMENT_BYTES`]; `None` if it does not exist.
    pub(super) fn document(&self, path: &str) -> Result<Option<Vec<u8>>, ImportError> {
        let Some(part) = self.part(path)? else { return Ok(None) };
        if part.len() > MAX_DOCUMENT_BYTES {
            return Err(ImportError::TooLarge { what: path.to_owned(), limit: MAX_DOCUMENT_BYTES, unit: "bytes" });
        }
        let mut bytes = Vec::new();
        let read = part.take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes);
        read.map_err(|source| ImportError::Read { what: path.to_owned(), source })?;
        Ok(Some(bytes))
    }
}

fn part_of_folder(folder: &File, path: &str) -> Result<Option<Part>, ImportError> {
    let failed = |source| ImportError::Read { what: path.to_owned(), source };
    // Check the kind before opening for reading: opening a device can have an effect.
    let found = match openat2(folder.as_fd(), path, beneath(OFlag::O_PATH)) {
        Ok(descriptor) => File::from(descriptor),
        Err(nix::errno::Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(failed(errno.into())),
    };
    let file = match regular::reopen(&found).map_err(failed)? {
        Some(file) => file,
        None => return Err(ImportError::Malformed { what: path.to_owned(), reason: "it is not a file" }),
    };
    let metadata = file.metadata().map_err(failed)?;
    Ok(Some(Part { file: Arc::new(file), position: 0, end: metadata.len() }))
}

/// Makes `openat2` keep a path below its directory and refuse links.
fn beneath(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// Lists the members of a tar without reading their content. The later of two members with one path counts, as for `tar -x`.
fn list(tar: Part) -> Result<HashMap<String, Found>, ImportError> {
    let end = tar.end;
    let (mut members, mut found) = (Members::new(tar), HashMap::new());
    let (mut count, mut names_bytes) = (0_usize, 0_usize);
    while let Some(member) = members.next().map_err(damaged)? {
        count += 1;
        names_bytes = names_bytes.saturating_add(member.path.len()).saturating_add(member.link.len());
        if count > MAX_MEMBERS || names_bytes > MAX_NAMES_BYTES {
            let what = "the list of the archive".to_owned();
            return Err(ImportError::TooLarge { what, limit: MAX_MEMBERS as u64, unit: "members, or 16 MiB of names" });
        }
        let Some(path) = normal(&member.path) else { continue };
        let what = match member.kind {
            MemberKind::File => {
                let is_there = member.position.checked_add(member.size).is_some_and(|last| last <= end);
                if member.pieces.is_some() || !is_there {
                    let reason = "a member is sparse, or goes on behind the end of the archive";
                    return Err(ImportError::Archive { at: member.position, reason });
                }
                Found::Part { offset: member.position, len: member.size }
            }
            MemberKind::HardLink => match normal(&member.link) {
                Some(target) => Found::Link(target),
                None => continue,
            },
            MemberKind::Symlink => match link_target(&path, &member.link) {
                Some(target) => Found::Link(target),
                None => continue,
            },
            _ => continue,
        };
        found.insert(path, what);
    }
    Ok(found)
}

fn damaged(error: TarError) -> ImportError {
    match error {
        TarError::Read { at, source } if source.kind() == io::ErrorKind::UnexpectedEof => {
            ImportError::Archive { at, reason: "it ends in the middle of a member" }
        }
        TarError::Read { source, .. } => ImportError::Read { what: "the archive".to_owned(), source },
        TarError::Format { at, reason } => ImportError::Archive { at, reason },
    }
}

/// Normalizes a path to the form that the image's documents use; `None` for one that no document can contain.
fn normal(path: &[u8]) -> Option<String> {
    let names = components(path).ok()?;
    String::from_utf8(names.join(&b'/')).ok()
}

/// Resolves the target of a symbolic link at `path`; `None` if it is outside of the archive.
fn link_target(path: &str, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok().filter(|target| !target.starts_with('/'))?;
    let mut names = path.split('/').collect::<Vec<_>>();
    names.pop();
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

fn find(members: &HashMap<String, Found>, path: &str) -> Option<(u64, u64)> {
    let mut path = path;
    for _ in 0..MAX_LINKS {
        match members.get(path)? {
            Found::Part { offset, len } => return Some((*offset, *len)),
            Found::Link(target) => path = target,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_an_archive_lead_to_its_members_or_nowhere() {
        assert_eq!(link_target("a/layer.tar", b"../b/layer.tar").as_deref(), Some("b/layer.tar"));
        assert_eq!(link_target("a/layer.tar", b"other"), Some("a/other".to_owned()));
        assert_eq!(link_target("a/layer.tar", b"../../etc/passwd"), None);
        assert_eq!(link_target("a/layer.tar", b"/etc/passwd"), None);
        let link = |target: &str| Found::Link(target.to_owned());
        let part = Found::Part { offset: 512, len: 3 };
        let members = [("a", link("b")), ("b", link("c")), ("c", part), ("x", link("y")), ("y", link("x"))];
        let members = members.into_iter().map(|(path, found)| (path.to_owned(), found)).collect();
        assert_eq!(find(&members, "a"), Some((512, 3)));
        assert_eq!(find(&members, "x"), None);
        assert_eq!(find(&members, "none"), None);
    }

    #[test]
    fn a_part_of_a_directory_is_below_it_and_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("image");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(folder.path().join("outside"), "secret").unwrap();
        std::fs::write(inside.join("file"), "123").unwrap();
        std::os::unix::fs::symlink("file", inside.join("link")).unwrap();
        nix::unistd::mkfifo(&inside.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let layout = Layout::open(&inside).unwrap();
        assert_eq!(layout.document("file").unwrap().as_deref(), Some(&b"123"[..]));
        assert!(layout.document("none").unwrap().is_none());
        for bad in ["../outside", "/etc/passwd", "link", "fifo", "."] {
            assert!(layout.document(bad).is_err(), "{bad}");
        }
    }
}
