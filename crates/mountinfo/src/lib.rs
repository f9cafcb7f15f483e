//! The kernel's mount table (`/proc/self/mountinfo`, proc_pid_mountinfo(5)).
//!
//! Takes in: the text of the table. Gives out: its lines, unescaped. Never does: judge whose a mount is.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The table of the reader's own mount namespace.
pub const PATH: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's id of the mount.
    pub id: u64,
    /// `major:minor` of the file system.
    pub device: String,
    /// Which directory of the file system is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The type of the file system.
    pub fs_type: String,
    /// The source of the file system, as the mount's maker has named it.
    pub source: String,
    /// The options of the file system, unescaped.
    pub super_options: Vec<u8>,
}

/// Reads the table of our own mount namespace, in the order of the kernel.
///
/// # Errors
/// What the system says without a usable `/proc`.
pub fn read() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read(PATH)?))
}

/// Parses a table; a line of another form is no mount.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// Parses one line, as `36 35 98:0 /root /point rw,… master:1 - ext3 /dev/root rw,…`.
pub fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let path = |field| PathBuf::from(OsString::from_vec(unescape(field)));
    let text = |field| String::from_utf8_lossy(&unescape(field)).into_owned();
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = text(fields.nth(1)?);
    let (root, point) = (path(fields.next()?), path(fields.next()?));
    fields.find(|field| *field == b"-")?;
    let (fs_type, source) = (text(fields.next()?), text(fields.next()?));
    let super_options = unescape(fields.next().unwrap_or_default());
    Some(Mount { id, device, root, point, fs_type, source, super_options })
}

/// Undoes the `\ooo` of the table.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escape = tail.split_first_chunk::<3>().filter(|_| *first == b'\\');
        let byte = escape.and_then(|(digits, behind)| {
            let text = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(text, 8).ok()?, behind))
        });
        let (byte, behind) = byte.unwrap_or((*first, tail));
        plain.push(byte);
        rest = behind;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn lines_are_understood_with_spaces_and_optional_fields() {
        let table = br"36 35 0:41 /r /run/a\040b ro,nosuid shared:1 master:2 - fuse.contd contd-flistfs ro,user_id=0
30 1 0:27 / /plain rw - overlay o rw,upperdir=/u\134x

nonsense
x y z";
        let mounts = parse(table);
        let [fuse, overlay] = mounts.as_slice() else { panic!("got {mounts:?}") };
        assert_eq!((fuse.id, fuse.device.as_str(), fuse.fs_type.as_str()), (36, "0:41", "fuse.contd"));
        assert_eq!((fuse.root.as_path(), fuse.point.as_path()), (Path::new("/r"), Path::new("/run/a b")));
        assert_eq!((fuse.source.as_str(), fuse.super_options.as_slice()), ("contd-flistfs", &b"ro,user_id=0"[..]));
        assert_eq!(
            (overlay.point.as_path(), overlay.super_options.as_slice()),
            (Path::new("/plain"), &br"rw,upperdir=/u\x"[..])
        );
    }

    #[test]
    fn our_own_table_has_a_root() {
        assert!(read().expect("a usable /proc").iter().any(|mount| mount.point == Path::new("/")));
    }
}
