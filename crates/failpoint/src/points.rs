//! The list: each point, its name, and what is true when it is reached. A test holds it to the sources.

/// Makes the enum and its list from one table, so that no point can be in one and not in the other.
macro_rules! failpoints {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// One place in the code. The first word of its name says which process comes by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Failpoint {
            $($(#[$doc])* $variant,)+
        }

        impl Failpoint {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the name, as an order gives it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Returns how the sources call it.
            pub const fn variant(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                }
            }
        }
    };
}

failpoints! {
    /// Any operation on a file by `RealFs`, of the daemon or of a shim; it can be made to fail.
    FsOperation = "fs.operation",

    /// The container is admitted; nothing of it is on disk.
    MakeAdmitted = "daemon.make.admitted",
    /// The intent is written.
    MakeRecorded = "daemon.make.recorded",
    /// Its root is there.
    MakeRootPrepared = "daemon.make.root-prepared",
    /// Its bundle is there.
    MakeBundleWritten = "daemon.make.bundle-written",
    /// Its log is there.
    MakeLogOpened = "daemon.make.log-opened",
    /// The lease and the task of its shim are written.
    SpawnReserved = "daemon.spawn.reserved",
    /// The process of its shim was started and said that it is ready.
    SpawnLaunched = "daemon.spawn.launched",
    /// A warm slot was given the task.
    SlotTold = "daemon.slot.told",
    /// Its shim answers.
    MakeShimSpawned = "daemon.make.shim-spawned",
    /// The runtime has made it.
    MakeCreated = "daemon.make.created",
    /// The actor knows that it was made.
    MakeTold = "daemon.make.told",
    /// Its entrypoint runs.
    MakeStarted = "daemon.make.started",
    /// That it runs is written; nobody has been answered.
    MakeCommitted = "daemon.make.committed",
    /// That it waits to be started is written; nobody has been answered.
    MakePrepared = "daemon.make.prepared",

    /// It shall stop; neither is that written, nor was a signal sent.
    StopRequested = "daemon.stop.requested",
    /// The shim has answered that the signal was sent.
    StopSignalled = "daemon.stop.signalled",
    /// The shim has told the end, which is not written.
    ExitTaken = "daemon.exit.taken",
    /// The end is written; nobody has been answered.
    ExitStored = "daemon.exit.stored",
    /// The shim of the ended container has gone.
    ExitSettled = "daemon.exit.settled",

    /// The shim is about to be asked to hand over.
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
    /// The record was removed, in a deletion or a rollback; nobody has been answered.
    RecordRemoved = "daemon.undo.record-removed",

    /// The lease of a shim was looked at.
    AttachLooked = "daemon.attach.looked",
    /// The lease is reserved for a successor.
    AttachReserved = "daemon.attach.reserved",
    /// The successor was started and said that it is ready.
    AttachLaunched = "daemon.attach.launched",
    /// The shim has answered where its container is.
    AttachDone = "daemon.attach.done",

    /// The lease has this process in it.
    ShimClaimed = "shim.up.claimed",
    /// The socket can be connected to.
    ShimBound = "shim.up.bound",
    /// The task is known.
    ShimTaskRead = "shim.up.task-read",
    /// All is ready, and the daemon was told.
    ShimReady = "shim.up.ready",
    /// A warm slot waits for its task.
    SlotReady = "shim.slot.ready",
    /// The runtime was asked to make the container.
    CreateBegun = "shim.create.begun",
    /// The runtime has made it; that is not written.
    CreateMade = "shim.create.made",
    /// Who init is, is written.
    CreateRecorded = "shim.create.recorded",
    /// The runtime was asked to start it.
    StartBegun = "shim.start.begun",
    /// That it was started is written.
    StartRecorded = "shim.start.recorded",

    /// Output has left the FIFO and is in the spool.
    SpoolTaken = "shim.spool.taken",
    /// Where it goes in the log is noted.
    SpoolNoted = "shim.spool.noted",
    /// It is in the log.
    SpoolLogged = "shim.spool.logged",
    /// It is done with.
    SpoolFinished = "shim.spool.finished",
    /// The spool was cut, its last entry is still there.
    SpoolCut = "shim.spool.cut",
    /// One file of the log has its next name.
    RotationRenamed = "shim.rotation.renamed",
    /// The new file is open.
    RotationReopened = "shim.rotation.reopened",

    /// Init has ended; its output is not read to the end.
    EndSeen = "shim.end.seen",
    /// The end is about to be written.
    EndDrained = "shim.end.drained",
    /// The end is written.
    EndWritten = "shim.end.written",
    /// Whoever waits is about to hear of it.
    EndTold = "shim.end.told",

    /// The runtime was asked to remove the container.
    DeleteBegun = "shim.delete.begun",
    /// Nothing of it runs, its cgroup is gone.
    DeleteCgroupRemoved = "shim.delete.cgroup-removed",
    /// Who init was is forgotten.
    DeleteForgotten = "shim.delete.forgotten",
    /// The shim was told to end.
    ShimShutDown = "shim.down.told",

    /// What a dead predecessor had written is read.
    AdoptRead = "shim.adopt.read",
    /// What it had taken of the output is in the log.
    AdoptReplayed = "shim.adopt.replayed",
    /// Init is known again.
    AdoptTaken = "shim.adopt.taken",
    /// The other program is about to be executed.
    HandOverBegun = "shim.hand-over.begun",
    /// The other program has the lease.
    HandOverClaimed = "shim.hand-over.claimed",
}
