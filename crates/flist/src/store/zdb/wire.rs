//! One connection that speaks RESP, the Redis protocol: sends whole commands, and reads bounded replies.
//!
//! Written here, because client libraries limit neither the size of a reply nor the time of a whole exchange, only that of
//! one read: `docs/decisions/0015-redis-protocol.md`.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::failure::Fault;
use crate::block::MAX_STORED_LEN;
use crate::clock::Deadline;
use crate::store::SILENCE_TIMEOUT;

/// The most bytes of a line, which is an error text or a length. A 0-db sends no longer ones.
const MAX_LINE: u64 = 1024;

/// The bytes read ahead.
const READ_BUFFER: usize = 16 * 1024;

/// The replies to the commands of a block store.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// `+OK`, `+PONG`.
    Word,
    /// `:1`.
    Number(i64),
    /// `$3 abc`.
    Bytes(Vec<u8>),
    /// `$-1`: no such key.
    Nothing,
}

/// A connection. After any fault but an error answer it is out of sync and cannot be used again.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<TimedStream>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        // A command is one write, so waiting for more data (Nagle) gains nothing.
        stream.set_nodelay(true)?;
        let stream = TimedStream { stream, deadline: Deadline::after(Duration::ZERO) };
        Ok(Self { stream: BufReader::with_capacity(READ_BUFFER, stream) })
    }

    /// Sends a command and reads its reply before the deadline.
    pub(super) fn command(&mut self, words: &[&[u8]], deadline: Deadline) -> Result<Reply, Fault> {
        if !self.stream.buffer().is_empty() {
            return Err(Fault::not_redis("it says more than was asked"));
        }
        let timed = self.stream.get_mut();
        timed.deadline = deadline;
        timed.write_all(&encode(words)).map_err(Fault::io)?;
        read_reply(&mut self.stream)
    }
}

fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend(format!("${}\r\n", word.len()).bytes());
        command.extend(*word);
        command.extend(b"\r\n");
    }
    command
}

fn read_reply(stream: &mut BufReader<impl Read>) -> Result<Reply, Fault> {
    let line = read_line(stream)?;
    let Some((kind, rest)) = line.split_first() else { return Err(Fault::not_redis("an empty line")) };
    match kind {
        b'+' => Ok(Reply::Word),
        b'-' => Err(Fault::Answer(String::from_utf8_lossy(rest).into_owned())),
        b':' => number(rest).map(Reply::Number),
        b'$' => match number(rest)? {
            -1 => Ok(Reply::Nothing),
            len => match usize::try_from(len) {
                Ok(len) if len > MAX_STORED_LEN => Err(Fault::TooLarge),
                Ok(len) => read_bytes(stream, len).map(Reply::Bytes),
                Err(_negative) => Err(Fault::not_redis("a negative length")),
            },
        },
        _ => Err(Fault::not_redis("an unknown kind of reply")),
    }
}

/// Reads a line, and returns it without its end.
fn read_line(stream: &mut BufReader<impl Read>) -> Result<Vec<u8>, Fault> {
    let mut line = Vec::new();
    stream.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(Fault::io)?;
    match line.strip_suffix(b"\r\n") {
        Some(text) => Ok(text.to_vec()),
        None if line.len() as u64 == MAX_LINE || line.ends_with(b"\n") => Err(Fault::not_redis("no line")),
        None => Err(Fault::io(io::ErrorKind::UnexpectedEof.into())),
    }
}

fn number(text: &[u8]) -> Result<i64, Fault> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Fault::not_redis("no number"))
}

/// Reads `len` bytes, at most the size of a block, and the end of the line.
fn read_bytes(stream: &mut BufReader<impl Read>, len: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).map_err(Fault::io)?;
    let mut end = [0; 2];
    stream.read_exact(&mut end).map_err(Fault::io)?;
    if end == *b"\r\n" { Ok(bytes) } else { Err(Fault::not_redis("bytes that do not end")) }
}

/// A socket on which every step ends at the deadline, or after five seconds of silence.
#[derive(Debug)]
struct TimedStream {
    stream: TcpStream,
    deadline: Deadline,
}

impl TimedStream {
    fn patience(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.remaining().min(SILENCE_TIMEOUT);
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for TimedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.patience()?)?;
        self.stream.read(buffer)
    }
}

impl Write for TimedStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.patience()?)?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ZdbFailure;
    use super::*;

    fn reply(bytes: &[u8]) -> Result<Reply, Fault> {
        read_reply(&mut BufReader::new(bytes))
    }

    #[test]
    fn a_command_is_an_array_of_bytes() {
        assert_eq!(encode(&[b"GET", b"\r\n\0"]), b"*2\r\n$3\r\nGET\r\n$3\r\n\r\n\0\r\n");
    }

    #[test]
    fn the_replies_of_a_store_are_understood() {
        assert_eq!(reply(b"+PONG\r\n").unwrap(), Reply::Word);
        assert_eq!(reply(b":1\r\n").unwrap(), Reply::Number(1));
        assert_eq!(reply(b"$3\r\n\r\n!\r\n").unwrap(), Reply::Bytes(b"\r\n!".to_vec()));
        assert_eq!(reply(b"$0\r\n\r\n").unwrap(), Reply::Bytes(Vec::new()));
        assert_eq!(reply(b"$-1\r\n").unwrap(), Reply::Nothing);
        assert!(matches!(reply(b"-No\r\n"), Err(Fault::Answer(text)) if text == "No"));
    }

    #[test]
    fn anything_else_is_a_fault_that_costs_no_memory() {
        for bytes in
            [&b"\r\n"[..], b"*1\r\n", b"%1\r\n", b":x\r\n", b"$-2\r\n", b"$1\r\nab\r", b"+a\n", b"HTTP/1.1\r\n"]
        {
            assert!(matches!(reply(bytes), Err(Fault::Failure(ZdbFailure::NotZdb(_)))), "{bytes:?}");
        }
        for bytes in [&b""[..], b"+P", b"$3\r\nab", b"$3\r\nabc", b"$3\r\nabc\r"] {
            assert!(matches!(reply(bytes), Err(Fault::Failure(ZdbFailure::Closed))), "{bytes:?}");
        }
        for len in [MAX_STORED_LEN as u64 + 1, u64::from(u32::MAX), i64::MAX.unsigned_abs()] {
            assert!(matches!(reply(format!("${len}\r\n").as_bytes()), Err(Fault::TooLarge)), "{len}");
        }
        assert!(matches!(reply(&[b'+'; 5000]), Err(Fault::Failure(ZdbFailure::NotZdb(_)))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop_oneof![Just(b'$'), Just(b'\r'), Just(b'\n'), b'0'..=b'9', any::<u8>()], 0..40)) {
            let _any = reply(&bytes);
        }
    }
}
