//! Who a container runs as, looked up in its own `/etc/passwd` and `/etc/group`.
//!
//! A text of digits is always a number, even when a passwd file has a user of that name: otherwise an flist could turn
//! the `1000` that a caller asked for into root.

use std::collections::BTreeSet;
use std::iter;
use std::path::Path;

use contd_types::UserSpec;

use crate::error::BundleError;
use crate::root_file::{MAX_USER_FILE_BYTES, read_in_root};

/// Where a user lives who has no home, as podman has it.
const NO_HOME: &str = "/";
/// The most supplementary groups a process can have (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;
/// The id that the kernel takes as "leave unchanged" and that nobody can have.
const INVALID_ID: u32 = u32::MAX;

/// A user as the kernel and the environment know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one included and first: without it a program that drops its primary group
    /// would slip out of files that deny that group.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Looks up a user; `None` is uid 0.
///
/// The gid is the named group, else that of the passwd entry, else 0. Supplementary groups are those of `/etc/group`
/// that list the user, unless a group was named: then only that one, as docker does it.
pub(crate) fn look_up(root: &Path, user: Option<&UserSpec>) -> Result<Identity, BundleError> {
    let shown = user.map_or_else(|| "0".to_owned(), ToString::to_string);
    let read = |path: &str| {
        read_in_root(root, Path::new(path), MAX_USER_FILE_BYTES)
            .map(Option::unwrap_or_default)
            .map_err(|source| BundleError::UserFile { user: shown.clone(), source })
    };
    let (user_part, group_part) = user.map_or(("0", None), |user| (user.user(), user.group()));
    let passwd = read("/etc/passwd")?;
    let group = read("/etc/group")?;

    let entry = match number(user_part) {
        Some(uid) => passwd_entries(&passwd).find(|entry| entry.uid == uid),
        None => passwd_entries(&passwd).find(|entry| entry.name == user_part),
    };
    let uid = match (&entry, number(user_part)) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(BundleError::UnknownUser { user: user_part.to_owned() }),
    };
    let gid = match group_part {
        None => entry.as_ref().map_or(0, |entry| entry.gid),
        Some(text) => number(text)
            .or_else(|| group_entries(&group).find(|entry| entry.name == text).map(|entry| entry.gid))
            .ok_or_else(|| BundleError::UnknownGroup { group: text.to_owned() })?,
    };
    let others = match (&entry, group_part) {
        (Some(entry), None) => {
            group_entries(&group).filter(|group| group.has_member(entry.name)).map(|group| group.gid).collect()
        }
        _ => BTreeSet::new(),
    };
    let groups = iter::once(gid).chain(others.into_iter().filter(|other| *other != gid)).take(MAX_GROUPS).collect();
    let home = entry.map_or(NO_HOME, |entry| if entry.home.starts_with('/') { entry.home } else { NO_HOME });
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl GroupEntry<'_> {
    fn has_member(&self, name: &str) -> bool {
        self.members.split(',').any(|member| member == name)
    }
}

/// Reads `name:password:uid:gid:comment:home:shell`; lines that are not that are passed over, as libc does.
fn passwd_entries(bytes: &[u8]) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(bytes).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("");
        Some(PasswdEntry { name, uid, gid, home })
    })
}

/// Reads `name:password:gid:member,member`.
fn group_entries(bytes: &[u8]) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(bytes).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = number(fields.nth(1)?)?;
        let members = fields.next().unwrap_or("");
        Some(GroupEntry { name, gid, members })
    })
}

/// Splits into lines that are text without a NUL: what follows one would not survive in an environment.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter(|line| !line.contains('\0'))
}

/// Parses an id that a process can have: digits only, no sign.
fn number(text: &str) -> Option<u32> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_digits { text.parse().ok().filter(|id| *id != INVALID_ID) } else { None }
}
