//! A process of its own for what may wait for the kernel: freezing, killing, emptying a cgroup.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use contd_cgroup::CgroupError;
use contd_process::{Fork, exit_now, fork};
use contd_types::{ContainerId, ErrorKind, one_line};

use super::{Operation, Outcome, RuntimeError, Verb, Words};
use crate::sys;

/// How much of a worker's words is read.
const MAX_WORDS_BYTES: u64 = 4096;

/// The message of a worker that succeeded; its end without a message is a failure.
const DONE: &[u8] = b"\n";

/// A forked process that does one thing and tells how it went.
#[derive(Debug)]
pub(super) struct Worker {
    verb: Verb,
    id: ContainerId,
    pid: i32,
    words: PipeReader,
}

impl Worker {
    /// Forks it. Legal because a shim has one thread.
    pub(super) fn fork(
        verb: Verb,
        id: &ContainerId,
        work: impl FnOnce() -> Result<(), CgroupError>,
    ) -> Result<Self, RuntimeError> {
        let failed = |source| RuntimeError::Watch { verb, id: id.clone(), source };
        let (words, mut writer) = io::pipe().map_err(failed)?;
        match fork().map_err(failed)? {
            Fork::Parent(pid) => Ok(Self { verb, id: id.clone(), pid: pid.as_raw(), words }),
            Fork::Child => {
                let said = match work() {
                    Ok(()) => DONE.to_vec(),
                    Err(error) => one_line(&error).into_bytes(),
                };
                // Without its words it counts as failed, which is what it then is.
                let _nobody_listens = writer.write_all(&said);
                exit_now(0)
            }
        }
    }
}

impl Operation for Worker {
    fn fd(&self) -> BorrowedFd<'_> {
        self.words.as_fd()
    }

    fn child(&self) -> Option<i32> {
        Some(self.pid)
    }

    fn finish(self: Box<Self>) -> Result<Outcome, RuntimeError> {
        let Self { verb, id, words, .. } = *self;
        let mut said = Vec::new();
        words.take(MAX_WORDS_BYTES).read_to_end(&mut said).map_err(|source| RuntimeError::Watch {
            verb,
            id: id.clone(),
            source,
        })?;
        if said == DONE {
            return Ok(Outcome::Done);
        }
        let words = if said.is_empty() {
            "it was killed before it was done".to_owned()
        } else {
            String::from_utf8_lossy(&said).into_owned()
        };
        let status = "an error".to_owned();
        Err(RuntimeError::Failed { verb, id, status, kind: ErrorKind::Internal, source: Words(words) })
    }

    fn abort(self: Box<Self>) {
        // Our child and not reaped, so the pid is its own.
        let _ended_already = sys::kill_child(self.pid);
    }
}
