//! Looks up the container's user in its own `/etc/passwd` and `/etc/group`.
//!
//! A text of digits is always an id, even when the passwd file has a user of that name: otherwise a flist could turn
//! the `1000` that a caller asked for into root.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Read};
use std::iter;
use std::path::Path;

use contd_types::UserSpec;

use crate::error::BundleError;
use crate::root_file::{RootFileError, open_in_root};

/// The home of a user without one, as in podman.
const NO_HOME: &str = "/";
/// The most supplementary groups a process can have (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;
/// The id that means "leave unchanged" to the kernel; no user can have it.
const INVALID_ID: u32 = u32::MAX;
/// How many bytes of a passwd or group file are read: 30,000 accounts take 3 MB, and a hostile file may have no end.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// The most bytes of one line that are kept: a group of 50,000 members. Longer lines are skipped.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// A user as the kernel and the environment know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups, beginning with the primary one: without it a program that drops its primary group would
    /// regain access to files that deny that group.
    pub groups: Vec<u32>,
    /// Its home directory.
    pub home: String,
}

/// Looks up a user; `None` is uid 0.
///
/// The gid is the named group, else that of the passwd entry, else 0. Supplementary groups are those of `/etc/group`
/// that list the user, unless a group was named: then only that one, as with docker. A user given by number needs no
/// file, and is not refused because of an odd one.
///
/// # Errors
/// [`BundleError::UnknownUser`], [`BundleError::UnknownGroup`], or a file that cannot be read.
pub fn look_up(root: &Path, user: Option<&UserSpec>) -> Result<Identity, BundleError> {
    let shown = user.map_or_else(|| "0".to_owned(), ToString::to_string);
    let failed = |source| BundleError::UserFile { user: shown.clone(), source };
    let (user_part, group_part) = user.map_or(("0", None), |user| (user.user(), user.group()));

    let by_number = number(user_part);
    let entry = needed(by_number.is_none(), passwd_entry(root, user_part, by_number)).map_err(failed)?;
    let uid = match (&entry, by_number) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(BundleError::UnknownUser { user: user_part.to_owned() }),
    };
    let gid = match group_part {
        None => entry.as_ref().map_or(0, |entry| entry.gid),
        Some(text) => match number(text) {
            Some(gid) => gid,
            None => group_of_name(root, text)
                .map_err(failed)?
                .ok_or_else(|| BundleError::UnknownGroup { group: text.to_owned() })?,
        },
    };
    let others = match (&entry, group_part) {
        (Some(entry), None) => {
            needed(by_number.is_none(), groups_of(root, &entry.name).map(Some)).map_err(failed)?.unwrap_or_default()
        }
        _ => BTreeSet::new(),
    };
    let groups = iter::once(gid).chain(others.into_iter().filter(|other| *other != gid)).take(MAX_GROUPS).collect();
    let home = entry.map(|entry| entry.home).filter(|home| home.starts_with('/'));
    Ok(Identity { uid, gid, groups, home: home.unwrap_or_else(|| NO_HOME.to_owned()) })
}

/// Adds groups, each a name in the root's `/etc/group` or a number.
///
/// # Errors
/// [`BundleError::UnknownGroup`], or a file that cannot be read.
pub(crate) fn add_groups(root: &Path, identity: &mut Identity, groups: &[String]) -> Result<(), BundleError> {
    for group in groups {
        let failed = |source| BundleError::UserFile { user: format!("0:{group}"), source };
        let gid = match number(group) {
            Some(gid) => gid,
            None => group_of_name(root, group)
                .map_err(failed)?
                .ok_or_else(|| BundleError::UnknownGroup { group: group.clone() })?,
        };
        if !identity.groups.contains(&gid) && identity.groups.len() < MAX_GROUPS {
            identity.groups.push(gid);
        }
    }
    Ok(())
}

/// Ignores an invalid file if its content is not needed. A read error that may pass is always returned.
fn needed<T>(is_needed: bool, found: Result<Option<T>, RootFileError>) -> Result<Option<T>, RootFileError> {
    match found {
        Err(RootFileError::Follow { .. } | RootFileError::NotRegular { .. } | RootFileError::TooLarge { .. })
            if !is_needed =>
        {
            Ok(None)
        }
        found => found,
    }
}

#[derive(Debug)]
struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl PasswdEntry {
    /// Parses `name:password:uid:gid:comment:home:shell`; other lines are skipped, as by libc.
    fn read(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("");
        Some(Self { name: name.to_owned(), uid, gid, home: home.to_owned() })
    }
}

fn passwd_entry(root: &Path, name: &str, uid: Option<u32>) -> Result<Option<PasswdEntry>, RootFileError> {
    find_line(root, "/etc/passwd", |line| {
        PasswdEntry::read(line).filter(|entry| uid.map_or(entry.name == name, |uid| entry.uid == uid))
    })
}

/// Parses `name:password:gid:member,member` into name, gid and members.
fn group_entry(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let gid = number(fields.nth(1)?)?;
    Some((name, gid, fields.next().unwrap_or("")))
}

fn group_of_name(root: &Path, name: &str) -> Result<Option<u32>, RootFileError> {
    find_line(root, "/etc/group", |line| {
        group_entry(line).filter(|(known, _, _)| *known == name).map(|(_, gid, _)| gid)
    })
}

fn groups_of(root: &Path, name: &str) -> Result<BTreeSet<u32>, RootFileError> {
    let mut found = BTreeSet::new();
    let _every_line_is_looked_at: Option<Infallible> = find_line(root, "/etc/group", |line| {
        if let Some((_, gid, members)) = group_entry(line)
            && members.split(',').any(|member| member == name)
        {
            found.insert(gid);
        }
        None
    })?;
    Ok(found)
}

/// Returns the first result that `find` gives for a line. Lines that are not UTF-8 or have a NUL are skipped: the text
/// after a NUL would be cut off in an environment.
fn find_line<T>(root: &Path, path: &str, mut find: impl FnMut(&str) -> Option<T>) -> Result<Option<T>, RootFileError> {
    let path = Path::new(path);
    let Some(file) = open_in_root(root, path)? else { return Ok(None) };
    let failed = |source| RootFileError::Read { path: path.to_owned(), source };
    let mut reader = BufReader::new(file.take(MAX_FILE_BYTES));
    let mut line = Vec::new();
    while next_line(&mut reader, &mut line).map_err(failed)? {
        let text = std::str::from_utf8(&line).ok().filter(|text| !text.contains('\0'));
        if let Some(found) = text.and_then(&mut find) {
            return Ok(Some(found));
        }
    }
    match reader.into_inner().limit() {
        0 => Err(RootFileError::TooLarge { path: path.to_owned(), max_bytes: MAX_FILE_BYTES }),
        _ => Ok(None),
    }
}

/// Reads the next line, without its end; a line that is too long is returned empty. `false` at the end of the file.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    let mut is_long = false;
    loop {
        line.clear();
        let count = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', line)?;
        let is_whole = line.last() == Some(&b'\n') || u64::try_from(count).is_ok_and(|count| count < MAX_LINE_BYTES);
        if !is_whole {
            is_long = true;
            continue;
        }
        if count == 0 && !is_long {
            return Ok(false);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if is_long {
            line.clear();
        }
        return Ok(true);
    }
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
    fn a_site_with_many_accounts_is_looked_through_to_its_end() {
        let root = root();
        let mut passwd = PASSWD.to_owned();
        let mut group = GROUP.to_owned();
        for number in 1..40_000 {
            passwd += &format!(
                "account{number}:x:1{number}:1{number}:A user with a long name,,,:/home/account{number}:/bin/sh\n"
            );
        }
        passwd += "last:x:77:78::/home/last:/bin/sh";
        group += &format!("long:x:500:{}\nmany:x:501:{},last\n", "x".repeat(3 << 20), "member,".repeat(100_000));
        group += "end:x:502:last";
        std::fs::write(root.path().join("etc/passwd"), passwd).expect("passwd");
        std::fs::write(root.path().join("etc/group"), group).expect("group");
        let user = UserSpec::new("last").expect("valid");
        let identity = look_up(root.path(), Some(&user)).expect("last");
        assert_eq!(identity, Identity { uid: 77, gid: 78, groups: vec![78, 501, 502], home: "/home/last".into() });
        let absent = look_up(root.path(), Some(&UserSpec::new("absent").expect("valid")));
        assert!(matches!(absent, Err(BundleError::UnknownUser { .. })), "got {absent:?}");
    }

    #[test]
    fn who_is_given_by_number_is_not_refused_because_of_a_file() {
        for make in [
            (|path: &Path| std::fs::create_dir(path).expect("directory")) as fn(&Path),
            |path| std::os::unix::fs::symlink("passwd", path).expect("loop"),
            |path| std::fs::File::create(path).and_then(|file| file.set_len(1 << 40)).expect("endless"),
        ] {
            let root = root();
            for name in ["etc/passwd", "etc/group"] {
                std::fs::remove_file(root.path().join(name)).expect("remove");
                make(&root.path().join(name));
            }
            assert_eq!(look_up(root.path(), None).expect("root").home, "/");
            for user in ["5", "5:6"] {
                let found = look_up(root.path(), Some(&UserSpec::new(user).expect("valid")));
                assert_eq!(found.expect(user).uid, 5);
            }
            for user in ["web", "5:web"] {
                let refused = look_up(root.path(), Some(&UserSpec::new(user).expect("valid")));
                assert!(matches!(refused, Err(BundleError::UserFile { .. })), "{user}: {refused:?}");
            }
        }
    }

    #[test]
    fn a_home_that_is_no_path_is_not_used() {
        assert_eq!(found("odd").home, "/");
    }
}
