//! The line format of a log: one record is `<time> <stream> <F|P> <content>\n`.

use contd_types::Timestamp;
use std::io::Write;

/// The most content in one record; a longer line is written in parts, as in CRI.
pub const MAX_CONTENT_BYTES: usize = 16 * 1024;

/// More than the time, stream and tag of any record take.
pub(crate) const MAX_HEADER_BYTES: usize = 64;

/// One of the container's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Returns the name as it is written in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// The time when the writer got the bytes.
    pub time: Timestamp,
    /// The stream of the bytes.
    pub stream: Stream,
    /// Whether the line continues in the next record of the stream; otherwise a newline follows the content.
    pub is_partial: bool,
    /// The bytes, without the newline.
    pub content: Vec<u8>,
}

/// Appends all records for these bytes to the buffer; the last one is partial unless the bytes end with a newline.
pub(crate) fn encode(buffer: &mut Vec<u8>, stream: Stream, time: Timestamp, bytes: &[u8]) {
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (line, is_whole) = match piece.split_last() {
            Some((b'\n', line)) => (line, true),
            _ => (piece, false),
        };
        let mut parts = line.chunks(MAX_CONTENT_BYTES).peekable();
        if parts.peek().is_none() && is_whole {
            encode_one(buffer, stream, time, b"F", &[]);
        }
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            encode_one(buffer, stream, time, if is_last && is_whole { b"F" } else { b"P" }, part);
        }
    }
}

/// The text of the line that marks lost output.
const LOST_TEXT: &[u8] = b"[contd: output before this line was lost: the log could not be written]";

/// Appends the end of a line that is still open.
pub(crate) fn encode_line_end(buffer: &mut Vec<u8>, stream: Stream, time: Timestamp) {
    encode_one(buffer, stream, time, b"F", &[]);
}

/// Appends a line that says that output before it was lost.
pub(crate) fn encode_loss(buffer: &mut Vec<u8>, time: Timestamp) {
    encode_one(buffer, Stream::Stderr, time, b"F", LOST_TEXT);
}

fn encode_one(buffer: &mut Vec<u8>, stream: Stream, time: Timestamp, tag: &[u8; 1], content: &[u8]) {
    let start = buffer.len();
    // Writing to a vector cannot fail. The vector is reused, so this does not allocate either once it has grown.
    if write!(buffer, "{time} {} ", stream.as_str()).is_err() {
        buffer.truncate(start);
        return;
    }
    buffer.extend_from_slice(tag);
    buffer.push(b' ');
    buffer.extend_from_slice(content);
    buffer.push(b'\n');
}

/// Parses one line, without its newline; `None` when it is not a record.
pub(crate) fn decode(line: &[u8]) -> Option<LogRecord> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?;
    let time = Timestamp::from_system_time(humantime::parse_rfc3339(time).ok()?);
    let (stream, is_partial) = decode_kind(fields.next()?, fields.next()?)?;
    Some(LogRecord { time, stream, is_partial, content: fields.next()?.to_vec() })
}

/// Parses only the stream and kind of a line whose content may be cut off. Lines are counted by it.
pub(crate) fn decode_header(line: &[u8]) -> Option<(Stream, bool)> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let _time = fields.next()?;
    decode_kind(fields.next()?, fields.next()?)
}

fn decode_kind(stream: &[u8], tags: &[u8]) -> Option<(Stream, bool)> {
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // CRI allows more tags after a colon; none has a meaning yet.
    match tags.split(|byte| *byte == b':').next()? {
        b"F" => Some((stream, false)),
        b"P" => Some((stream, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_795_515_072_123_456_789);

    fn encoded(bytes: &[u8]) -> String {
        let mut buffer = Vec::new();
        encode(&mut buffer, Stream::Stdout, NOW, bytes);
        String::from_utf8(buffer).expect("text").replace("2026-11-24T10:11:12.123456789Z stdout ", "")
    }

    #[test]
    fn lines_and_parts_look_as_cri_has_them() {
        assert_eq!(encoded(b""), "");
        assert_eq!(encoded(b"one\n"), "F one\n");
        assert_eq!(encoded(b"one\n\ntwo"), "F one\nF \nP two\n");
        let long = "x".repeat(MAX_CONTENT_BYTES);
        assert_eq!(encoded(format!("{long}\n").as_bytes()), format!("F {long}\n"));
        assert_eq!(encoded(format!("{long}y\n").as_bytes()), format!("P {long}\nF y\n"));
    }

    #[test]
    fn the_time_stamp_has_nanoseconds_and_utc() {
        let mut buffer = Vec::new();
        encode(&mut buffer, Stream::Stderr, NOW, b"a b\n");
        assert_eq!(buffer, b"2026-11-24T10:11:12.123456789Z stderr F a b\n");
        let record = decode(&buffer[..buffer.len() - 1]).expect("a record");
        assert_eq!(record.time, NOW);
        assert_eq!((record.stream, record.is_partial, record.content.as_slice()), (Stream::Stderr, false, &b"a b"[..]));
    }

    #[test]
    fn what_is_not_a_record_is_none() {
        let time = "2026-11-24T10:11:12.123456789Z";
        for bad in ["", "x", time, &format!("{time} stdout"), &format!("{time} stdout F"), "x stdout F y"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad:?}");
        }
        for bad in [format!("{time} stdin F x"), format!("{time} stdout X y"), format!("{time} stdout FF y")] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad:?}");
        }
        assert!(decode(format!("{time} stdout F:x y").as_bytes()).is_some(), "further tags are allowed");
    }
}
