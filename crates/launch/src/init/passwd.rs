//! Finds a user's home directory in the container's own `/etc/passwd`.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;

/// The most bytes of the file that are read, line by line: an image may bring any file, and a site may have 30,000
/// accounts.
const MAX_PASSWD_BYTES: u64 = 64 * 1024 * 1024;
/// The most bytes of a line that are kept; a longer line is skipped.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// The home of a user without an entry, as with `runc`.
const NO_HOME: &str = "/";

/// Returns the home of a user; `/` when it has no entry. Only legal inside the container's root.
pub(super) fn home_of(uid: u32) -> String {
    // Open without blocking: the file could be a FIFO or a device.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open("/etc/passwd");
    let regular = file.ok().filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()));
    let found = regular.and_then(|file| home_in(BufReader::new(file.take(MAX_PASSWD_BYTES)), uid).ok().flatten());
    found.unwrap_or_else(|| NO_HOME.to_owned())
}

fn home_in(mut passwd: impl BufRead, uid: u32) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if passwd.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if let Some(home) = home_on(String::from_utf8_lossy(&line).trim_end_matches('\n'), uid) {
            return Ok(Some(home));
        }
    }
}

fn home_on(line: &str, uid: u32) -> Option<String> {
    let fields: Vec<&str> = line.split(':').collect();
    let [_name, _password, found, _gid, _comment, home, ..] = fields.as_slice() else { return None };
    (found.parse() == Ok(uid) && !home.is_empty()).then(|| (*home).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_that_of_the_first_line_with_the_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\na:x:7:7::/home/a:\nb:x:7:7::/home/b:\nc:x:8:8:::\n";
        let home = |uid| home_in(passwd.as_bytes(), uid).unwrap();
        assert_eq!(home(0).as_deref(), Some("/root"));
        assert_eq!(home(7).as_deref(), Some("/home/a"));
        assert_eq!((home(8), home(9)), (None, None));
    }

    #[test]
    fn a_file_of_many_accounts_is_looked_through_to_its_end() {
        let mut passwd: String =
            (1..40_000).map(|n| format!("account{n}:x:1{n}:1{n}:,,,:/home/account{n}:/bin/sh\n")).collect();
        passwd += &"x".repeat(200_000);
        passwd += "\nlast:x:7:7::/home/last:/bin/sh";
        assert_eq!(home_in(passwd.as_bytes(), 7).unwrap().as_deref(), Some("/home/last"));
    }
}
