//! A read-only store on a web server: GET `<url>/<2 hex>/<64 hex>`, and on 404 GET `<url>/<64 hex>`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ureq::Agent;
use ureq::http::header::AUTHORIZATION;

use super::download::read_block;
use super::{ATTEMPT_TIMEOUT, Action, BlockStore, SILENCE_TIMEOUT, StoreError};
use crate::clock::Deadline;
use crate::hash::BlockId;
use crate::http::{self, Bounds, HttpFailure};
use crate::net::NetRoutes;
use crate::url::{self, ServerUrl};

/// Blocks served over `http://` or `https://`. Keeps connections for reuse.
pub struct HttpStore {
    agent: Agent,
    base: String,
    query: String,
    /// The value of the `Authorization` header, if the URL has a user or a password.
    authorization: Option<String>,
    name: String,
}

impl std::fmt::Debug for HttpStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpStore({})", self.name)
    }
}

impl HttpStore {
    /// Makes the store. Connects at the first [`BlockStore::get`].
    ///
    /// # Errors
    /// [`StoreError::BadUrl`] if the URL has no host or an invalid character.
    pub fn new(store_url: &str) -> Result<Self, StoreError> {
        Self::with_hosts(store_url, NetRoutes::Any)
    }

    /// As [`HttpStore::new`], but connects only where the policy allows, also after a redirect.
    pub(super) fn with_hosts(store_url: &str, hosts: NetRoutes) -> Result<Self, StoreError> {
        let name = url::redact(store_url);
        let bad = |reason| StoreError::BadUrl { store: name.clone(), reason };
        // The client never gets the user and the password, so its messages and caches cannot contain them.
        let (bare, userinfo) = url::take_userinfo(store_url);
        if !http::is_valid_url(&bare) {
            return Err(bad("it is not a valid http URL"));
        }
        let parts = ServerUrl::parse(store_url).map_err(bad)?;
        let authorization = userinfo.then(|| basic(&parts.user, parts.password.as_deref().unwrap_or_default()));
        let without_fragment = bare.split_once('#').map_or(bare.as_str(), |(url, _)| url);
        let (base, query) = match without_fragment.split_once('?') {
            Some((base, query)) => (base, format!("?{query}")),
            None => (without_fragment, String::new()),
        };
        let https_only = url::split_scheme(&bare).is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https"));
        let agent = http::agent(Bounds { whole: ATTEMPT_TIMEOUT, silence: SILENCE_TIMEOUT, https_only, hosts });
        Ok(Self { agent, base: base.trim_end_matches('/').to_owned(), query, authorization, name })
    }

    /// Requests one path within the time left. `None` if the server answers that it does not exist.
    fn request(&self, name: &str, id: &BlockId, deadline: Deadline) -> Result<Option<Vec<u8>>, StoreError> {
        let (action, store) = (Action::Get, || self.name.clone());
        let failed = |source| StoreError::Exchange { action, store: store(), id: *id, source };
        let left = deadline.remaining();
        if left.is_zero() {
            return Err(failed(HttpFailure::Timeout));
        }
        let mut request = self.agent.get(format!("{}/{name}{}", self.base, self.query));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.config().timeout_global(Some(left)).build();
        let mut response = request.call().map_err(|error| failed(HttpFailure::from_client(error)))?;
        match response.status().as_u16() {
            200 => read_block(&mut response, &self.name, id).map(Some),
            404 | 410 => Ok(None),
            status => Err(StoreError::Status { action, store: store(), id: *id, status, code: String::new() }),
        }
    }
}

/// Returns the header value for a user and a password.
fn basic(user: &[u8], password: &[u8]) -> String {
    format!("Basic {}", BASE64.encode([user, b":", password].concat()))
}

impl BlockStore for HttpStore {
    fn get(&self, id: &BlockId) -> Result<Vec<u8>, StoreError> {
        self.get_within(id, ATTEMPT_TIMEOUT)
    }

    fn get_within(&self, id: &BlockId, limit: Duration) -> Result<Vec<u8>, StoreError> {
        let deadline = Deadline::after(limit);
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

    fn is_writable(&self) -> bool {
        false
    }

    fn name(&self) -> &str {
        &self.name
    }
}
