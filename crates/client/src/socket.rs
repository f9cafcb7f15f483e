//! Why a socket cannot be opened by this user, as far as its file says.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Reading and writing, as a caller needs both.
const OF_GROUP: u32 = 0o060;

/// Says whose the socket is and what lets a user open it.
pub(crate) fn who_may_open(path: &Path) -> String {
    let Ok(found) = fs::metadata(path) else {
        return format!(
            "a directory above {} cannot be entered by this user: use sudo, or ask the operator",
            path.display()
        );
    };
    let (gid, mode) = (found.gid(), found.mode() & 0o777);
    if mode & OF_GROUP != OF_GROUP {
        return format!(
            "only its owner may open it (mode {mode:04o}): use sudo, or ask the operator for `[api] group` and mode"
        );
    }
    if gid == 0 {
        return "it belongs to root alone: use sudo, or ask the operator for `[api] group` in contd's configuration"
            .to_owned();
    }
    let group = fs::read_to_string("/etc/group").ok().and_then(|text| name_of(&text, gid));
    let group = group.unwrap_or_else(|| format!("of gid {gid}"));
    format!("it is open to group {group}: have yourself added to it (`usermod -aG`) and log in again, or use sudo")
}

/// Finds the name of a group in a file as group(5).
fn name_of(text: &str, gid: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_number() {
        let text = "root:x:0:\nbroken\nops:x:61007:alice,bob\n";
        assert_eq!(name_of(text, 61_007).as_deref(), Some("ops"));
        assert_eq!(name_of(text, 1), None);
    }

    #[test]
    fn what_keeps_a_user_out_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temp");
        let path = dir.path().join("sock");
        assert!(who_may_open(&path).contains("directory above"));
        fs::write(&path, "").expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
        assert!(who_may_open(&path).contains("0600"));
    }
}
