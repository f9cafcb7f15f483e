//! Makes a container run, step by step, and takes everything back when that fails.
//!
//! The same steps serve the first run and each restart. A restart finds its root and log there (both steps are
//! repeatable) and its undo ends only the shim: root, log and bundle stay for the next attempt.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use contd_failpoint::Failpoint;
use contd_logs::RunStart;
use contd_protocol::shim::{LogStart, TASK_SPEC_VERSION, TaskSpec};
use contd_rootfs::{FetchProgress, PrepareRootfs, PreparedRootfs};
use contd_shim_client::Shim;
use contd_store::MadeWith;
use contd_types::{Pid, Step};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Cancel, Subject, shielded, undo, with_sources};
use crate::admission::RunPlace;
use crate::call::{CallError, ask, tell};
use crate::container::ContainerActor;
use crate::error::{Leftover, MakeError, StepError, one_line};
use crate::flist::UNDO_GRACE;
use crate::locks::Wanted;
use crate::messages::container::{CommitPrepared, CommitRunning, Made, MadeByRuntime, MakeDone};
use crate::messages::node::{OpenLog, PrepareRoot, WriteBundle, Written};
use crate::pool::WhenBlocked;

/// A bundle is one file with three fsyncs; more on a disk that is busy with hundreds of others.
const BUNDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Making a directory and an empty file.
const LOG_TIMEOUT: Duration = Duration::from_secs(15);
/// Above the shim client's own deadlines, which come first and say more.
const SHIM_CALL_TIMEOUT: Duration = Duration::from_secs(40);
/// The actor answers at once, or writes one record.
const ACTOR_TIMEOUT: Duration = Duration::from_secs(30);

/// How far a container is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Root, bundle and log; no process.
    Prepared,
    /// It runs.
    Running,
}

/// What one making is given.
#[derive(Debug)]
pub(crate) struct MakePlan {
    pub(crate) subject: Subject,
    pub(crate) generation: u64,
    /// The first run: its failure leaves nothing. Its permit is its namespace's business; a restart takes its own.
    pub(crate) is_first: bool,
    /// Whether the run before has lost output.
    pub(crate) is_after_loss: bool,
    pub(crate) goal: Goal,
    pub(crate) progress: Option<mpsc::Sender<FetchProgress>>,
    pub(crate) actor: Addr<ContainerActor>,
}

/// Makes the container and tells its actor how that went. `actor` is told only after everything is undone.
pub(crate) async fn make(plan: MakePlan, cancel: Cancel) {
    let alone = Arc::new(Arc::clone(&plan.subject.locks.operation).lock_owned().await);
    let shim = watch::Sender::new(ShimSlot::Empty);
    let making = Making { plan: &plan, cancel, begun: RefCell::default(), wanted: Wanted::default(), shim, alone };
    let result = match making.forward().await {
        Ok(()) => Ok(()),
        // Its actor was lost while it wrote that the container is made. What is on disk says whether it was acknowledged,
        // so nothing is undone here: the next actor finds out, and goes on with the container or takes it back.
        Err((Step::Record, StepError::Call(CallError::ActorLost { .. }))) => return,
        Err((step, source)) => {
            if !source.is_cancelled() {
                debug!(%step, error = one_line(&source), "step failed, undoing");
            }
            let leftovers = making.undo().await;
            Err(MakeError { name: plan.subject.name.clone(), step, source, leftovers })
        }
    };
    tell(&plan.actor, MakeDone { generation: plan.generation, result });
}

type StepResult<T> = Result<T, (Step, StepError)>;

/// Where the shim is that is being spawned. The spawn goes on when the making is given up, so its result lies here.
#[derive(Debug, Clone)]
enum ShimSlot {
    /// Nobody has begun.
    Empty,
    /// On its way.
    Pending,
    /// There.
    Ready(Arc<dyn Shim>),
    /// The spawn has failed.
    Failed,
}

struct Making<'a> {
    plan: &'a MakePlan,
    cancel: Cancel,
    /// The steps whose effects may be there.
    begun: RefCell<BTreeSet<Step>>,
    wanted: Wanted,
    shim: watch::Sender<ShimSlot>,
    /// The operation lock; a shim that comes late keeps it until it is ended.
    alone: Arc<tokio::sync::OwnedMutexGuard<()>>,
}

impl Making<'_> {
    async fn forward(&self) -> StepResult<()> {
        let _permit = self.take_permit().await?;
        if self.plan.goal == Goal::Prepared {
            let (made, _no_run_yet) = futures_util::try_join!(self.root_and_bundle(), self.open_log())?;
            return self.commit_prepared(made).await;
        }
        let (made, shim) = futures_util::try_join!(self.root_and_bundle(), self.log_and_shim())?;
        contd_failpoint::hit(Failpoint::MakeShimSpawned);
        let pid = self.create(&shim).await?;
        contd_failpoint::hit(Failpoint::MakeCreated);
        self.tell_made(pid).await?;
        contd_failpoint::hit(Failpoint::MakeTold);
        // Before the start: a short run may have ended when its start is answered.
        let started_at = self.plan.subject.shared.clock.now();
        let pid = self.start(&shim).await?;
        contd_failpoint::hit(Failpoint::MakeStarted);
        self.commit(CommitRunning { generation: self.plan.generation, pid, shim, made, started_at }).await
    }

    /// Takes a place for a restart.
    async fn take_permit(&self) -> StepResult<Option<RunPlace>> {
        if self.plan.is_first {
            return Ok(None);
        }
        let (mut cancel, shared) = (self.cancel.clone(), &self.plan.subject.shared);
        let limits = shared.settings().limits;
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err((Step::Admit, StepError::Cancelled)),
            place = shared.admission.restart(&self.plan.subject.namespace, &limits) => {
                place.map(Some).ok_or((Step::Admit, StepError::Cancelled))
            }
        }
    }

    fn begin(&self, step: Step) -> StepResult<()> {
        if self.cancel.is_cancelled() {
            return Err((step, StepError::Cancelled));
        }
        self.begun.borrow_mut().insert(step);
        Ok(())
    }

    async fn step<T: 'static>(
        &self,
        step: Step,
        what: &'static str,
        deadline: Duration,
        work: impl Future<Output = Result<T, StepError>> + 'static,
    ) -> StepResult<T> {
        self.begin(step)?;
        let begun = Instant::now();
        let result = shielded(&self.cancel, what, deadline, work).await.map_err(|source| (step, source));
        debug!(container = %self.plan.subject.id, %step, us = begun.elapsed().as_micros(), "step over");
        result
    }

    async fn root_and_bundle(&self) -> StepResult<Made> {
        let prepared = self.prepare_root().await?;
        contd_failpoint::hit(Failpoint::MakeRootPrepared);
        let layer = prepared.layer;
        let made_with = self.write_bundle(prepared).await?;
        contd_failpoint::hit(Failpoint::MakeBundleWritten);
        Ok(Made { with: made_with, layer })
    }

    async fn prepare_root(&self) -> StepResult<PreparedRootfs> {
        let subject = self.plan.subject.clone();
        let (spec, deadline) = (&subject.spec, subject.shared.config.rootfs_timeout);
        let grant = subject.judge().map_err(|denied| (Step::Admit, denied))?;
        let request = PrepareRootfs {
            namespace: subject.namespace.clone(),
            id: subject.id.clone(),
            flist: spec.flist.clone(),
            // Writable even for a read-only container: the runtime makes mount points in it and then closes it, as it does
            // under containerd. A flist without `/run` could not be started otherwise.
            is_read_only: false,
            layer: subject.layer(),
            is_layer_required: spec.layer.is_some(),
            size_bytes: spec.rootfs_size_bytes.unwrap_or(subject.shared.settings().defaults.rootfs_size_bytes),
            is_size_required: spec.rootfs_size_bytes.is_some(),
            upper_dir: spec.upper_dir.as_ref().map(PathBuf::from),
            is_trusted: spec.is_elevated,
            grant,
        };
        let message = PrepareRoot {
            locks: Arc::clone(&subject.locks),
            wanted: self.wanted.clone(),
            request,
            progress: self.plan.progress.clone(),
        };
        let work = async move { subject.shared.flist.ask(message, deadline).await.map_err(StepError::Call)? };
        self.step(Step::Rootfs, "prepare the root", deadline, work).await
    }

    async fn write_bundle(&self, prepared: PreparedRootfs) -> StepResult<Option<MadeWith>> {
        let subject = self.plan.subject.clone();
        let message = WriteBundle {
            locks: Arc::clone(&subject.locks),
            wanted: self.wanted.clone(),
            namespace: subject.namespace.clone(),
            id: subject.id.clone(),
            spec: with_sources(&subject.spec, &prepared.sources),
            root: prepared.root,
            image: prepared.image,
        };
        let work = async move {
            let Written { dir: written, made_with } =
                subject.shared.bundle.ask(message, BUNDLE_TIMEOUT).await.map_err(StepError::Call)??;
            let expected = subject.shared.bundle_dir(&subject.namespace, &subject.id);
            if written == expected { Ok(made_with) } else { Err(StepError::BundleElsewhere { expected, written }) }
        };
        self.step(Step::Bundle, "write the bundle", BUNDLE_TIMEOUT, work).await
    }

    async fn log_and_shim(&self) -> StepResult<Arc<dyn Shim>> {
        let start = self.open_log().await?;
        self.spawn_shim(start).await
    }

    async fn open_log(&self) -> StepResult<RunStart> {
        let subject = self.plan.subject.clone();
        let files = subject.shared.log_files(&subject.namespace, &subject.name, &subject.id);
        let (locks, namespace) = (Arc::clone(&subject.locks), subject.namespace.clone());
        let message = OpenLog { locks, wanted: self.wanted.clone(), namespace, files, is_new: self.plan.is_first };
        let work = async move { subject.shared.log.ask(message, LOG_TIMEOUT).await.map_err(StepError::Call)? };
        let start = self.step(Step::Log, "make the log", LOG_TIMEOUT, work).await?;
        contd_failpoint::hit(Failpoint::MakeLogOpened);
        Ok(start)
    }

    async fn spawn_shim(&self, RunStart { inode, offset, .. }: RunStart) -> StepResult<Arc<dyn Shim>> {
        let (subject, slot) = (self.plan.subject.clone(), self.shim.clone());
        let task = task_spec(&subject, LogStart { inode, offset, is_after_loss: self.plan.is_after_loss });
        let work = async move {
            slot.send_replace(ShimSlot::Pending);
            match subject.shared.shims.spawn(task).await {
                Ok(shim) => {
                    slot.send_replace(ShimSlot::Ready(Arc::clone(&shim)));
                    Ok(shim)
                }
                Err(source) => {
                    slot.send_replace(ShimSlot::Failed);
                    Err(StepError::shim(source))
                }
            }
        };
        self.step(Step::Shim, "start the shim", SHIM_CALL_TIMEOUT, work).await
    }

    async fn create(&self, shim: &Arc<dyn Shim>) -> StepResult<Pid> {
        let shim = Arc::clone(shim);
        let work = async move { shim.create().await.map_err(StepError::shim) };
        self.step(Step::Create, "have the runtime make it", SHIM_CALL_TIMEOUT, work).await
    }

    async fn start(&self, shim: &Arc<dyn Shim>) -> StepResult<Pid> {
        let shim = Arc::clone(shim);
        let work = async move { shim.start().await.map_err(StepError::shim) };
        self.step(Step::Start, "have the runtime start it", SHIM_CALL_TIMEOUT, work).await
    }

    async fn tell_made(&self, pid: Pid) -> StepResult<()> {
        let message = MadeByRuntime { generation: self.plan.generation, pid };
        let answer = ask(&self.plan.actor, message, ACTOR_TIMEOUT).await.map_err(StepError::Call);
        answer.and_then(|result| result).map_err(|source| (Step::Create, source))
    }

    async fn commit_prepared(&self, made: Made) -> StepResult<()> {
        let message = CommitPrepared { generation: self.plan.generation, made };
        let answer = ask(&self.plan.actor, message, ACTOR_TIMEOUT).await.map_err(StepError::Call);
        answer.and_then(|result| result).map_err(|source| (Step::Record, source))
    }

    /// Has the actor write that it runs. Not to be cancelled: a stop that comes now finds a running container.
    async fn commit(&self, message: CommitRunning) -> StepResult<()> {
        let answer = ask(&self.plan.actor, message, ACTOR_TIMEOUT).await.map_err(StepError::Call);
        answer.and_then(|result| result).map_err(|source| (Step::Record, source))
    }

    /// Undoes what may have been done, the last step first.
    async fn undo(&self) -> Vec<Leftover> {
        self.wanted.give_up();
        let begun: Vec<Step> = self.begun.borrow().iter().rev().copied().collect();
        let (subject, mut leftovers) = (&self.plan.subject, Vec::new());
        for step in begun {
            let result = match step {
                // Both end with the shim.
                Step::Start | Step::Create => Ok(()),
                Step::Shim => self.undo_shim().await,
                Step::Log if self.plan.is_first => undo::remove_log(subject, WhenBlocked::Queue).await,
                Step::Bundle if self.plan.is_first => undo::remove_bundle(subject, WhenBlocked::Queue).await,
                Step::Rootfs if self.plan.is_first => undo::release_root(subject, WhenBlocked::Queue).await,
                Step::Log | Step::Bundle | Step::Rootfs | Step::Admit | Step::Record => Ok(()),
            };
            leftovers.extend(result.err());
        }
        leftovers
    }

    /// Ends the shim; one that is still on its way is waited for, a little here and then in the background.
    async fn undo_shim(&self) -> Result<(), Leftover> {
        let mut slot = self.shim.subscribe();
        let settled = slot.wait_for(|slot| !matches!(slot, ShimSlot::Pending | ShimSlot::Empty));
        let found = match tokio::time::timeout(UNDO_GRACE, settled).await {
            Ok(Ok(found)) => found.clone(),
            Ok(Err(_closed)) => ShimSlot::Failed,
            Err(_elapsed) => {
                warn!("the shim is still being started; it is ended when it is there");
                let (subject, alone) = (self.plan.subject.clone(), Arc::clone(&self.alone));
                actix_rt::spawn(end_late_shim(subject, self.shim.subscribe(), alone));
                return Ok(());
            }
        };
        let shim = match found {
            ShimSlot::Ready(shim) => Some(shim),
            ShimSlot::Empty | ShimSlot::Pending | ShimSlot::Failed => None,
        };
        undo::end_shim(&self.plan.subject, shim).await
    }
}

/// Ends a shim whose start was given up, once it is there.
async fn end_late_shim(
    subject: Subject,
    mut slot: watch::Receiver<ShimSlot>,
    _alone: Arc<tokio::sync::OwnedMutexGuard<()>>,
) {
    let settled = slot.wait_for(|slot| !matches!(slot, ShimSlot::Pending | ShimSlot::Empty)).await;
    let shim = match settled.as_deref() {
        Ok(ShimSlot::Ready(shim)) => Some(Arc::clone(shim)),
        _ => None,
    };
    drop(settled);
    if let Err(leftover) = undo::end_shim(&subject, shim).await {
        warn!(error = one_line(&leftover), container = %subject.id, "a late shim is left; the next start ends it");
    }
}

fn task_spec(subject: &Subject, log_start: LogStart) -> TaskSpec {
    let (config, rotation) = (&subject.shared.config, subject.shared.settings().log_rotation);
    TaskSpec {
        version: TASK_SPEC_VERSION,
        namespace: subject.namespace.clone(),
        id: subject.id.clone(),
        bundle: subject.shared.bundle_dir(&subject.namespace, &subject.id),
        runtime: config.runtimes.spec(subject.spec.runtime.as_deref(), &config.cgroup_parent, &subject.id),
        log_path: subject.shared.log_path(&subject.namespace, &subject.name),
        log_max_bytes: rotation.max_bytes,
        log_max_files: rotation.max_files,
        log_notes: Some(config.log_notes()),
        log_start: Some(log_start),
        drain_timeout: config.drain_timeout,
        runtime_timeout: config.runtime_timeout,
    }
}
