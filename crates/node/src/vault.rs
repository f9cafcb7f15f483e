//! The service manager as the keeper of what is held of running containers.

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use contd_service_manager::ServiceManager;
use contd_shim_client::{NoVault, Vault};
use tracing::warn;

/// Messages that may wait for the manager: three for each of a thousand containers that start or end at once. Each holds
/// a descriptor at most.
const QUEUED: usize = 4096;

/// One thing to tell.
#[derive(Debug)]
enum Word {
    Store(String, OwnedFd),
    Remove(String),
}

/// Tells the manager in a thread of its own, in order: it may be busy for seconds, and nobody shall wait for it.
#[derive(Debug)]
pub(crate) struct ManagerVault {
    queue: SyncSender<Word>,
}

impl ManagerVault {
    /// Makes the vault of a manager; one that keeps nothing when there is none.
    pub(crate) fn of(manager: &ServiceManager) -> Arc<dyn Vault> {
        if !manager.is_there() {
            return Arc::new(NoVault);
        }
        let (queue, words) = sync_channel(QUEUED);
        let manager = manager.clone();
        let thread = std::thread::Builder::new().name("vault".to_owned()).spawn(move || carry(&manager, &words));
        match thread {
            // It ends with the last sender.
            Ok(_detached) => Arc::new(Self { queue }),
            Err(error) => {
                warn!(%error, "the service manager keeps nothing of containers");
                Arc::new(NoVault)
            }
        }
    }

    fn queue(&self, word: Word) {
        if self.queue.try_send(word).is_err() {
            warn!("the service manager does not keep up, it keeps less of containers");
        }
    }
}

impl Vault for ManagerVault {
    fn store(&self, name: String, fd: OwnedFd) {
        self.queue(Word::Store(name, fd));
    }

    fn remove(&self, name: String) {
        self.queue(Word::Remove(name));
    }
}

fn carry(manager: &ServiceManager, words: &Receiver<Word>) {
    for word in words {
        let told = match &word {
            Word::Store(name, fd) => manager.store(name, fd.as_fd()),
            Word::Remove(name) => manager.remove(name),
        };
        if let Err(error) = told {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            warn!(%error, cause, "the service manager does not keep what it should");
        }
    }
}
