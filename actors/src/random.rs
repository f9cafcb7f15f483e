//! Randomness: ids and the spreading of retries. A test may bring its own, so that its run can be repeated.

use contd_types::{ContainerId, ExecId, RequestId};

/// Makes the id of a new container.
///
/// # Errors
/// The kernel has no randomness.
pub(crate) fn new_id() -> Result<ContainerId, getrandom::Error> {
    #[cfg(test)]
    if let Some((high, low)) = crate::tests::replay::number().zip(crate::tests::replay::number()) {
        return Ok(ContainerId::from_random(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()));
    }
    let mut bits = [0; 16];
    getrandom::fill(&mut bits)?;
    Ok(ContainerId::from_random(bits))
}

/// Returns any number, to spread retries. Without randomness they are not spread, and nothing else changes.
pub(crate) fn jitter() -> u64 {
    #[cfg(test)]
    if let Some(number) = crate::tests::replay::number() {
        return number;
    }
    getrandom::u64().unwrap_or_default()
}

/// Makes the id of an executed process.
///
/// # Errors
/// The kernel has no randomness.
pub(crate) fn exec_id() -> Result<ExecId, getrandom::Error> {
    #[cfg(test)]
    if let Some(number) = crate::tests::replay::number() {
        return Ok(ExecId::from_random(number));
    }
    getrandom::u64().map(ExecId::from_random)
}

/// Makes the id of an operation. Never of a test's own source: nothing is decided by it.
pub(crate) fn request_id() -> RequestId {
    RequestId::from_random(getrandom::u64().unwrap_or_default())
}
