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

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:1000:1001:Web:/srv/web:/bin/sh\n\
                          1234:x:0:0:digits:/evil:/bin/sh\nodd:x:12:13::relative:\nmax:x:4294967295:0::/:\n";
    const GROUP: &str =
        "root:x:0:root\nwheel:x:10:root,web\nwww:x:1001:web\nlog:x:20:web,other\nnone:x:30:\n7:x:0:web\n";

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(root.path().join("etc")).expect("etc");
        std::fs::write(root.path().join("etc/passwd"), PASSWD).expect("passwd");
        std::fs::write(root.path().join("etc/group"), GROUP).expect("group");
        root
    }

    #[track_caller]
    fn found(user: &str) -> Identity {
        look_up(root().path(), Some(&UserSpec::new(user).expect("valid"))).expect(user)
    }

    #[test]
    fn a_named_user_has_the_ids_home_and_groups_of_its_root() {
        let groups = vec![1001, 0, 10, 20];
        assert_eq!(found("web"), Identity { uid: 1000, gid: 1001, groups, home: "/srv/web".into() });
        assert_eq!(found("web"), found("1000"));
    }

    #[test]
    fn nobody_named_means_root_with_roots_groups() {
        let identity = look_up(root().path(), None).expect("root");
        assert_eq!(identity, Identity { uid: 0, gid: 0, groups: vec![0, 10], home: "/root".into() });
    }

    #[test]
    fn a_named_group_is_the_only_one() {
        assert_eq!(found("web:log").groups, [20]);
        assert_eq!((found("web:77").gid, found("web:77").groups), (77, vec![77]));
    }

    #[test]
    fn digits_are_always_a_number_whatever_the_files_say() {
        let identity = found("1234");
        assert_eq!((identity.uid, identity.gid, identity.home.as_str()), (1234, 0, "/"));
        assert_eq!(found("web:7").gid, 7);
    }

    #[test]
    fn a_root_without_files_knows_numbers_only() {
        let empty = tempfile::tempdir().expect("tempdir");
        let user = |text: &str| UserSpec::new(text).expect("valid");
        let identity = look_up(empty.path(), Some(&user("5:6"))).expect("numbers");
        assert_eq!(identity, Identity { uid: 5, gid: 6, groups: vec![6], home: "/".into() });
        let unknown = look_up(empty.path(), Some(&user("web")));
        assert!(matches!(unknown, Err(BundleError::UnknownUser { .. })), "got {unknown:?}");
        let unknown = look_up(empty.path(), Some(&user("5:web")));
        assert!(matches!(unknown, Err(BundleError::UnknownGroup { .. })), "got {unknown:?}");
    }

    #[test]
    fn the_id_that_means_unchanged_is_nobodys() {
        for user in ["max", "4294967295", "99999999999"] {
            let refused = look_up(root().path(), Some(&UserSpec::new(user).expect("valid")));
            assert!(matches!(refused, Err(BundleError::UnknownUser { .. })), "{user}: {refused:?}");
        }
    }

    #[test]
    fn a_home_that_is_no_path_is_not_used() {
        assert_eq!(found("odd").home, "/");
    }
}
