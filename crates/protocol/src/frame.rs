//! Frames: where one message ends and the next begins.

/// Bytes before the body.
pub const HEADER_BYTES: usize = 8;

/// The kind of message that a frame carries. Append only: the number is the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// [`crate::Hello`], first on every connection, version 0.
    Hello = 1,
    /// [`crate::HelloReply`], the answer to it, version 0.
    HelloReply = 2,
    /// A call with its id.
    Call = 3,
    /// The last answer to a call.
    Reply = 4,
    /// One item of a call's stream.
    Item = 5,
    /// The caller wants no more of a call.
    Cancel = 6,
    /// The caller can take more items of a call's stream.
    Credit = 7,
}

impl Kind {
    fn from_number(number: u16) -> Option<Self> {
        [Self::Hello, Self::HelloReply, Self::Call, Self::Reply, Self::Item, Self::Cancel, Self::Credit]
            .into_iter()
            .find(|kind| *kind as u16 == number)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The protocol version of the body.
    pub version: u16,
    /// The kind of message in the body.
    pub kind: Kind,
    /// The encoded message.
    pub body: Vec<u8>,
}

/// Why bytes are not a frame. The connection cannot go on after it: where the next frame begins is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header declares a body larger than the reader's limit.
    #[error("frame: a body of {declared} bytes is more than the limit of {limit}")]
    TooLarge {
        /// The header's value.
        declared: usize,
        /// The limit.
        limit: usize,
    },
    /// The header names a kind that does not exist.
    #[error("frame: kind {number} does not exist")]
    UnknownKind {
        /// The header's value.
        number: u16,
    },
}

impl Frame {
    /// Encodes a message into a frame.
    ///
    /// # Errors
    /// [`crate::CodecError`] when the message cannot be encoded or is too large.
    pub fn new<T: serde::Serialize>(version: u16, kind: Kind, message: &T) -> Result<Self, crate::CodecError> {
        Ok(Self { version, kind, body: crate::encode(message)? })
    }

    /// Returns the bytes for the socket.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Bodies come from `encode`, whose limit is far below 4 GiB; a larger one could not be read by anyone.
        let length = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.body.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&(self.kind as u16).to_le_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Collects bytes as they come and gives out whole frames.
#[derive(Debug)]
pub struct FrameReader {
    limit: usize,
    buffer: Vec<u8>,
    /// Where the first byte that was not given out lies in `buffer`.
    start: usize,
}

impl FrameReader {
    /// Makes a reader that refuses bodies above `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, buffer: Vec::new(), start: 0 }
    }

    /// Adds bytes from the socket. Call [`Self::next_frame`] until it gives `None` before adding more.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start >= 64 * 1024 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, or `None` until more bytes have come.
    ///
    /// # Errors
    /// [`FrameError`], before anything is allocated for the body; close the connection.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let pending = self.buffer.get(self.start..).unwrap_or_default();
        let Some((header, rest)) = pending.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [l0, l1, l2, l3, v0, v1, k0, k1] = *header;
        let declared = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if declared > self.limit {
            return Err(FrameError::TooLarge { declared, limit: self.limit });
        }
        let number = u16::from_le_bytes([k0, k1]);
        let kind = Kind::from_number(number).ok_or(FrameError::UnknownKind { number })?;
        let Some(body) = rest.get(..declared) else { return Ok(None) };
        let frame = Frame { version: u16::from_le_bytes([v0, v1]), kind, body: body.to_vec() };
        self.start += HEADER_BYTES + declared;
        Ok(Some(frame))
    }

    /// Tells whether a frame has begun and not ended: a peer that closes now has broken off.
    pub fn is_mid_frame(&self) -> bool {
        self.start < self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(body: &[u8]) -> Frame {
        Frame { version: 1, kind: Kind::Call, body: body.to_vec() }
    }

    #[test]
    fn the_header_has_the_documented_bytes() {
        assert_eq!(frame(b"abc").to_bytes(), [3, 0, 0, 0, 1, 0, 3, 0, b'a', b'b', b'c']);
    }

    #[test]
    fn an_oversize_frame_is_refused_by_its_header_alone() {
        let mut reader = FrameReader::new(16);
        reader.push(&[17, 0, 0, 0, 1, 0, 3, 0]);
        assert_eq!(reader.next_frame(), Err(FrameError::TooLarge { declared: 17, limit: 16 }));
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        let mut reader = FrameReader::new(16);
        reader.push(&[0, 0, 0, 0, 1, 0, 99, 0]);
        assert_eq!(reader.next_frame(), Err(FrameError::UnknownKind { number: 99 }));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..10),
            cut in 1usize..50,
        ) {
            let frames: Vec<Frame> = bodies.iter().map(|body| frame(body)).collect();
            let bytes: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
            let mut reader = FrameReader::new(300);
            let mut got = Vec::new();
            for piece in bytes.chunks(cut) {
                reader.push(piece);
                while let Some(frame) = reader.next_frame().expect("valid") {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(!reader.is_mid_frame());
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = FrameReader::new(64);
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_frame() {}
        }
    }
}
