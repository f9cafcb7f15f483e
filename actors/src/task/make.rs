//! Makes a container run, step by step, and takes everything back when that fails.
//!
//! Two stages, so that its actor decides between them: all up to the runtime's create ([`begin`]), and the start
//! ([`Making::start`]). Each gives back the [`Making`], with which the actor goes on or undoes.
//!
//! The same steps serve the first run and each restart. A restart finds its root and log there (both steps are
//! repeatable) and its undo ends only the shim: root, log and bundle stay for the next attempt.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contd_bundle::ResourceLimits;
use contd_failpoint::Failpoint;
use contd_logs::RunStart;
use contd_protocol::shim::{LogStart, TASK_SPEC_VERSION, TaskInput, TaskSpec};
use contd_rootfs::{FetchProgress, PrepareRootfs, PreparedLayer, PreparedRootfs};
use contd_shim_client::Shim;
use contd_store::MadeWith;
use contd_types::{InForce, Pid, Step, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{Instrument, debug, warn};

use super::{Cancel, Subject, shielded, undo};
use crate::admission::RunPlace;
use crate::config::Defaults;
use crate::error::{Leftover, StepError, one_line};
use crate::locks::Wanted;
use crate::messages::namespace::Goal;
use crate::messages::node::{OpenLog, PrepareRoot, WriteBundle};
use crate::pool::{UNDO_GRACE, WhenBlocked};
use crate::records::RecordWrite;

/// A bundle is one file with three fsyncs; more on a disk that is busy with hundreds of others.
const BUNDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Writing a record, then making a directory and an empty file.
const LOG_TIMEOUT: Duration = Duration::from_secs(15);
/// Above the shim client's own deadlines, which come first and say more.
const SHIM_CALL_TIMEOUT: Duration = Duration::from_secs(40);

/// The input of one making.
#[derive(Debug)]
pub(crate) struct MakePlan {
    pub(crate) subject: Subject,
    /// The record that says so.
    pub(crate) intent: RecordWrite,
    /// The first run: its failure leaves nothing. Its permit is its namespace's business; a restart takes its own.
    pub(crate) is_first: bool,
    /// Whether the run before has lost output.
    pub(crate) is_after_loss: bool,
    pub(crate) goal: Goal,
    pub(crate) progress: Option<mpsc::Sender<FetchProgress>>,
}

/// The result of a making, for the record.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// The flist's additions to the spec.
    pub(crate) with: Option<MadeWith>,
    /// The node's decisions.
    pub(crate) in_force: InForce,
}

/// How far a container is made.
#[derive(Debug)]
pub(crate) enum Stage {
    /// All but its processes is there, and no more is wanted.
    Prepared(Made),
    /// The runtime has made it.
    Created { pid: Pid, shim: Arc<dyn Shim>, made: Made },
    /// It runs; `started_at` is just before it was let go.
    Started { pid: Pid, shim: Arc<dyn Shim>, made: Made, started_at: Timestamp },
}

/// A stage that is over, and the way to go on or back.
pub(crate) type StageDone = (Making, StepResult<Stage>);

type StepResult<T> = Result<T, (Step, StepError)>;

/// Makes the container, up to its start.
pub(crate) async fn begin(plan: MakePlan, cancel: Cancel) -> StageDone {
    let alone = Arc::new(Arc::clone(&plan.subject.locks.operation).lock_owned().await);
    let shim = watch::Sender::new(ShimSlot::Empty);
    let wanted = Wanted::default();
    let defaults = plan.subject.shared.settings().defaults;
    let mut making = Making { plan, defaults, cancel, begun: RefCell::default(), wanted, shim, place: None, alone };
    let result = making.up_to_create().await;
    (making, result)
}

/// Where the shim is that is being spawned. The spawn goes on when the making is given up, so its result lies here.
#[derive(Debug, Clone)]
enum ShimSlot {
    /// Not begun.
    Empty,
    /// On its way.
    Pending,
    /// There.
    Ready(Arc<dyn Shim>),
    /// The spawn has failed.
    Failed,
}

/// A container that is being made. It keeps the operation lock of its container until it is dropped.
#[derive(Debug)]
pub(crate) struct Making {
    plan: MakePlan,
    /// As they were when it began: what is made and what is noted of it agree.
    defaults: Defaults,
    cancel: Cancel,
    /// The steps whose effects may be there.
    begun: RefCell<BTreeSet<Step>>,
    wanted: Wanted,
    shim: watch::Sender<ShimSlot>,
    /// Of a restart.
    place: Option<RunPlace>,
    /// The operation lock; a shim that comes late keeps it until it is ended.
    alone: Arc<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Making {
    fn drop(&mut self) {
        // A step that was given up on does nothing from here on.
        self.wanted.give_up();
    }
}

impl Making {
    async fn up_to_create(&mut self) -> StepResult<Stage> {
        let log_start = self.open_log().await?;
        self.place = self.take_place().await?;
        if self.plan.goal == Goal::Prepared {
            return self.root_and_bundle().await.map(Stage::Prepared);
        }
        let (made, shim) = futures_util::try_join!(self.root_and_bundle(), self.spawn_shim(log_start))?;
        contd_failpoint::hit(Failpoint::MakeShimSpawned);
        let creating = self.plan.subject.shim_for(&shim);
        let work = async move { creating.create().await.map_err(StepError::shim) };
        let pid = self.step(Step::Create, "have the runtime make it", SHIM_CALL_TIMEOUT, work).await?;
        contd_failpoint::hit(Failpoint::MakeCreated);
        Ok(Stage::Created { pid, shim, made })
    }

    /// Has the runtime start what it has made.
    pub(crate) async fn start(self, shim: Arc<dyn Shim>, made: Made) -> StageDone {
        // Before the start: a short run may have ended when its start is answered.
        let started_at = self.plan.subject.shared.clock.now();
        let starting = self.plan.subject.shim_for(&shim);
        let work = async move { starting.start().await.map_err(StepError::shim) };
        let result = self.step(Step::Start, "have the runtime start it", SHIM_CALL_TIMEOUT, work).await;
        let result = result.map(|pid| {
            contd_failpoint::hit(Failpoint::MakeStarted);
            Stage::Started { pid, shim, made, started_at }
        });
        (self, result)
    }

    /// Takes a place for a restart.
    async fn take_place(&self) -> StepResult<Option<RunPlace>> {
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
        debug!(%step, us = begun.elapsed().as_micros(), "step finished");
        result
    }

    async fn root_and_bundle(&self) -> StepResult<Made> {
        let prepared = self.prepare_root().await?;
        contd_failpoint::hit(Failpoint::MakeRootPrepared);
        let layer = prepared.layer;
        let with = self.write_bundle(prepared).await?;
        contd_failpoint::hit(Failpoint::MakeBundleWritten);
        Ok(Made { with, in_force: self.in_force(layer) })
    }

    /// Tells what the container is made with, where the node decides.
    fn in_force(&self, layer: Option<PreparedLayer>) -> InForce {
        let (spec, runtimes) = (&self.plan.subject.spec, &self.plan.subject.shared.config.runtimes);
        let ResourceLimits { memory_bytes, cpu, pids_limit } = contd_bundle::limits(spec, &self.defaults.limits);
        let mut in_force = InForce::new(runtimes.name(spec.runtime.as_deref()), memory_bytes, cpu, pids_limit);
        in_force.rootfs_size_bytes = layer.and_then(|layer| layer.limit_bytes);
        in_force.open_files = Some(contd_bundle::nofile_limit());
        in_force.layer = layer.map(|layer| layer.kind);
        in_force
    }

    async fn prepare_root(&self) -> StepResult<PreparedRootfs> {
        let subject = self.plan.subject.clone();
        let (spec, deadline) = (&subject.spec, subject.shared.config.rootfs_timeout);
        let grant = subject.judge().map_err(|denied| (Step::Admit, denied))?;
        // Writable even for a read-only container: the runtime makes mount points in it and then closes it, as it does
        // under containerd. A flist without `/run` could not be started otherwise.
        let upper_dir = spec.upper_dir.as_ref().map(PathBuf::from);
        let request = PrepareRootfs {
            upper_dir,
            is_trusted: spec.is_elevated,
            ..subject.root_request(&self.defaults, false, grant)
        };
        let message = PrepareRoot {
            locks: Arc::clone(&subject.locks),
            wanted: self.wanted.clone(),
            request,
            progress: self.plan.progress.clone(),
            span: subject.span().clone(),
        };
        let work = async move { subject.services.flist.ask(message, deadline).await.map_err(StepError::Call)? };
        self.step(Step::Rootfs, "prepare the root", deadline, work).await
    }

    async fn write_bundle(&self, prepared: PreparedRootfs) -> StepResult<Option<MadeWith>> {
        let subject = self.plan.subject.clone();
        let bundle = subject.bundle_spec(&self.defaults, prepared);
        let message = WriteBundle { locks: Arc::clone(&subject.locks), wanted: self.wanted.clone(), bundle };
        let work = async move { subject.services.bundle.ask(message, BUNDLE_TIMEOUT).await.map_err(StepError::Call)? };
        self.step(Step::Bundle, "write the bundle", BUNDLE_TIMEOUT, work).await
    }

    /// Brings the intent to the disk and makes the log, in one job.
    async fn open_log(&self) -> StepResult<RunStart> {
        let subject = self.plan.subject.clone();
        let files = subject.shared.log_files(&subject.namespace, &subject.name, &subject.id);
        let message = OpenLog {
            locks: Arc::clone(&subject.locks),
            wanted: self.wanted.clone(),
            namespace: subject.namespace.clone(),
            intent: self.plan.intent.clone(),
            files,
            is_new: self.plan.is_first,
        };
        let work = async move { subject.services.log.ask(message, LOG_TIMEOUT).await.map_err(StepError::Call)? };
        let start = self.step(Step::Log, "write the intent and make the log", LOG_TIMEOUT, work).await;
        let start = start.map_err(|(step, source)| match source {
            StepError::Record(_) => (Step::Record, source),
            _ => (step, source),
        })?;
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

    /// Undoes what may have been done, the last step first.
    pub(crate) async fn undo(mut self) -> Vec<Leftover> {
        self.place = None;
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
                actix_rt::spawn(end_late_shim(subject, self.shim.subscribe(), alone).in_current_span());
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
        warn!(error = one_line(&leftover), "a late shim is left; the next start ends it");
    }
}

fn task_spec(subject: &Subject, log_start: LogStart) -> TaskSpec {
    let (config, rotation) = (&subject.shared.config, subject.shared.settings().log_rotation);
    TaskSpec {
        version: TASK_SPEC_VERSION,
        namespace: subject.namespace.clone(),
        id: subject.id.clone(),
        bundle: subject.shared.bundles.dir(&subject.namespace, &subject.id),
        runtime: config.runtimes.spec(subject.spec.runtime.as_deref(), &config.cgroup_parent, &subject.id),
        log_path: subject.shared.log_path(&subject.namespace, &subject.name),
        log_max_bytes: subject.spec.log_max_bytes.unwrap_or(rotation.max_bytes),
        log_max_files: subject.spec.log_max_files.unwrap_or(rotation.max_files),
        log_notes: Some(config.log_notes()),
        log_start: Some(log_start),
        drain_timeout: config.drain_timeout,
        runtime_timeout: config.runtime_timeout,
        input: TaskInput { is_open: subject.spec.is_interactive, has_terminal: subject.spec.has_terminal },
    }
}
