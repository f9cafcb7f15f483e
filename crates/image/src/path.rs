//! Checks the paths in layers, and recognizes whiteouts.

/// The longest path of an entry (`PATH_MAX`).
const MAX_PATH_BYTES: usize = 4096;

/// The longest component (`NAME_MAX`).
const MAX_NAME_BYTES: usize = 255;

/// The deepest directory. Trees are traversed and dropped recursively; the deepest of real images has some 40.
pub(super) const MAX_DEPTH: usize = 512;

/// The most links followed for one path (`MAXSYMLINKS` of the kernel).
pub(super) const MAX_LINKS: u32 = 40;

/// The prefix of whiteouts: names by which a layer hides entries of lower layers.
const WHITEOUT: &[u8] = b".wh.";

/// The name of an opaque whiteout, which hides all entries of its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The prefix of AUFS's own files; they occur in old layers and are ignored.
const AUFS: &[u8] = b".wh..wh.";

/// The reason why an entry cannot be added to the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The path contains `..` and could leave the tree.
    #[error("a path may not hold '..'")]
    DotDot,
    /// The path contains a NUL, which no file name can.
    #[error("a path may not hold a NUL")]
    Nul,
    /// The path or one of its names is too long.
    #[error("a path has at most {MAX_PATH_BYTES} bytes, and a name {MAX_NAME_BYTES}")]
    TooLong,
    /// Directories are nested too deeply.
    #[error("a directory is at most {MAX_DEPTH} deep")]
    TooDeep,
    /// The directories of the path lead through too many links, probably a loop.
    #[error("more than {MAX_LINKS} links on the way to it")]
    TooManyLinks,
    /// The paths need too many lookups; the image was made to be slow.
    #[error("the paths of the image lead through too many links and directories")]
    TooManySteps,
    /// Too many entries.
    #[error("the image has more than {limit} entries")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The root can only be a directory.
    #[error("the root is a directory")]
    RootNotDirectory,
    /// The target of a hard link does not exist, or not yet.
    #[error("the target of the hard link does not exist")]
    NoLinkTarget,
    /// A hard link to a directory.
    #[error("a hard link cannot point to a directory")]
    LinkToDirectory,
    /// The target of a symbolic link is empty, too long or contains a NUL.
    #[error("a symbolic link points to 1 to 4095 bytes without NUL")]
    BadTarget,
    /// A whiteout has no valid name to hide.
    #[error("a whiteout names no entry")]
    BadWhiteout,
    /// The uid or gid has more than 32 bits.
    #[error("a uid or gid is less than 2^32")]
    BadOwner,
    /// The major or minor number is larger than the kernel's.
    #[error("a device has a major number below 2^12 and a minor one below 2^20")]
    BadDevice,
    /// The type of the entry is unknown.
    #[error("it is of an unknown type")]
    UnknownType,
}

/// Splits a path into components. A leading `/` and `.` are dropped: all paths start at the root of the image.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    if path.len() > MAX_PATH_BYTES {
        return Err(Fault::TooLong);
    }
    if path.contains(&0) {
        return Err(Fault::Nul);
    }
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect::<Vec<_>>();
    match names.iter().find(|name| **name == b".." || name.len() > MAX_NAME_BYTES) {
        Some(name) if *name == b".." => Err(Fault::DotDot),
        Some(_) => Err(Fault::TooLong),
        None => Ok(names),
    }
}

/// The meaning of an entry's path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// A normal entry.
    Entry(Vec<&'a [u8]>),
    /// Hides the lower layers' entry of that name in that directory.
    Whiteout(Vec<&'a [u8]>, &'a [u8]),
    /// Hides all entries of the lower layers in that directory.
    Opaque(Vec<&'a [u8]>),
    /// A file of AUFS.
    Ignored,
}

/// Interprets the path of an entry.
pub(super) fn meaning(path: &[u8]) -> Result<Meaning<'_>, Fault> {
    let mut names = components(path)?;
    if names.last().is_some_and(|name| *name == OPAQUE) {
        names.pop();
        // Inside a whiteout it is refused, and inside a directory of AUFS ignored, as any other entry.
        return match meaning_of_folder(&names)? {
            true => Ok(Meaning::Opaque(names)),
            false => Ok(Meaning::Ignored),
        };
    }
    if names.iter().any(|name| name.starts_with(AUFS)) {
        return Ok(Meaning::Ignored);
    }
    match names.pop() {
        None => Ok(Meaning::Entry(names)),
        Some(name) => {
            meaning_of_folder(&names)?;
            match name.strip_prefix(WHITEOUT) {
                Some(b"" | b"." | b"..") => Err(Fault::BadWhiteout),
                Some(hidden) => Ok(Meaning::Whiteout(names, hidden)),
                None => {
                    names.push(name);
                    Ok(Meaning::Entry(names))
                }
            }
        }
    }
}

/// Refuses entries inside a whiteout; returns `false` for entries inside a directory of AUFS.
fn meaning_of_folder(names: &[&[u8]]) -> Result<bool, Fault> {
    if names.iter().any(|name| name.starts_with(AUFS)) {
        return Ok(false);
    }
    if names.iter().any(|name| name.starts_with(WHITEOUT)) { Err(Fault::BadWhiteout) } else { Ok(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_from_the_root_of_the_image_and_stays_in_it() {
        for same in ["etc/x", "/etc/x", "./etc/x", "//etc/./x/", "/./etc//x"] {
            assert_eq!(components(same.as_bytes()), Ok(vec![&b"etc"[..], b"x"]), "{same}");
        }
        assert_eq!(components(b"./"), Ok(vec![]));
        for bad in ["..", "a/..", "../a", "/../a", "a/../../b"] {
            assert_eq!(components(bad.as_bytes()), Err(Fault::DotDot), "{bad}");
        }
        assert_eq!(components(b"a\0b"), Err(Fault::Nul));
        assert_eq!(components(&[b'a'; 256]), Err(Fault::TooLong));
        assert_eq!(components(&b"a/".repeat(2049)), Err(Fault::TooLong));
        assert_eq!(components(&[b'a'; 255]).map(|names| names.len()), Ok(1));
    }

    #[test]
    fn names_that_hide_others_are_understood() {
        let etc = || vec![&b"etc"[..]];
        assert_eq!(meaning(b"etc/.wh.passwd"), Ok(Meaning::Whiteout(etc(), b"passwd")));
        assert_eq!(meaning(b"etc/.wh..hidden"), Ok(Meaning::Whiteout(etc(), b".hidden")));
        assert_eq!(meaning(b"etc/.wh..wh..opq"), Ok(Meaning::Opaque(etc())));
        assert_eq!(meaning(b".wh..wh..opq"), Ok(Meaning::Opaque(vec![])));
        assert_eq!(meaning(b"etc/wh.x"), Ok(Meaning::Entry(vec![b"etc", b"wh.x"])));
        for ignored in [".wh..wh.plnk", ".wh..wh.plnk/x", ".wh..wh.plnk/.wh..wh..opq", ".wh..wh.aufs"] {
            assert_eq!(meaning(ignored.as_bytes()), Ok(Meaning::Ignored), "{ignored}");
        }
        for bad in [".wh.", ".wh..", ".wh...", "a/.wh.", ".wh.a/b", ".wh.a/.wh.b", ".wh.a/.wh..wh..opq"] {
            assert_eq!(meaning(bad.as_bytes()), Err(Fault::BadWhiteout), "{bad}");
        }
    }
}
