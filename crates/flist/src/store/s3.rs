//! A store in an S3 bucket: object `<64 hex>` at its root, path-style URLs, requests signed in their query (SigV4).
//!
//! Requests without credentials are not signed: this serves public buckets, because packing strips the password.

use std::io::Read as _;
use std::time::Duration;

use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use ureq::http::Response;
use ureq::{Agent, Body};
use url::Url;

use super::download::read_block;
use super::{ATTEMPT_TIMEOUT, Action, BLOCK_TIMEOUT, BlockStore, SILENCE_TIMEOUT, StoreError, backoff};
use crate::hash::BlockId;
use crate::http::{self, Bounds, HttpFailure};
use crate::net::NetRoutes;
use crate::url::{ServerUrl, redact};

/// The lifetime of a signature. It covers a difference between the clocks, of which servers allow a quarter of an hour.
/// The signed URL appears in no log and no error.
const SIGNATURE_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// The region if the URL has none: the default of servers other than Amazon's.
const DEFAULT_REGION: &str = "us-east-1";

/// The bytes read of an error answer: its code is at the beginning.
const MAX_ERROR_BODY: u64 = 4096;

/// The most letters of an error code: the longest of the API has about 50.
const MAX_CODE_LEN: usize = 64;

/// Blocks in a bucket of an S3 server. Keeps its connections for reuse.
pub struct S3Store {
    agent: Agent,
    bucket: Bucket,
    credentials: Option<Credentials>,
    name: String,
}

impl std::fmt::Debug for S3Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3Store({})", self.name)
    }
}

impl S3Store {
    /// Makes the store of `s3://[user:secret@]host[:port]/bucket[?region=]`, with TLS as `s3s://` or `s3+tls://`.
    ///
    /// Connects at the first request.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`] if the URL has another form.
    pub fn new(store_url: &str) -> Result<Self, StoreError> {
        Self::with_hosts(store_url, NetRoutes::Any)
    }

    /// As [`S3Store::new`], but connects only where the policy allows.
    pub(super) fn with_hosts(store_url: &str, hosts: NetRoutes) -> Result<Self, StoreError> {
        let name = redact(store_url);
        let bad = |reason| StoreError::BadUrl { store: name.clone(), reason };
        let parts = ServerUrl::parse(store_url).map_err(bad)?;
        let tls = !store_url.to_ascii_lowercase().starts_with("s3://");
        let (scheme, default_port) = if tls { ("https", 443) } else { ("http", 80) };
        let endpoint = format!("{scheme}://{}", parts.host_and_port(parts.port.unwrap_or(default_port)));
        let endpoint = endpoint.parse::<Url>().map_err(|_| bad("its host is not a host name"))?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8"));
        let path = text(parts.path)?;
        let bucket_name = path.trim_end_matches('/').to_owned();
        if bucket_name.is_empty() || bucket_name.contains('/') || bucket_name.starts_with('.') {
            return Err(bad("its path is not the name of a bucket"));
        }
        let region = parts.query.iter().find(|(key, _)| key == "region").map(|(_, region)| region.clone());
        let region = region.filter(|region| !region.is_empty()).unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let bucket = Bucket::new(endpoint, UrlStyle::Path, bucket_name, region)
            .map_err(|_| bad("its path is not the name of a bucket"))?;
        // A user without a password remains after stripping the password.
        let credentials = match parts.password {
            Some(secret) if !secret.is_empty() => Some(Credentials::new(text(parts.user)?, text(secret)?)),
            _ => None,
        };
        let agent = http::agent(Bounds { whole: ATTEMPT_TIMEOUT, silence: SILENCE_TIMEOUT, https_only: tls, hosts });
        Ok(Self { agent, bucket, credentials, name })
    }

    fn failed(&self, action: Action, id: &BlockId) -> impl Fn(ureq::Error) -> StoreError {
        let (store, id) = (self.name.clone(), *id);
        move |error| StoreError::Exchange { action, store: store.clone(), id, source: HttpFailure::from_client(error) }
    }

    /// Converts a refusal to an error by its code, which says more than the status.
    fn refused(&self, action: Action, id: &BlockId, response: &mut Response<Body>) -> StoreError {
        let mut body = Vec::new();
        // A truncated answer has no code; its status is enough.
        let _broken = response.body_mut().as_reader().take(MAX_ERROR_BODY).read_to_end(&mut body);
        let (store, status, code) = (self.name.clone(), response.status().as_u16(), error_code(&body));
        match (status, code.as_str()) {
            (404, "NoSuchBucket") => StoreError::NoStore { store },
            (404, _) if action == Action::Get => StoreError::NotFound { store, id: *id },
            _ => StoreError::Status { action, store, id: *id, status, code },
        }
    }

    fn put_once(&self, id: &BlockId, stored: &[u8], limit: Duration) -> Result<(), StoreError> {
        let signed = self.bucket.put_object(self.credentials.as_ref(), &id.to_hex()).sign(SIGNATURE_LIFETIME);
        // The request body would not follow a redirect, so redirects are disabled.
        let request = self.agent.put(signed.as_str()).config().max_redirects(0).timeout_global(Some(limit)).build();
        let mut response = request.send(stored).map_err(self.failed(Action::Put, id))?;
        if response.status().is_success() { Ok(()) } else { Err(self.refused(Action::Put, id, &mut response)) }
    }
}

/// Extracts `<Code>…</Code>`. Only letters and digits are accepted, so that a hostile answer cannot write into our log.
fn error_code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    code.filter(|code| code.len() <= MAX_CODE_LEN && code.chars().all(|c| c.is_ascii_alphanumeric()))
        .unwrap_or_default()
        .to_owned()
}

impl BlockStore for S3Store {
    fn get(&self, id: &BlockId) -> Result<Vec<u8>, StoreError> {
        self.get_within(id, ATTEMPT_TIMEOUT)
    }

    fn get_within(&self, id: &BlockId, limit: Duration) -> Result<Vec<u8>, StoreError> {
        let signed = self.bucket.get_object(self.credentials.as_ref(), &id.to_hex()).sign(SIGNATURE_LIFETIME);
        let request = self.agent.get(signed.as_str()).config().max_redirects(0).timeout_global(Some(limit)).build();
        let mut response = request.call().map_err(self.failed(Action::Get, id))?;
        match response.status().as_u16() {
            200 => read_block(&mut response, &self.name, id),
            _ => Err(self.refused(Action::Get, id, &mut response)),
        }
    }

    fn put(&self, id: &BlockId, stored: &[u8]) -> Result<(), StoreError> {
        backoff::retry(BLOCK_TIMEOUT, |limit| self.put_once(id, stored, limit))
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_code_is_taken_from_an_error_answer() {
        assert_eq!(error_code(b"<?xml?><Error><Code>NoSuchKey</Code><Message>m</Message></Error>"), "NoSuchKey");
        assert_eq!(error_code(b"<Code>\x1b[2J</Code>"), "");
        assert_eq!(error_code(format!("<Code>{}</Code>", "x".repeat(65)).as_bytes()), "");
        assert_eq!(error_code(b"<Code>cut"), "");
    }

    #[test]
    fn a_bucket_needs_a_host_and_one_name() {
        for url in ["s3://h:9000/b", "s3://u:p@h:9000/b?region=r", "s3s://h/b", "s3+tls://[::1]:9000/b", "s3://u@h/b/"]
        {
            S3Store::new(url).unwrap();
        }
        for url in ["s3://h:9000", "s3://h:9000/", "s3:///b", "s3://h/..", "s3://h/a%2Fb", "s3://u:%ff@h/b"] {
            assert!(matches!(S3Store::new(url), Err(StoreError::BadUrl { .. })), "{url}");
        }
    }
}
