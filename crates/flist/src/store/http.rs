//! A store behind a web server: GET `<url>/<2 hex>/<64 hex>`, and on 404 GET `<url>/<64 hex>`. Read only.

use std::time::Duration;

use ureq::Agent;

use super::{BlockStore, StoreError};
use crate::block::MAX_STORED_LEN;
use crate::clock::Deadline;
use crate::hash::BlockId;
use crate::http::{self, HttpFailure};
use crate::url;

/// The longest that one attempt may take, both names included: a block of 300 KiB at 64 KiB/s.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Blocks served over `http://` or `https://`. Keeps its connections for reuse.
pub struct HttpStore {
    agent: Agent,
    base: String,
    query: String,
    name: String,
}

impl std::fmt::Debug for HttpStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpStore({})", self.name)
    }
}

impl HttpStore {
    /// Names the server. Connects at the first [`BlockStore::get`].
    ///
    /// # Errors
    /// [`StoreError::BadUrl`] if the URL has no host or characters that a URL cannot have.
    pub fn new(store_url: &str) -> Result<Self, StoreError> {
        let name = url::redact(store_url);
        if !http::is_valid_url(store_url) {
            return Err(StoreError::BadUrl { store: name, reason: "it is not a valid http URL" });
        }
        let without_fragment = store_url.split_once('#').map_or(store_url, |(url, _)| url);
        let (base, query) = match without_fragment.split_once('?') {
            Some((base, query)) => (base, format!("?{query}")),
            None => (without_fragment, String::new()),
        };
        let agent = http::agent(ATTEMPT_TIMEOUT, ATTEMPT_TIMEOUT);
        Ok(Self { agent, base: base.trim_end_matches('/').to_owned(), query, name })
    }

    /// Asks for one name within the time left. `None` if the server says that there is no such thing.
    fn request(&self, name: &str, id: &BlockId, deadline: Deadline) -> Result<Option<Vec<u8>>, StoreError> {
        let failed = |source| StoreError::Exchange { store: self.name.clone(), id: *id, source };
        let left = deadline.remaining();
        if left.is_zero() {
            return Err(failed(HttpFailure::Timeout));
        }
        let request = self.agent.get(format!("{}/{name}{}", self.base, self.query));
        let request = request.config().timeout_global(Some(left)).build();
        let mut response = request.call().map_err(|error| failed(HttpFailure::from_client(error)))?;
        match response.status().as_u16() {
            200 => {}
            404 | 410 => return Ok(None),
            status => return Err(StoreError::Status { store: self.name.clone(), id: *id, status }),
        }
        let too_large = || StoreError::TooLarge { store: self.name.clone(), id: *id, limit: MAX_STORED_LEN };
        let announced = response.body().content_length();
        let limit = MAX_STORED_LEN as u64;
        if announced.is_some_and(|announced| announced > limit) {
            return Err(too_large());
        }
        let body = response.body_mut().with_config().limit(limit + 1).read_to_vec();
        let stored = match body {
            Ok(stored) if stored.len() > MAX_STORED_LEN => return Err(too_large()),
            Err(ureq::Error::BodyExceedsLimit(_)) => return Err(too_large()),
            Err(error) => return Err(failed(HttpFailure::from_client(error))),
            Ok(stored) => stored,
        };
        match announced {
            Some(announced) if announced != stored.len() as u64 => {
                Err(failed(HttpFailure::CutShort { received: stored.len() as u64, announced }))
            }
            _ => Ok(Some(stored)),
        }
    }
}

impl BlockStore for HttpStore {
    fn get(&self, id: &BlockId) -> Result<Vec<u8>, StoreError> {
        let deadline = Deadline::after(ATTEMPT_TIMEOUT);
        let name = id.to_hex();
        for name in [format!("{}/{name}", id.shard()), name] {
            if let Some(stored) = self.request(&name, id, deadline)? {
                return Ok(stored);
            }
        }
        Err(StoreError::NotFound { store: self.name.clone(), id: *id })
    }

    fn put(&self, id: &BlockId, _stored: &[u8]) -> Result<(), StoreError> {
        Err(StoreError::ReadOnly { store: self.name.clone(), id: *id })
    }

    fn name(&self) -> &str {
        &self.name
    }
}
