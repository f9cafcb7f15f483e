//! The home directory that the container's own `/etc/passwd` gives a user.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// The most of the file that is read: an image may bring any.
const MAX_PASSWD_BYTES: u64 = 1024 * 1024;
/// As `runc` has it for a user without an entry.
const NO_HOME: &str = "/";

/// Returns the home of a user; `/` when nothing is known of it. Only legal inside the container's root.
pub(super) fn home_of(uid: u32) -> String {
    // A FIFO or a device in its place must not make init wait.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open("/etc/passwd");
    let regular = file.ok().filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()));
    let mut bytes = Vec::new();
    let is_read = regular.is_some_and(|file| file.take(MAX_PASSWD_BYTES).read_to_end(&mut bytes).is_ok());
    let text = if is_read { String::from_utf8_lossy(&bytes) } else { "".into() };
    home_in(&text, uid).unwrap_or_else(|| NO_HOME.to_owned())
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_name, _password, found, _gid, _comment, home, ..] = fields.as_slice() else { return None };
        (found.parse() == Ok(uid) && !home.is_empty()).then(|| (*home).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_that_of_the_first_line_with_the_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\na:x:7:7::/home/a:\nb:x:7:7::/home/b:\nc:x:8:8:::\n";
        assert_eq!(home_in(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home_in(passwd, 7).as_deref(), Some("/home/a"));
        assert_eq!((home_in(passwd, 8), home_in(passwd, 9)), (None, None));
    }
}
