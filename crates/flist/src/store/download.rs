//! Reads the bytes of a block from an HTTP response, up to the largest size of a block.

use ureq::Body;
use ureq::http::Response;

use super::{Action, StoreError};
use crate::block::MAX_STORED_LEN;
use crate::hash::BlockId;
use crate::http::HttpFailure;

/// Reads the whole body. The caller verifies the bytes.
pub(super) fn read_block(response: &mut Response<Body>, store: &str, id: &BlockId) -> Result<Vec<u8>, StoreError> {
    let failed = |source| StoreError::Exchange { action: Action::Get, store: store.to_owned(), id: *id, source };
    let too_large = || StoreError::TooLarge { store: store.to_owned(), id: *id, limit: MAX_STORED_LEN };
    let announced = response.body().content_length();
    let limit = MAX_STORED_LEN as u64;
    if announced.is_some_and(|announced| announced > limit) {
        return Err(too_large());
    }
    let stored = match response.body_mut().with_config().limit(limit + 1).read_to_vec() {
        Ok(stored) if stored.len() > MAX_STORED_LEN => return Err(too_large()),
        Err(ureq::Error::BodyExceedsLimit(_)) => return Err(too_large()),
        Err(error) => return Err(failed(HttpFailure::from_client(error))),
        Ok(stored) => stored,
    };
    match announced {
        Some(announced) if announced != stored.len() as u64 => {
            Err(failed(HttpFailure::CutShort { received: stored.len() as u64, announced }))
        }
        _ => Ok(stored),
    }
}
