//! All leases of shims, by what stands in them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_durable::{Fs, RealFs};
use contd_lease::{Lease, LeaseDir, LeaseError, LeaseState};
use contd_types::{ContainerId, NamespaceId, one_line};

use super::slots::Slots;
use super::{MAX_FILE_BYTES, dir_name, slots};
use crate::{FoundShim, ShimError};

/// Reads every lease; a directory that an interrupted removal left without one is removed.
pub(super) async fn list(dir: PathBuf, slots: Option<Arc<Slots>>) -> Result<Vec<FoundShim>, ShimError> {
    let own = dir.clone();
    match tokio::task::spawn_blocking(move || list_now(&own, slots.as_deref())).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(ShimError::List { path: dir, source: io::Error::other(error) }),
        },
    }
}

fn list_now(dir: &Path, slots: Option<&Slots>) -> Result<Vec<FoundShim>, ShimError> {
    let names = match RealFs.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ShimError::List { path: dir.to_owned(), source }),
    };
    let is_own_slot = |name: &OsString| name.to_str().is_some_and(|name| slots.is_some_and(|slots| slots.owns(name)));
    let found = names.iter().filter(|name| !is_own_slot(name)).filter_map(|name| {
        let path = dir.join(name);
        look(&path).unwrap_or_else(|why| {
            tracing::warn!(path = %path.display(), %why, "lease directory skipped");
            None
        })
    });
    Ok(found.collect())
}

fn look(path: &Path) -> Result<Option<FoundShim>, String> {
    let lease_dir = LeaseDir::new(path);
    let state = lease_dir.probe().map_err(|error| one_line(&error))?;
    let owner = match &state {
        LeaseState::Absent => {
            return match lease_dir.retire() {
                // A process that is about to reserve it holds its lock, or a slot that is removing itself.
                Ok(()) | Err(LeaseError::Held { .. }) => Ok(None),
                Err(error) => Err(one_line(&error)),
            };
        }
        LeaseState::Held(lease) | LeaseState::Dead(lease) | LeaseState::OtherBoot(lease) => lease.owner.clone(),
        LeaseState::Reserved => reserved_for(path)?,
    };
    if slots::is_slot(owner.split('/').next().unwrap_or_default()) {
        let Some(namespace) = slots::namespace_of(path) else { return slots::remove_abandoned(path).map(|()| None) };
        let id = owner.split('/').nth(1).unwrap_or_default();
        let id = ContainerId::new(id).map_err(|error| error.to_string())?;
        let is_alive = matches!(state, LeaseState::Held(_));
        return Ok(Some(FoundShim { namespace, id, dir: path.to_owned(), is_alive }));
    }
    let (namespace, id) = owner.split_once('/').ok_or_else(|| format!("its owner {owner:?} is no container"))?;
    let namespace = NamespaceId::new(namespace).map_err(|error| error.to_string())?;
    let id = ContainerId::new(id).map_err(|error| error.to_string())?;
    if path.file_name() != Some(dir_name(&id).as_ref()) {
        return Err(format!("it belongs to container {id}, whose directory has another name"));
    }
    Ok(Some(FoundShim { namespace, id, dir: path.to_owned(), is_alive: matches!(state, LeaseState::Held(_)) }))
}

/// The state of a reserved lease does not carry it.
fn reserved_for(path: &Path) -> Result<String, String> {
    let bytes = RealFs.read(&path.join("lease.json"), MAX_FILE_BYTES).map_err(|error| error.to_string())?;
    serde_json::from_slice::<Lease>(&bytes).map(|lease| lease.owner).map_err(|error| error.to_string())
}
