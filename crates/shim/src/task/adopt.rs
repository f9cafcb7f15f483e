//! A container that a predecessor has made: the predecessor died, or has handed over.
//!
//! The predecessor's records say who init is. Its output goes on where it was; its end is known from the kernel when
//! somebody kept a pidfd of it or it lives still, and said to be unknown otherwise.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use contd_durable::{Fs, RealFs};
use contd_failpoint::Failpoint;
use contd_protocol::shim::files;
use contd_types::{Exit, ExitSource};
use serde::de::DeserializeOwned;

use super::{Phase, Task};
use crate::error::TaskError;
use crate::holder;
use crate::init::{Init, StoredInit};
use crate::process::{self, End};

/// The most bytes of a record of ours.
const MAX_RECORD_BYTES: u64 = 64 * 1024;

/// Why nobody knows how a container ended.
const NOBODY_WATCHED: &str = "its shim died, and it ended while nobody else watched";

impl Task {
    /// Goes on with what a predecessor has left, if it has left a container. `kept` is a pidfd of its init, if somebody
    /// has kept one. Only legal before the first call.
    pub(crate) fn adopt(&mut self, kept: Option<OwnedFd>) -> Result<(), TaskError> {
        let Some(stored) = self.read_record::<StoredInit>(files::INIT)? else { return Ok(()) };
        let is_started = stored.record.is_started;
        if let Some(exit) = self.read_record::<Exit>(files::EXIT)? {
            self.phase = Phase::Exited { pid: stored.record.pid, exit, is_started };
            return Ok(());
        }
        contd_failpoint::hit(Failpoint::AdoptRead);
        let id = self.spec.id.clone();
        self.pump.adopt().map_err(|source| TaskError::Output { id: id.clone(), source })?;
        self.adopt_input()?;
        contd_failpoint::hit(Failpoint::AdoptReplayed);
        let is_kept = kept.as_ref().is_some_and(|fd| process::is_of(fd, stored.record.pid.0));
        let run_dir = self.dir.parent().and_then(Path::parent).unwrap_or(&self.dir).to_owned();
        let init = Init::take_over(&stored, kept, &run_dir).map_err(|source| TaskError::Adopt { id, source })?;
        self.adopt_execs(&run_dir)?;
        super::exec::remove_leftovers(&self.dir);
        contd_failpoint::hit(Failpoint::AdoptTaken);
        self.phase = Phase::Live { is_started, is_paused: stored.cgroup.is_frozen() };
        // The keeper of init's pidfd has held the FIFOs too, and so does a container that lives. Without both, what lay in
        // them is gone, and nobody must say that the output is complete.
        self.is_rest_whole =
            is_kept || init.as_ref().is_some_and(|init| init.process().is_dead().is_ok_and(|is_dead| !is_dead));
        self.diagnostics.info(format_args!("took over init {}, which {}", stored.record.pid, alive(init.as_ref())));
        match init {
            Some(init) => self.init = Some(init),
            None => {
                let end = match holder::noted(&run_dir, &stored.identity()) {
                    Some(status) => End::Known(status, ExitSource::Reaped),
                    None => End::Unknown(NOBODY_WATCHED.to_owned()),
                };
                self.lost = Some(stored);
                self.begin_ending(end);
            }
        }
        Ok(())
    }

    pub(super) fn read_record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, TaskError> {
        let path = self.dir.join(name);
        let failed = |source| TaskError::ReadRecord { path: path.clone(), source };
        match RealFs.read(&path, MAX_RECORD_BYTES) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }
}

fn alive(init: Option<&Init>) -> &'static str {
    if init.is_some() { "lives or whose end the kernel tells" } else { "has ended unseen" }
}
