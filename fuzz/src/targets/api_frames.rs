//! The API socket in both directions: the input is cut in pieces, framed, decoded by kind, and encoded again.

use contd_protocol::api::{Call, Cancel, Credit, Reply, StreamItem};
use contd_protocol::{Frame, FrameReader, Hello, HelloReply, Kind, MAX_API_BODY_BYTES, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first byte sets the length of the pieces.
pub fn check(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let whole = frames(bytes, bytes.len().max(1), MAX_API_BODY_BYTES);
    assert_eq!(whole, frames(bytes, usize::from(*cut) + 1, MAX_API_BODY_BYTES), "cutting changes what is read");
    for frame in &whole {
        match frame.kind {
            Kind::Hello => message::<Hello>(&frame.body),
            Kind::HelloReply => message::<HelloReply>(&frame.body),
            Kind::Call => message::<Call>(&frame.body),
            Kind::Reply => message::<Reply>(&frame.body),
            Kind::Item => message::<StreamItem>(&frame.body),
            Kind::Cancel => message::<Cancel>(&frame.body),
            Kind::Credit => message::<Credit>(&frame.body),
        }
    }
}

/// Reads all frames up to the first error, as a connection does. The frames, encoded, must equal the bytes read.
pub fn frames(bytes: &[u8], cut: usize, limit: usize) -> Vec<Frame> {
    let (mut reader, mut found) = (FrameReader::new(limit), Vec::new());
    'reading: for piece in bytes.chunks(cut) {
        reader.push(piece);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(_) => break 'reading,
            }
        }
    }
    let again: Vec<u8> = found.iter().flat_map(Frame::to_bytes).collect();
    assert_eq!(bytes.get(..again.len()), Some(again.as_slice()), "frames are not what was read");
    assert!(found.iter().all(|frame| frame.body.len() <= limit));
    found
}

/// Checks that a decoded message can be encoded, is not larger, and decodes to the same message.
pub fn message<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(body: &[u8]) {
    let Ok(message) = decode::<T>(body) else { return };
    let again = encode(&message).unwrap_or_else(|error| panic!("{message:?} was decoded: {error}"));
    assert!(again.len() <= body.len(), "{message:?} grew from {} to {} bytes", body.len(), again.len());
    assert_eq!(decode::<T>(&again).unwrap(), message, "encoding changes it");
}
