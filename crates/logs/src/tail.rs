//! Finds where the last lines of a log begin. Reads backwards, and no more than needed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::format::{MAX_HEADER_BYTES, Stream, decode_header};

/// How many bytes are read at once.
const CHUNK_BYTES: u64 = 64 * 1024;

/// How many bytes back a line without an end is looked for.
const MAX_LOOKED_BYTES: u64 = 1024 * 1024;

/// Counts lines from the end of the newest file towards the beginning of the oldest.
///
/// A record counts when it ends its line: it is whole, or it is the last of its stream. A line whose parts lie between
/// records of the other stream may lose its first parts, never its last.
#[derive(Debug)]
pub(crate) struct Counter {
    wanted: u64,
    counted: u64,
    has_seen: [bool; 2],
}

impl Counter {
    pub(crate) fn new(wanted: u64) -> Self {
        Self { wanted, counted: 0, has_seen: [false; 2] }
    }

    /// Counts the next record towards the beginning; `true` when it is one too many.
    fn is_too_many(&mut self, line: &[u8]) -> bool {
        let ends_line = match decode_header(line) {
            Some((stream, is_partial)) => {
                let seen = match (stream, &mut self.has_seen) {
                    (Stream::Stdout, [seen, _]) | (Stream::Stderr, [_, seen]) => seen,
                };
                !std::mem::replace(seen, true) || !is_partial
            }
            None => true,
        };
        self.counted += u64::from(ends_line);
        self.counted > self.wanted
    }

    /// Returns the offset where reading begins in this file; `None` when the whole file is wanted, and perhaps older
    /// ones.
    pub(crate) fn scan(&mut self, file: &File) -> io::Result<Option<u64>> {
        let mut position = file.metadata()?.len();
        // The position of the last line end seen, and the known beginning of the line before it.
        let mut line_end: Option<u64> = None;
        let mut head: Vec<u8> = Vec::new();
        while position > 0 {
            let length = position.min(CHUNK_BYTES);
            position -= length;
            let mut chunk = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.read_exact_at(&mut chunk, position)?;
            let mut end = chunk.len();
            while let Some(newline) = chunk.get(..end).and_then(|bytes| bytes.iter().rposition(|byte| *byte == b'\n')) {
                let begin = newline + 1;
                let line = header_of(chunk.get(begin..end).unwrap_or_default(), &head);
                let begin_offset = position + u64::try_from(begin).map_err(io::Error::other)?;
                // The bytes after the last newline of the file are a torn record: it is returned, not counted.
                if let Some(next_line) = line_end
                    && self.is_too_many(&line)
                {
                    return Ok(Some(next_line));
                }
                line_end = Some(begin_offset);
                head.clear();
                end = newline;
            }
            head = header_of(chunk.get(..end).unwrap_or_default(), &head);
        }
        match line_end {
            Some(next_line) if self.is_too_many(&head) => Ok(Some(next_line)),
            _ => Ok(None),
        }
    }
}

/// Returns the streams that end, at this offset, in the middle of a line. It looks at the last [`MAX_LOOKED_BYTES`]
/// only: an open line that is older is not closed.
pub(crate) fn open_lines(file: &File, offset: u64) -> io::Result<Vec<Stream>> {
    let begin = offset.saturating_sub(MAX_LOOKED_BYTES);
    let mut bytes = vec![0; usize::try_from(offset - begin).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, begin)?;
    let mut last: Vec<(Stream, bool)> = Vec::new();
    // The first line may be the end of a record only, and its content could look like a record.
    let skipped = usize::from(begin > 0);
    for line in bytes.split(|byte| *byte == b'\n').skip(skipped) {
        if let Some((stream, is_partial)) = decode_header(line) {
            last.retain(|(seen, _)| *seen != stream);
            last.push((stream, is_partial));
        }
    }
    Ok(last.into_iter().filter(|(_, is_partial)| *is_partial).map(|(stream, _)| stream).collect())
}

/// Joins the beginning of a line with the known part of its rest, up to the length of a header.
fn header_of(begin: &[u8], rest: &[u8]) -> Vec<u8> {
    begin.iter().chain(rest).take(MAX_HEADER_BYTES).copied().collect()
}
