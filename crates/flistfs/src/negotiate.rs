//! The agreement of kernel and server in INIT: made once per connection, and kept by every server after it.

use serde::{Deserialize, Serialize};

use crate::wire::{Init, MAJOR, MAX_READ_AHEAD_BYTES, MINOR, OLDEST_MINOR, init_flag};

/// The kernel's features that are used where it has them.
const WANTED_FLAGS: u64 = init_flag::ASYNC_READ
    | init_flag::DO_READDIRPLUS
    | init_flag::PARALLEL_DIROPS
    | init_flag::MAX_PAGES
    | init_flag::CACHE_SYMLINKS
    | init_flag::NO_OPENDIR_SUPPORT
    | init_flag::INIT_EXT
    | init_flag::PASSTHROUGH;

/// File systems that may lie below a file that is passed through, itself included: one, so that an overlay (the kernel
/// stacks two) can lie on top. The cache must then not lie on an overlay itself.
const STACK_DEPTH: u32 = 1;

/// The result of INIT. A successor that serves the same connection gets it from whoever kept the device: the kernel
/// tells it only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    /// The protocol's minor version.
    pub minor: u32,
    /// The most that the kernel reads ahead, in bytes.
    pub max_readahead: u32,
    /// The features of both sides: the low half is `flags`, the high half `flags2` of the protocol.
    pub flags: u64,
    /// How many file systems may lie below a file that is passed through; 0 without passthrough.
    pub max_stack_depth: u32,
}

impl Negotiated {
    /// Answers the kernel's offer; `None` if it speaks another protocol or is older than Linux 5.4.
    #[must_use]
    pub fn agree(offer: &Init) -> Option<Self> {
        if offer.major != MAJOR || offer.minor < OLDEST_MINOR {
            return None;
        }
        let flags = offer.flags & WANTED_FLAGS;
        Some(Self {
            minor: offer.minor.min(MINOR),
            max_readahead: offer.max_readahead.min(MAX_READ_AHEAD_BYTES),
            flags,
            max_stack_depth: if flags & init_flag::PASSTHROUGH == 0 { 0 } else { STACK_DEPTH },
        })
    }

    /// Writes it down for a successor.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Four integers can always be written; a successor would refuse an empty text.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Tells whether a feature was agreed on.
    #[must_use]
    pub fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_sides_know_is_agreed_on() {
        let offer = Init { major: MAJOR, minor: 45, max_readahead: u32::MAX, flags: u64::MAX };
        let agreed = Negotiated::agree(&offer).unwrap();
        assert_eq!((agreed.minor, agreed.max_readahead, agreed.flags), (MINOR, MAX_READ_AHEAD_BYTES, WANTED_FLAGS));
        assert!(agreed.has(init_flag::PASSTHROUGH) && agreed.max_stack_depth == STACK_DEPTH);
        let old = Init { minor: OLDEST_MINOR, flags: init_flag::ASYNC_READ | 1 << 50, ..offer };
        let agreed = Negotiated::agree(&old).unwrap();
        assert_eq!((agreed.minor, agreed.flags, agreed.max_stack_depth), (OLDEST_MINOR, init_flag::ASYNC_READ, 0));
        assert!(agreed.has(init_flag::ASYNC_READ) && !agreed.has(init_flag::PASSTHROUGH));
        assert_eq!(Negotiated::agree(&Init { minor: OLDEST_MINOR - 1, ..offer }), None);
        assert_eq!(Negotiated::agree(&Init { major: MAJOR + 1, ..offer }), None);
    }
}
