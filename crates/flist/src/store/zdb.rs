//! A store in a namespace of a 0-db, by the part of the Redis protocol that a 0-db supports.
//!
//! ```text
//! new connection ──SELECT ns [password]──PING──> pool of 4 ──GET id──> bytes
//!                                                         ──EXISTS id──SET id bytes──>
//! ```
//! The key is the raw id. `SELECT` is omitted for the namespace `default`. `AUTH` is not used: `SELECT` has the password.

mod answer;
mod failure;
mod pool;
mod wire;

use std::time::Duration;

pub use failure::ZdbFailure;

use self::failure::Fault;
use self::pool::{Lease, Pool};
use self::wire::{Connection, Reply};
use super::{ATTEMPT_TIMEOUT, Action, BLOCK_TIMEOUT, BlockStore, SILENCE_TIMEOUT, StoreError, backoff};
use crate::block::MAX_STORED_LEN;
use crate::clock::Deadline;
use crate::hash::BlockId;
use crate::net::{self, NetRoutes};
use crate::url::{ServerUrl, redact};

/// The port if the URL has none.
const DEFAULT_PORT: u16 = 9900;

/// The namespace in which every connection starts.
const DEFAULT_NAMESPACE: &[u8] = b"default";

/// The longest name of a namespace, and the longest password, that a 0-db accepts.
const MAX_NAME_LEN: usize = 128;

/// Blocks in a namespace of a 0-db. Keeps up to four connections for reuse.
pub struct ZdbStore {
    address: String,
    namespace: Vec<u8>,
    password: Option<Vec<u8>>,
    hosts: NetRoutes,
    pool: Pool,
    name: String,
}

impl std::fmt::Debug for ZdbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ZdbStore({})", self.name)
    }
}

impl ZdbStore {
    /// Makes the store of `zdb://[user[:password]@]host[:port][/namespace]`. A 0-db has no users, so the user is ignored.
    ///
    /// Connects at the first request.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`] if the URL has another form.
    pub fn new(store_url: &str) -> Result<Self, StoreError> {
        Self::with_hosts(store_url, NetRoutes::Any)
    }

    /// As [`ZdbStore::new`], but connects only where the policy allows.
    pub(super) fn with_hosts(store_url: &str, hosts: NetRoutes) -> Result<Self, StoreError> {
        let name = redact(store_url);
        let bad = |reason| StoreError::BadUrl { store: name.clone(), reason };
        let parts = ServerUrl::parse(store_url).map_err(bad)?;
        let address = parts.host_and_port(parts.port.unwrap_or(DEFAULT_PORT));
        let password = parts.password.filter(|password| !password.is_empty());
        if parts.path.len() > MAX_NAME_LEN || password.as_ref().is_some_and(|password| password.len() > MAX_NAME_LEN) {
            return Err(bad("its namespace or its password is longer than a 0-db takes"));
        }
        // A path of `/` alone means the same as no path.
        let namespace = if parts.path.is_empty() { DEFAULT_NAMESPACE.to_vec() } else { parts.path };
        Ok(Self { address, namespace, password, hosts, pool: Pool::default(), name })
    }

    fn connect(&self, deadline: Deadline) -> Result<Connection, Fault> {
        let stream = net::dial(&self.address, &self.hosts, deadline.sooner(SILENCE_TIMEOUT))
            .map_err(|error| Fault::Failure(ZdbFailure::from_connect(error)))?;
        let mut connection = Connection::new(stream).map_err(|error| Fault::Failure(ZdbFailure::from_io(error)))?;
        if self.namespace != DEFAULT_NAMESPACE {
            let mut select = vec![&b"SELECT"[..], &self.namespace];
            select.extend(self.password.as_deref());
            connection.command(&select, deadline)?;
        }
        connection.command(&[b"PING"], deadline)?;
        Ok(connection)
    }

    /// Runs a step on a connection. If a kept connection is broken, runs it once more on a new one.
    fn run<T>(
        &self,
        limit: Duration,
        step: impl Fn(&mut Connection, Deadline) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let deadline = Deadline::after(limit);
        let mut lease = self.pool.lease(deadline)?;
        if let Lease::Kept(kept) = lease {
            match kept.run(|connection| step(connection, deadline)) {
                Err(fault) if fault.is_broken() => {}
                outcome => return outcome,
            }
            // The other kept connections are to the same server, which closed this one.
            self.pool.forget_kept();
            lease = self.pool.lease_new(deadline)?;
        }
        lease.connect(|| self.connect(deadline))?.run(|connection| step(connection, deadline))
    }

    fn put_once(&self, id: &BlockId, stored: &[u8], limit: Duration) -> Result<(), Fault> {
        let key = id.as_bytes();
        self.run(limit, |connection, deadline| {
            match connection.command(&[b"EXISTS", key], deadline)? {
                Reply::Number(0) => {}
                Reply::Number(_) => return Ok(()),
                _ => return Err(Fault::not_redis("EXISTS was not answered by a number")),
            }
            // A 0-db answers with the key, or with nothing if it has exactly that block; a Redis answers OK.
            connection.command(&[b"SET", key, stored], deadline).map(drop)
        })
    }

    /// Converts a fault to an error with the names of the store and the block.
    fn explain(&self, action: Action, id: &BlockId, fault: Fault) -> StoreError {
        let store = self.name.clone();
        match fault {
            Fault::Failure(source) => StoreError::Zdb { action, store, id: *id, source },
            Fault::TooLarge => StoreError::TooLarge { store, id: *id, limit: MAX_STORED_LEN },
            Fault::Answer(answer) => answer::classify(&answer, self.password.as_deref(), action, store, id),
        }
    }
}

impl BlockStore for ZdbStore {
    fn get(&self, id: &BlockId) -> Result<Vec<u8>, StoreError> {
        self.get_within(id, ATTEMPT_TIMEOUT)
    }

    fn get_within(&self, id: &BlockId, limit: Duration) -> Result<Vec<u8>, StoreError> {
        let got =
            self.run(limit, |connection, deadline| match connection.command(&[b"GET", id.as_bytes()], deadline)? {
                Reply::Bytes(stored) => Ok(Some(stored)),
                Reply::Nothing => Ok(None),
                _ => Err(Fault::not_redis("GET was not answered by bytes")),
            });
        match got {
            Ok(Some(stored)) => Ok(stored),
            Ok(None) => Err(StoreError::NotFound { store: self.name.clone(), id: *id }),
            Err(fault) => Err(self.explain(Action::Get, id, fault)),
        }
    }

    fn put(&self, id: &BlockId, stored: &[u8]) -> Result<(), StoreError> {
        backoff::retry(BLOCK_TIMEOUT, |limit| {
            self.put_once(id, stored, limit).map_err(|fault| self.explain(Action::Put, id, fault))
        })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_the_url_are_understood() {
        let store = |url| ZdbStore::new(url).unwrap();
        let one = store("zdb://me:p%40ss@[fd00::1]/ns");
        assert_eq!((one.address.as_str(), one.namespace.as_slice()), ("[fd00::1]:9900", &b"ns"[..]));
        assert_eq!(one.password.as_deref(), Some(&b"p@ss"[..]));
        for url in ["zdb://host", "zdb://host/", "zdb://me@host:9900/default", "zdb://me:@host"] {
            let one = store(url);
            assert_eq!((one.address.as_str(), one.namespace.as_slice()), ("host:9900", DEFAULT_NAMESPACE), "{url}");
            assert_eq!(one.password, None, "{url}");
        }
        assert_eq!(store("zdb://:secret@h:1/ns").password.as_deref(), Some(&b"secret"[..]));
        for url in ["zdb:///path", "zdb://h:x/ns", "zdb://:p@", &format!("zdb://h/{}", "n".repeat(129))] {
            assert!(matches!(ZdbStore::new(url), Err(StoreError::BadUrl { .. })), "{url}");
        }
    }
}
