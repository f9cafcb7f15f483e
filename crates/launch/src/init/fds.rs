//! The table of descriptors that is sent with a plan.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::fault::Fault;
use crate::plan::FdIndex;

/// Descriptors by index.
#[derive(Debug)]
pub struct FdTable(Vec<OwnedFd>);

impl FdTable {
    /// Makes the table from the descriptors received with the plan.
    pub fn new(fds: Vec<OwnedFd>) -> Self {
        Self(fds)
    }

    /// Returns the descriptor at an index.
    pub(crate) fn get(&self, index: FdIndex) -> Result<BorrowedFd<'_>, Fault> {
        let fd = self.0.get(usize::from(index.0)).map(AsFd::as_fd);
        fd.ok_or_else(|| Fault::kernel("", format!("find descriptor {}", index.0), &io::ErrorKind::NotFound.into()))
    }
}
