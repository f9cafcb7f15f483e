//! The only door between bytes and messages: bincode with a limit, and not a byte left over.
//!
//! Why the limit: without it, nine bytes that declare a huge length make bincode allocate it and abort the process.
//! Why `legacy()`: byte-identical with bincode 1 and with its successors' legacy mode, so the way out of an
//! unmaintained package stays open (docs/decisions/0002).

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::MAX_API_BODY_BYTES;

/// Why bytes are not a message, or a message cannot become bytes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The message cannot be written, or is larger than the limit.
    #[error("encode {what}")]
    Encode {
        /// The type of the message.
        what: &'static str,
        /// The codec's error.
        source: bincode::error::EncodeError,
    },
    /// The encoded message is larger than any reader accepts.
    #[error("encode {what}: {bytes} bytes are more than the limit of {limit}")]
    TooLarge {
        /// The type of the message.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The bytes are not such a message, or declare more than the limit.
    #[error("decode {what}")]
    Decode {
        /// The type of the message.
        what: &'static str,
        /// The codec's error.
        source: bincode::error::DecodeError,
    },
    /// A value has no form as JSON, or JSON is not that value.
    #[error("{what} as JSON")]
    Text {
        /// The type of the value.
        what: &'static str,
        /// The error in it.
        source: serde_json::Error,
    },
    /// JSON has more than this version knows.
    #[error("{what} has fields that are not known here: {}", fields.join(", "))]
    Unknown {
        /// The type of the value.
        what: &'static str,
        /// The fields.
        fields: Vec<String>,
    },
    /// A message has more than the version of the connection can say.
    #[error("{what} has more than version {version} of the protocol can say")]
    TooNew {
        /// The type of the value.
        what: &'static str,
        /// The version.
        version: u16,
    },
    /// Bytes are left over behind the message.
    #[error("decode {what}: {extra} bytes are left over")]
    Trailing {
        /// The type of the message.
        what: &'static str,
        /// How many.
        extra: usize,
    },
}

/// Turns a message into the body of a frame.
///
/// # Errors
/// [`CodecError::TooLarge`] above [`MAX_API_BODY_BYTES`], so that no peer ever gets what it must refuse.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let what = std::any::type_name::<T>();
    let bytes = bincode::serde::encode_to_vec(message, bincode::config::legacy())
        .map_err(|source| CodecError::Encode { what, source })?;
    if bytes.len() > MAX_API_BODY_BYTES {
        return Err(CodecError::TooLarge { what, bytes: bytes.len(), limit: MAX_API_BODY_BYTES });
    }
    Ok(bytes)
}

/// Turns the body of a frame into a message.
///
/// # Errors
/// [`CodecError::Decode`] for bytes that are no such message or declare more than [`MAX_API_BODY_BYTES`],
/// [`CodecError::Trailing`] when bytes are left over.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let what = std::any::type_name::<T>();
    let config = bincode::config::legacy().with_limit::<MAX_API_BODY_BYTES>();
    let (message, consumed) =
        bincode::serde::decode_from_slice(body, config).map_err(|source| CodecError::Decode { what, source })?;
    match body.len().saturating_sub(consumed) {
        0 => Ok(message),
        extra => Err(CodecError::Trailing { what, extra }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_length_beyond_the_limit_is_an_error_and_not_an_abort() {
        let mut hostile = (1u64 << 40).to_le_bytes().to_vec();
        hostile.push(0);
        assert!(matches!(decode::<Vec<u8>>(&hostile), Err(CodecError::Decode { .. })));
        assert!(matches!(decode::<String>(&u64::MAX.to_le_bytes()), Err(CodecError::Decode { .. })));
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut bytes = encode(&7u32).expect("small");
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes), Err(CodecError::Trailing { extra: 1, .. })));
    }

    #[test]
    fn a_message_that_no_reader_accepts_is_not_written() {
        assert!(matches!(encode(&vec![0u8; MAX_API_BODY_BYTES]), Err(CodecError::TooLarge { .. })));
    }
}
