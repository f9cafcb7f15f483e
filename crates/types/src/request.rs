//! The id of one operation on a container, which its log lines carry in every process.
//!
//! ```text
//! daemon: run{request=5b0c3f9a11d2 …}  ──call id 5b0c3f9a11d2·0007──►  shim: … request=5b0c3f9a11d2 …
//!                                      ──serve.json, "request"──────►  flist server: … request=5b0c3f9a11d2 …
//! ```
//!
//! The id travels to a shim inside the ids of the calls: a caller chooses those, so the wire needs no field for it, and
//! shims of any version take them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The bits of a call id that count calls; those above are the request.
const COUNTER_BITS: u32 = 16;
/// The bits of a request id.
const BITS: u32 = u64::BITS - COUNTER_BITS;
/// The digits that it is written with.
const DIGITS: usize = BITS as usize / 4;

/// Which operation (run, stop, delete, recovery, …) a call or a log line belongs to. 48 random bits: unique enough to
/// search a log for. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RequestId(u64);

impl RequestId {
    /// Makes an id from random bits; the upper 16 are not used.
    pub fn from_random(bits: u64) -> Self {
        Self((bits & ((1 << BITS) - 1)).max(1))
    }

    /// Returns the id of a call that belongs to this operation. `counter` tells apart the calls of one connection; it may
    /// begin anew after 65,536 of them, since far fewer are under way at once.
    pub fn call(self, counter: u16) -> u64 {
        self.0 << COUNTER_BITS | u64::from(counter)
    }

    /// Returns the operation that a call belongs to; `None` for a caller that counts its calls from 0.
    pub fn of_call(id: u64) -> Option<Self> {
        Some(id >> COUNTER_BITS).filter(|request| *request != 0).map(Self)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

/// A text that is not a request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request id is {DIGITS} hexadecimal digits, not all 0")]
pub struct RequestIdError;

impl FromStr for RequestId {
    type Err = RequestIdError;

    fn from_str(text: &str) -> Result<Self, RequestIdError> {
        if text.len() != DIGITS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(RequestIdError);
        }
        match u64::from_str_radix(text, 16) {
            Ok(0) | Err(_) => Err(RequestIdError),
            Ok(bits) => Ok(Self(bits)),
        }
    }
}

impl TryFrom<String> for RequestId {
    type Error = RequestIdError;

    fn try_from(text: String) -> Result<Self, RequestIdError> {
        text.parse()
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operation_is_found_again_in_the_ids_of_its_calls() {
        for bits in [0, 1, 0xffff, u64::MAX, 0x0123_4567_89ab_cdef] {
            let id = RequestId::from_random(bits);
            for counter in [0, 1, u16::MAX] {
                assert_eq!(RequestId::of_call(id.call(counter)), Some(id), "{bits:x} {counter}");
            }
            assert_ne!(id.call(0), id.call(1));
        }
        assert_eq!(RequestId::of_call(65_535), None, "a caller of an earlier version counts from 0");
    }

    #[test]
    fn an_id_reads_back_as_it_is_written_and_nothing_else_does() {
        let id = RequestId::from_random(0xab);
        assert_eq!(id.to_string(), "0000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "ab", "000000000000", "0000000000abc", "+000000000ab", "00000000 0ab"] {
            assert_eq!(wrong.parse::<RequestId>(), Err(RequestIdError), "{wrong:?}");
        }
    }
}
