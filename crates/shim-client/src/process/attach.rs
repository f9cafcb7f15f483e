//! Finding the shim of a container after the daemon has started.

use std::sync::Arc;
use std::time::Duration;

use contd_lease::LeaseState;
use contd_protocol::shim::files;
use contd_types::Exit;

use super::shim::ProcessShim;
use super::{Place, blocking};
use crate::{Attached, ShimError};

const VERB: &str = "attach to";

/// How often a living shim is tried: it may have claimed its lease just now and not listen yet.
const MAX_TRIES: u32 = 3;

/// Between two tries, when the first one failed at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks at the lease, then asks the shim or reads what it left.
pub(super) async fn attach(place: &Place) -> Result<Attached, ShimError> {
    let mut tries = 0;
    loop {
        if let Some(found) = blocking(place, VERB, look).await? {
            return Ok(found);
        }
        tries += 1;
        match ask(place).await {
            Ok(found) => return Ok(found),
            Err(ShimError::Connect { .. } | ShimError::Lost { .. }) if tries < MAX_TRIES => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Tells what is known without the shim; `None` when it lives.
fn look(place: &Place) -> Result<Option<Attached>, ShimError> {
    match place.lease.probe().map_err(|source| place.lease_failed(source))? {
        LeaseState::Absent | LeaseState::OtherBoot(_) => Ok(Some(Attached::Absent)),
        LeaseState::Held(_) => Ok(None),
        // A reserved one belongs to a daemon that died while it started the shim; or to a shim that is just coming up,
        // which ends by itself when the lease is retired.
        LeaseState::Reserved | LeaseState::Dead(_) => {
            let exit: Option<Exit> = place.read(files::EXIT);
            let is_orphaned = exit.is_none()
                && place
                    .living_init()
                    .map_err(|error| place.clean_up_failed(&place.file(files::INIT), error))?
                    .is_some();
            Ok(Some(Attached::Dead { exit, is_orphaned }))
        }
    }
}

async fn ask(place: &Place) -> Result<Attached, ShimError> {
    let shim = ProcessShim::connect(place, VERB).await?;
    let state = shim.state_for(VERB).await?;
    Ok(Attached::Alive { shim: Arc::new(shim), state })
}
