//! Finding the shim of a container, after the daemon has started or when the shim was lost.

use std::sync::Arc;
use std::time::Duration;

use contd_durable::{Fs, RealFs};
use contd_failpoint::Failpoint;
use contd_lease::LeaseState;
use contd_protocol::shim::files;
use contd_types::Exit;

use super::shim::ProcessShim;
use super::{Place, ProcessShimClient, blocking, launch};
use crate::{Attached, ShimError};

const VERB: &str = "attach to";

/// How often a living shim is tried: it may have claimed its lease just now and not listen yet.
const MAX_TRIES: u32 = 3;

/// Between two tries, when the first one failed at once.
const PAUSE: Duration = Duration::from_millis(100);

/// The state of a shim by its lease.
enum Look {
    /// The shim lives.
    Lives,
    /// It does not, but its container does, or ended without anybody writing down how.
    Orphaned,
    /// There is nobody to ask.
    Over(Attached),
}

/// Looks at the lease, then asks the shim or reads what it left; starts a successor where one is needed.
pub(super) async fn attach(client: &ProcessShimClient, place: &Place) -> Result<Attached, ShimError> {
    let mut tries = 0;
    loop {
        let look = blocking(place, VERB, look).await?;
        contd_failpoint::hit(Failpoint::AttachLooked);
        match look {
            Look::Lives => {}
            Look::Orphaned => {
                tracing::warn!("shim dead, successor started");
                launch::succeed(&client.holder, place, client.keep.init(&place.id)).await?;
            }
            Look::Over(found) => {
                client.keep.let_go(&place.id);
                return Ok(found);
            }
        }
        tries += 1;
        match ask(client, place).await {
            Ok(found) => return Ok(found),
            Err(ShimError::Connect { .. } | ShimError::Lost { .. }) if tries < MAX_TRIES => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn look(place: &Place) -> Result<Look, ShimError> {
    match place.lease.probe().map_err(|source| place.lease_failed(source))? {
        LeaseState::Absent | LeaseState::OtherBoot(_) => Ok(Look::Over(Attached::Absent)),
        LeaseState::Held(_) => Ok(Look::Lives),
        // A reserved one belongs to a daemon that died while it started the shim; or to a shim that is just coming up,
        // which ends by itself when the lease is retired.
        LeaseState::Reserved | LeaseState::Dead(_) => {
            let exit: Option<Exit> = place.read(files::EXIT);
            let was_made = RealFs.exists(&place.file(files::INIT));
            let was_made = was_made.map_err(|error| place.clean_up_failed(&place.file(files::INIT), error))?;
            let is_orphaned = exit.is_none() && was_made;
            Ok(if is_orphaned { Look::Orphaned } else { Look::Over(Attached::Dead { exit }) })
        }
    }
}

async fn ask(client: &ProcessShimClient, place: &Place) -> Result<Attached, ShimError> {
    let shim = ProcessShim::connect(place, Arc::clone(&client.keep), VERB).await?;
    let state = shim.state_for(VERB).await?;
    contd_failpoint::hit(Failpoint::AttachDone);
    shim.hold(&state).await;
    shim.tell_the_log();
    Ok(Attached::Alive { shim: Arc::new(shim), state })
}
