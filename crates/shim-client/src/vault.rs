//! Where descriptors outlive this process: a service manager's store, or nowhere.

use std::os::fd::OwnedFd;

/// Keeps descriptors for the next process. Best effort: what it loses costs something only when a shim dies together with
/// its daemon. Never blocks.
pub trait Vault: Send + Sync + std::fmt::Debug {
    /// Keeps a descriptor under a name, in the place of any other of that name.
    fn store(&self, name: String, fd: OwnedFd);

    /// Lets go of what is kept under a name; it is fine when there is none.
    fn remove(&self, name: String);
}

/// Keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVault;

impl Vault for NoVault {
    fn store(&self, _name: String, _fd: OwnedFd) {}

    fn remove(&self, _name: String) {}
}
