//! Who asked for a container, where that is somebody with limited rights.

use serde::{Deserialize, Serialize};

/// A user of the node, as the kernel named it when it connected. Kept with what it asked for: each start is judged by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its supplementary groups.
    #[serde(default)]
    pub groups: Vec<u32>,
}

impl Caller {
    /// Tells whether it belongs to a group, primary or supplementary.
    #[must_use]
    pub fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}
