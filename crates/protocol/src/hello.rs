//! The first words on every connection: which versions each side speaks. Their layout never changes.

use serde::{Deserialize, Serialize};

/// The version of the frames that carry [`Hello`] and [`HelloReply`].
pub const HELLO_VERSION: u16 = 0;

/// The versions that a side speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRange {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

/// The caller's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The versions it speaks.
    pub versions: VersionRange,
    /// Its name and version, for logs.
    pub agent: String,
}

/// The other side's answer; after a refusal it closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloReply {
    /// The call goes on.
    Welcome {
        /// The version of all further frames.
        version: u16,
        /// The answering side's name and version.
        agent: String,
        /// The features of this side beyond its version: none yet. The form of a hello can never change, so this is the place
        /// for what a version cannot say. Unknown words are to be ignored.
        features: Vec<String>,
    },
    /// The call ends here.
    Refused(Refusal),
}

/// Why a connection is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No version in common.
    #[error("no common protocol version: the caller speaks {}-{}, this side {}-{}", caller.min, caller.max, own.min, own.max)]
    NoCommonVersion {
        /// The caller's versions.
        caller: VersionRange,
        /// This side's versions.
        own: VersionRange,
    },
    /// The caller has no right to anything here.
    #[error("uid {uid} may not use this socket")]
    Forbidden {
        /// The caller's uid.
        uid: u32,
    },
    /// Too many connections.
    #[error("{limit} connections are open, the most allowed")]
    TooManyConnections {
        /// The limit.
        limit: u32,
    },
    /// A limit that the operator has set is reached.
    #[error("{what}")]
    Full {
        /// The owner of the limit, the limit, and its key.
        what: String,
    },
}

/// Finds the newest version that both sides speak.
///
/// # Errors
/// [`Refusal::NoCommonVersion`] when there is none.
pub fn negotiate(caller: VersionRange, own: VersionRange) -> Result<u16, Refusal> {
    let newest = caller.max.min(own.max);
    if newest >= caller.min.max(own.min) { Ok(newest) } else { Err(Refusal::NoCommonVersion { caller, own }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(min: u16, max: u16) -> VersionRange {
        VersionRange { min, max }
    }

    #[test]
    fn the_newest_common_version_wins() {
        assert_eq!(negotiate(range(1, 3), range(2, 5)), Ok(3));
        assert_eq!(negotiate(range(1, 1), range(1, 1)), Ok(1));
    }

    #[test]
    fn disjoint_ranges_are_refused_with_both_named() {
        for (caller, own) in [(range(1, 2), range(3, 4)), (range(9, 9), range(1, 1)), (range(3, 1), range(1, 3))] {
            assert!(negotiate(caller, own).is_err(), "{caller:?} and {own:?} agreed");
        }
    }

    #[test]
    fn the_bytes_of_a_hello_are_pinned() {
        let hello = Hello { versions: range(1, 2), agent: "a".into() };
        assert_eq!(crate::encode(&hello).expect("small"), [1, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a']);
    }
}
