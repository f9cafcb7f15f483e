//! The cache of compiled seccomp programs.

use serde::{Deserialize, Serialize};

/// A compiled program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// `sock_filter` by `sock_filter`.
    pub instructions: Vec<u64>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}
