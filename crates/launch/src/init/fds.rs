//! The table of descriptors beside a plan.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::fault::Fault;
use crate::plan::FdIndex;

/// Descriptors by their place.
#[derive(Debug)]
pub struct FdTable(Vec<OwnedFd>);

impl FdTable {
    /// Takes what arrived with the plan.
    pub fn new(fds: Vec<OwnedFd>) -> Self {
        Self(fds)
    }

    /// Returns the descriptor at a place.
    pub(crate) fn get(&self, index: FdIndex) -> Result<BorrowedFd<'_>, Fault> {
        let fd = self.0.get(usize::from(index.0)).map(AsFd::as_fd);
        fd.ok_or_else(|| Fault::kernel("", format!("find descriptor {}", index.0), &io::ErrorKind::NotFound.into()))
    }
}
