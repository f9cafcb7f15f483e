//! The terminal of this command's user: raw while a process in a container has it, and as it was afterwards.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use contd_types::WindowSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Returns the size of a terminal; `None` of anything else.
pub(crate) fn size_of(fd: impl AsFd) -> Option<WindowSize> {
    let size = tcgetwinsize(fd).ok()?;
    Some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Gives a terminal this size.
///
/// # Errors
/// The system's.
pub(crate) fn resize(fd: impl AsFd, size: WindowSize) -> io::Result<()> {
    let WindowSize { rows, columns } = size;
    contd_descriptors::terminal::resize(fd, rows, columns)
}

/// A terminal that passes every key on; as it was when this is dropped.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    fd: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Raw<'a> {
    /// Makes a terminal raw.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn make(fd: BorrowedFd<'a>) -> io::Result<Self> {
        let before = tcgetattr(fd)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(fd, OptionalActions::Now, &raw)?;
        Ok(Self { fd, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _gone = tcsetattr(self.fd, OptionalActions::Now, &self.before);
    }
}

/// The keys that part the user from the process, which runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![control(b'p'), control(b'q')])
    }
}

fn control(letter: u8) -> u8 {
    letter & 0x1f
}

impl DetachKeys {
    /// Parses `ctrl-p,ctrl-q`, or keys of any kind between commas; empty is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let key = |word: &str| match (word.strip_prefix("ctrl-"), word.as_bytes()) {
            (Some(letter), _) => match letter.as_bytes() {
                [letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Ok(control(*letter)),
                _ => Err(format!(
                    "{word:?} is no key: ctrl-a to ctrl-z, ctrl-@, ctrl-[, ctrl-\\, ctrl-], ctrl-^, ctrl-_"
                )),
            },
            (None, [key]) => Ok(*key),
            _ => Err(format!("{word:?} is no key: write ctrl-p,ctrl-q, or single characters between commas")),
        };
        let words = text.split(',').filter(|_| !text.is_empty());
        words.map(key).collect::<Result<_, _>>().map(Self)
    }
}

/// Looks for the keys among what is typed, and holds back what may be their beginning.
#[derive(Debug)]
pub(crate) struct KeyFilter {
    keys: Vec<u8>,
    held: Vec<u8>,
}

impl KeyFilter {
    pub(crate) fn new(keys: DetachKeys) -> Self {
        Self { keys: keys.0, held: Vec::new() }
    }

    /// Returns what is to be passed on, and whether the keys came then.
    pub(crate) fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + self.held.len());
        for &byte in typed {
            self.held.push(byte);
            if self.held == self.keys {
                self.held.clear();
                return (passed, true);
            }
            while !self.keys.starts_with(&self.held) {
                passed.push(self.held.remove(0));
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_docker_has_them() {
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q"), Ok(DetachKeys::default()));
        assert_eq!(DetachKeys::parse("a,ctrl-]"), Ok(DetachKeys(vec![b'a', 0x1d])));
        assert_eq!(DetachKeys::parse(""), Ok(DetachKeys(vec![])));
        for bad in ["ctrl-", "ctrl-1", "ab", "a,,b"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_keys_are_found_however_they_come_and_all_else_is_passed_on() {
        let all = |pieces: &[&[u8]]| {
            let mut filter = KeyFilter::new(DetachKeys::default());
            let mut passed = Vec::new();
            for piece in pieces {
                let (more, is_detached) = filter.take(piece);
                passed.extend(more);
                if is_detached {
                    return (passed, true);
                }
            }
            (passed, false)
        };
        assert_eq!(all(&[b"ab\x10\x11c"]), (b"ab".to_vec(), true));
        assert_eq!(all(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(all(&[b"\x10", b"x"]), (b"\x10x".to_vec(), false));
        assert_eq!(all(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        let mut inside = KeyFilter::new(DetachKeys::parse("a,a,b").unwrap());
        assert_eq!(inside.take(b"aaab"), (b"a".to_vec(), true));
        assert_eq!(all(&[b"\x11\x10"]), (b"\x11".to_vec(), false));
        let mut none = KeyFilter::new(DetachKeys(vec![]));
        assert_eq!(none.take(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
