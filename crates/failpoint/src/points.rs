//! The table of all failpoints: name, and the state when each is reached. A test compares it with the sources.

/// Makes the enum and its list from one table, so that no failpoint is missing in one of them.
macro_rules! failpoints {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// A place in the code. The first word of its name says which process reaches it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Failpoint {
            $($(#[$doc])* $variant,)+
        }

        impl Failpoint {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the name, as an order uses it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Returns the name of the variant, as the sources use it.
            pub const fn variant(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                }
            }
        }
    };
}

failpoints! {
    /// A shim, or the holder, has started a program, and takes signals in this moment that are blocked otherwise.
    ProgramStarted = "shim.program.started",
    /// A file operation of `RealFs`, in the daemon or a shim, is about to begin; it can be made to fail.
    FsOperation = "fs.operation",

    /// The container is admitted; nothing of it is on disk.
    MakeAdmitted = "daemon.make.admitted",
    /// The record of the container, in state `Creating`, is written.
    MakeRecorded = "daemon.make.recorded",
    /// The container's root is prepared.
    MakeRootPrepared = "daemon.make.root-prepared",
    /// The container's bundle is written.
    MakeBundleWritten = "daemon.make.bundle-written",
    /// The container's log exists.
    MakeLogOpened = "daemon.make.log-opened",
    /// The lease and the task of the shim are written.
    SpawnReserved = "daemon.spawn.reserved",
    /// The process of the shim was started and reported that it is ready.
    SpawnLaunched = "daemon.spawn.launched",
    /// A warm slot was given the task.
    SlotTold = "daemon.slot.told",
    /// The shim answers.
    MakeShimSpawned = "daemon.make.shim-spawned",
    /// The runtime has made the container.
    MakeCreated = "daemon.make.created",
    /// The container's actor knows that the container was made.
    MakeTold = "daemon.make.told",
    /// The container's entrypoint runs.
    MakeStarted = "daemon.make.started",
    /// The record says that the container runs; the caller has no answer yet.
    MakeCommitted = "daemon.make.committed",
    /// The record says that the container is prepared; the caller has no answer yet.
    MakePrepared = "daemon.make.prepared",

    /// The shim has answered that the executed process runs; the caller has no answer yet.
    ExecDone = "daemon.exec.done",

    /// A stop was requested; it is not recorded, and no signal was sent.
    StopRequested = "daemon.stop.requested",
    /// The shim has answered that the signal was sent.
    StopSignalled = "daemon.stop.signalled",
    /// The shim has reported the exit; it is not recorded.
    ExitTaken = "daemon.exit.taken",
    /// The exit is recorded; waiting callers have no answer yet.
    ExitStored = "daemon.exit.stored",
    /// The shim of the ended container is gone.
    ExitSettled = "daemon.exit.settled",

    /// The shim is about to be asked for a handover.
    UpgradeAsked = "daemon.upgrade.asked",
    /// The successor has answered.
    UpgradeDone = "daemon.upgrade.done",

    /// The intent to delete is written.
    DeleteRecorded = "daemon.delete.recorded",
    /// The shim was ended, in a deletion, a rollback or after an end.
    ShimEnded = "daemon.undo.shim-ended",
    /// The bundle was removed, in a deletion or a rollback.
    BundleRemoved = "daemon.undo.bundle-removed",
    /// The log was removed, in a deletion or a rollback.
    LogRemoved = "daemon.undo.log-removed",
    /// The root was released, in a deletion or a rollback.
    RootReleased = "daemon.undo.root-released",
    /// The record was removed, in a deletion or a rollback; the caller has no answer yet.
    RecordRemoved = "daemon.undo.record-removed",

    /// The lease of a shim was read.
    AttachLooked = "daemon.attach.looked",
    /// The lease is reserved for a successor.
    AttachReserved = "daemon.attach.reserved",
    /// The successor was started and said that it is ready.
    AttachLaunched = "daemon.attach.launched",
    /// The shim has reported the state of its container.
    AttachDone = "daemon.attach.done",

    /// The lease names this process.
    ShimClaimed = "shim.up.claimed",
    /// The socket accepts connections.
    ShimBound = "shim.up.bound",
    /// The shim has read its task.
    ShimTaskRead = "shim.up.task-read",
    /// The shim is ready and has told the daemon.
    ShimReady = "shim.up.ready",
    /// A warm slot waits for its task.
    SlotReady = "shim.slot.ready",
    /// The runtime was asked to make the container.
    CreateBegun = "shim.create.begun",
    /// The runtime has made the container; that is not recorded.
    CreateMade = "shim.create.made",
    /// The init process is recorded.
    CreateRecorded = "shim.create.recorded",
    /// The runtime was asked to start the container.
    StartBegun = "shim.start.begun",
    /// The start is recorded.
    StartRecorded = "shim.start.recorded",

    /// The process to execute is written down; it is not let go yet.
    ExecRecorded = "shim.exec.recorded",
    /// The executed process runs, which is written down; nobody was told.
    ExecRuns = "shim.exec.runs",
    /// The executed process has ended; that is not written down.
    ExecEnded = "shim.exec.ended",

    /// Output has left the FIFO and is in the spool.
    SpoolTaken = "shim.spool.taken",
    /// The output's position in the log is noted in the spool.
    SpoolNoted = "shim.spool.noted",
    /// The output is in the log.
    SpoolLogged = "shim.spool.logged",
    /// The spool's entry is finished.
    SpoolFinished = "shim.spool.finished",
    /// The spool was truncated; its last entry is still there.
    SpoolCut = "shim.spool.cut",
    /// One file of the log was renamed by rotation.
    RotationRenamed = "shim.rotation.renamed",
    /// The new log file is open.
    RotationReopened = "shim.rotation.reopened",

    /// Init has ended; its output is not yet read to the end.
    EndSeen = "shim.end.seen",
    /// The output is read to the end; the exit is about to be written.
    EndDrained = "shim.end.drained",
    /// The exit is written.
    EndWritten = "shim.end.written",
    /// Waiting clients are about to be told of the exit.
    EndTold = "shim.end.told",

    /// The runtime was asked to remove the container.
    DeleteBegun = "shim.delete.begun",
    /// No process of the container runs, and its cgroup is removed.
    DeleteCgroupRemoved = "shim.delete.cgroup-removed",
    /// The record of the init process is removed.
    DeleteForgotten = "shim.delete.forgotten",
    /// The shim was told to end.
    ShimShutDown = "shim.down.told",

    /// The files of the dead predecessor are read.
    AdoptRead = "shim.adopt.read",
    /// The output in the predecessor's spool is in the log.
    AdoptReplayed = "shim.adopt.replayed",
    /// The successor has the init process under watch.
    AdoptTaken = "shim.adopt.taken",
    /// The successor's program is about to be executed.
    HandOverBegun = "shim.hand-over.begun",
    /// The successor holds the lease.
    HandOverClaimed = "shim.hand-over.claimed",
}
