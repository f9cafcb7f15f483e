//! The limited user who asked for a container.

use serde::{Deserialize, Serialize};

/// A user of the node, as the kernel identified it when it connected. Stored with the container: each start is checked
/// against the user's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user id.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    #[serde(default)]
    pub groups: Vec<u32>,
}

impl Caller {
    /// Tells whether the user belongs to a group, primary or supplementary.
    #[must_use]
    pub fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}
