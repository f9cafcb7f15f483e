//! Decompresses layers: plain tar, gzip or zstd, recognized by the first bytes.
//!
//! Media types are ignored: old tools wrote `tar` for gzip, and archives of `docker save` have none.

use std::io::{self, BufRead as _, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::digest::CHUNK_BYTES;
use crate::members::skip_by_reading;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The magic number of a skippable zstd frame, without the first byte, which varies. `zstd:chunked` begins with some.
const ZSTD_SKIPPED: &[u8] = &[0x2a, 0x4d, 0x18];

/// The largest window that a zstd stream may ask for: the default limit of `zstd` itself.
const MAX_WINDOW_BYTES: u64 = 128 * 1024 * 1024;

/// Returns a reader of a layer's uncompressed tar.
pub(super) fn plain<'a>(mut stored: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::with_capacity(ZSTD.len());
    stored.by_ref().take(ZSTD.len() as u64).read_to_end(&mut head)?;
    let is_gzip = head.starts_with(GZIP);
    let is_zstd = head == ZSTD || head.get(1..) == Some(ZSTD_SKIPPED);
    let whole = Cursor::new(head).chain(stored);
    if is_gzip {
        return Ok(Box::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK_BYTES, whole))));
    }
    if is_zstd {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW_BYTES);
        let source = BufReader::with_capacity(CHUNK_BYTES, whole);
        return Ok(Box::new(Frames { source, decoder, is_inside: false }));
    }
    Ok(Box::new(whole))
}

/// Reads the frames of a zstd stream in sequence.
struct Frames<R> {
    source: BufReader<R>,
    decoder: FrameDecoder,
    is_inside: bool,
}

impl<R: Read> Frames<R> {
    /// Begins the next frame; returns `false` at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        if self.source.fill_buf()?.is_empty() {
            return Ok(false);
        }
        match self.decoder.reset(&mut self.source) {
            Ok(()) => self.is_inside = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                skip_by_reading(&mut self.source, length.into())?;
            }
            Err(error) => return Err(damaged(error)),
        }
        Ok(true)
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_inside {
                if !self.begin()? {
                    return Ok(0);
                }
                continue;
            }
            let read = self.decoder.read(buf)?;
            if read > 0 {
                return Ok(read);
            }
            if self.decoder.is_finished() {
                self.is_inside = false;
            } else {
                let step = BlockDecodingStrategy::UptoBytes(CHUNK_BYTES);
                self.decoder.decode_blocks(&mut self.source, step).map_err(damaged)?;
            }
        }
    }
}

fn damaged(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    #[track_caller]
    fn read(stored: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        plain(stored).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_form_is_told_by_its_first_bytes() {
        let bytes: Vec<u8> = (0..400_000_u32).flat_map(|number| (number / 3).to_le_bytes()).collect();
        assert!(read(&bytes) == bytes);
        assert!(read(&gzip(&bytes)) == bytes);
        assert!(read(&zstd(&bytes)) == bytes);
        assert_eq!(read(b""), b"");
        assert_eq!(read(b"abc"), b"abc");
    }

    #[test]
    fn streams_may_have_several_parts() {
        assert_eq!(read(&[gzip(b"one"), gzip(b"two")].concat()), b"onetwo");
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        let parts = [skipped.clone(), zstd(b"one"), skipped.clone(), zstd(b"two"), skipped];
        assert_eq!(read(&parts.concat()), b"onetwo");
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        let bytes = b"some content that is long enough".repeat(100);
        for stored in [gzip(&bytes), zstd(&bytes)] {
            for end in [5, stored.len() / 2, stored.len() - 1] {
                let all = plain(&stored[..end]).unwrap().read_to_end(&mut Vec::new());
                assert!(all.is_err(), "{end} of {}", stored.len());
            }
        }
    }

    #[test]
    fn a_window_as_large_as_the_format_can_say_is_refused() {
        // Magic, no content size, the largest window descriptor, then an empty last block.
        let mut bytes = Vec::new();
        let stored = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00];
        assert!(plain(&stored[..]).unwrap().read_to_end(&mut bytes).is_err());
    }
}
