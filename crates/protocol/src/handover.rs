//! The messages between a daemon and its successor, over a socket that only they use.
//!
//! ```text
//!  successor ── Hello ──► daemon      HelloReply::Welcome
//!            ── TakeOver ──►          Listener + the listening descriptor, at once
//!                                     Kept + descriptors, as often as needed, when it has come to rest
//!                                     Rested; then it lets go of its lock and ends
//! ```
//! Frames as everywhere, of kind [`Kind::Call`](crate::Kind) to the daemon and [`Kind::Item`](crate::Kind) back. The
//! descriptors come beside the first byte of the frame that counts them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::MAX_CONTROL_BODY_BYTES;
use crate::hello::VersionRange;
use crate::session::{NoItem, Protocol};

/// The protocol of this module. Its one call has no id, and its items no reply.
#[derive(Debug)]
pub enum HandoverSocket {}

impl Protocol for HandoverSocket {
    type Request = Request;
    type Item = Word;
    type Response = NoItem;
    const VERSIONS: VersionRange = VersionRange { min: 1, max: 1 };
    const MAX_BODY_BYTES: usize = MAX_CONTROL_BODY_BYTES;
    const MAX_CALLS: usize = 1;
}

/// The requests of a successor. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Stops accepting, hands over, comes to rest, and ends.
    TakeOver,
}

/// The messages of the daemon. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// The listening socket comes with this: one descriptor. From here on the daemon accepts nobody.
    Listener {
        /// Where the service manager hears, if there is one.
        notify_socket: Option<PathBuf>,
    },
    /// The descriptors that the daemon holds of running containers: one for each name, in this order.
    Kept {
        /// Their names.
        names: Vec<String>,
    },
    /// All was handed over and nothing is under way; the lock comes free now.
    Rested,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;

    #[test]
    fn the_bytes_are_pinned() {
        assert_eq!(encode(&Request::TakeOver).expect("small"), [0, 0, 0, 0]);
        assert_eq!(encode(&Word::Listener { notify_socket: None }).expect("small"), [0, 0, 0, 0, 0]);
        let kept = Word::Kept { names: vec!["a".into()] };
        assert_eq!(encode(&kept).expect("small"), [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a']);
        assert_eq!(encode(&Word::Rested).expect("small"), [2, 0, 0, 0]);
    }
}
