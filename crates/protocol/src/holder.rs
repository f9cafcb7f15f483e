//! The messages between the daemon and the holder: the ancestor of all shims of a node, which learns how the children of a
//! dead shim end. Not the frames of the other sockets: the holder must do with buffers of a fixed size.
//!
//! One request on each connection, sent at once with its descriptors, then the answer; a start has two, so that a holder that stands
//! still is told from a program that takes its time. All numbers are little-endian.
//!
//! | request | bytes | descriptors |
//! |---|---|---|
//! | hold | [`VERSION`], 1 | |
//! | start | [`VERSION`], 2, then words, each with a NUL behind it: `PATH` of the environment, the program, its arguments | standard input, standard error |
//! | hand over | [`VERSION`], 3, then the path of a `contd-shim` and a NUL | |
//!
//! | answer | bytes |
//! |---|---|
//! | holds | 1, then 4 of its pid. The holder lives for as long as one such connection is open, or one of its children lives |
//! | started | 4, then 4 of the program's pid; at once |
//! | ended | 2, then 4 of the program's wait status. The program is killed when the caller hangs up before |
//! | failed | 3, then 4 of the error number: the program was not started |
//!
//! A holder that hands over executes the other program, so it answers by the end of the connection: same process, same children.
//! While it waits for the end of a program it fails with `EBUSY`.

/// The version of the messages; another is refused with `EPROTONOSUPPORT`.
pub const VERSION: u8 = 1;

/// The most bytes of a request.
pub const MAX_REQUEST_BYTES: usize = 4096;

/// The bytes of an answer.
pub const ANSWER_BYTES: usize = 5;

/// The directory of the holder's lease, in the run directory.
pub const DIR: &str = "h";

/// The files in that directory, beside `lease.json` and `lock`.
pub mod files {
    /// The holder's socket, 0600.
    pub const SOCKET: &str = "sock";
    /// The directory of [`super::exit_name`] files.
    pub const EXITS: &str = "exits";
    /// The holder's own log; bounded.
    pub const LOG: &str = "holder.log";
}

/// A request to the holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Live on, for as long as this connection is open.
    Hold,
    /// Start a program and tell how it has ended.
    Start {
        /// `PATH` of its environment, which has nothing else; the program; its arguments.
        words: Vec<Vec<u8>>,
    },
    /// Execute another program in the place of this one, which goes on as the holder.
    HandOver {
        /// The path of a `contd-shim`.
        program: Vec<u8>,
    },
}

/// An answer of the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It holds; its pid.
    Holds(i32),
    /// The program runs, with this pid.
    Started(i32),
    /// The program has ended, with this wait status.
    Ended(i32),
    /// The program was not started, for this error number.
    Failed(i32),
}

impl Request {
    /// Writes it down; `None` when it is too long, or a word has a NUL.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let (kind, words) = match self {
            Self::Hold => (1, [].as_slice()),
            Self::Start { words } => (2, words.as_slice()),
            Self::HandOver { program } => (3, std::slice::from_ref(program)),
        };
        let mut bytes = vec![VERSION, kind];
        for word in words {
            if word.contains(&0) {
                return None;
            }
            bytes.extend_from_slice(word);
            bytes.push(0);
        }
        (bytes.len() <= MAX_REQUEST_BYTES).then_some(bytes)
    }

    /// Reads it; `None` when it is of another version or form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [VERSION, 1] => Some(Self::Hold),
            [VERSION, 2, words @ .., 0] => {
                let words: Vec<Vec<u8>> = words.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
                (words.len() >= 2).then_some(Self::Start { words })
            }
            [VERSION, 3, program @ .., 0] if !program.is_empty() && !program.contains(&0) => {
                Some(Self::HandOver { program: program.to_owned() })
            }
            _ => None,
        }
    }
}

impl Answer {
    /// Writes it down.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ANSWER_BYTES] {
        let (kind, number) = match self {
            Self::Holds(pid) => (1, pid),
            Self::Ended(status) => (2, status),
            Self::Failed(errno) => (3, errno),
            Self::Started(pid) => (4, pid),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [kind, a, b, c, d]
    }

    /// Reads it; `None` when it is of another form.
    #[must_use]
    pub fn from_bytes([kind, number @ ..]: [u8; ANSWER_BYTES]) -> Option<Self> {
        let number = i32::from_le_bytes(number);
        match kind {
            1 => Some(Self::Holds(number)),
            2 => Some(Self::Ended(number)),
            3 => Some(Self::Failed(number)),
            4 => Some(Self::Started(number)),
            _ => None,
        }
    }
}

/// Names the file in [`files::EXITS`] that has the wait status of an ended process, as text: its pid and start time.
#[must_use]
pub fn exit_name(pid: i32, start_ticks: u64) -> String {
    format!("{pid}-{start_ticks}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let words =
            |words: &[&str]| Request::Start { words: words.iter().map(|word| word.as_bytes().to_vec()).collect() };
        let hand_over = Request::HandOver { program: b"/bin/contd-shim".to_vec() };
        for request in [Request::Hold, words(&["/bin", "/bin/true"]), words(&["", "/x", "--dir", "", "ä"]), hand_over]
        {
            assert_eq!(Request::from_bytes(&request.to_bytes().unwrap()), Some(request));
        }
        assert_eq!(words(&["/bin", "a\0b"]).to_bytes(), None);
        assert_eq!(words(&["/bin", &"x".repeat(MAX_REQUEST_BYTES)]).to_bytes(), None);
        for bad in [
            &b""[..],
            b"\x01",
            b"\x02\x01",
            b"\x01\x01x",
            b"\x01\x02/bin\0",
            b"\x01\x02/bin\0/x",
            b"\x01\x03",
            b"\x01\x03\0",
            b"\x01\x04",
        ] {
            assert_eq!(Request::from_bytes(bad), None, "{bad:?}");
        }
        for answer in [Answer::Holds(7), Answer::Started(8), Answer::Ended(0x100), Answer::Failed(-1)] {
            assert_eq!(Answer::from_bytes(answer.to_bytes()), Some(answer));
        }
        assert_eq!(Answer::from_bytes([0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        let request = Request::Start { words: vec![b"/bin".to_vec(), b"/x".to_vec()] };
        assert_eq!(request.to_bytes().unwrap(), b"\x01\x02/bin\0/x\0");
        assert_eq!(Request::Hold.to_bytes().unwrap(), [1, 1]);
        assert_eq!(Request::HandOver { program: b"/x".to_vec() }.to_bytes().unwrap(), b"\x01\x03/x\0");
        assert_eq!(Answer::Ended(0x0708).to_bytes(), [2, 8, 7, 0, 0]);
        assert_eq!(Answer::Started(0x0708).to_bytes(), [4, 8, 7, 0, 0]);
        assert_eq!(exit_name(12, 345), "12-345");
    }
}
