//! One process's lease directory: reserved by the spawner, claimed by the process, retired by whoever cleans up.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use contd_durable::{DurableError, Fs, RealFs, replace_volatile, sweep_temps};

use crate::file::{LEASE_VERSION, Lease};
use crate::lock;
use crate::process::{BootId, ProcessError, ProcessIdentity, pidfd};

const LEASE_FILE: &str = "lease.json";
const LOCK_FILE: &str = "lock";

/// No lease is larger: two paths and a few words.
const MAX_LEASE_BYTES: u64 = 64 * 1024;

/// How often a lock is opened again because the directory was retired in between; each round means that somebody else
/// got through, so a few are enough.
const MAX_ROUNDS: u32 = 8;

/// An operation on a lease that failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The directory could not be made.
    #[error("make lease directory {}", dir.display())]
    CreateDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no lease: it was never reserved, or was retired. A started process exits.
    #[error("claim the lease in {}: it is gone", dir.display())]
    Gone {
        /// The directory.
        dir: PathBuf,
    },
    /// A process lives under this lease.
    #[error("take the lock in {}: a process holds it", dir.display())]
    Held {
        /// The directory.
        dir: PathBuf,
    },
    /// The lease was claimed before, by a process that has ended since.
    #[error("claim the lease in {}: it was claimed before", dir.display())]
    NotReserved {
        /// The directory.
        dir: PathBuf,
    },
    /// The lease is of an earlier boot.
    #[error("claim the lease in {}: it is of an earlier boot", dir.display())]
    EarlierBoot {
        /// The directory.
        dir: PathBuf,
    },
    /// The lock file could not be opened, locked or looked at.
    #[error("lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lease could not be read.
    #[error("read lease {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lease is not what this code writes.
    #[error("decode lease {}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The lease could not be turned into text, for example because the socket's path is not UTF-8.
    #[error("encode lease {}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The lease is in a format of a later version.
    #[error("read lease {}: format version {found}, this program knows up to {LEASE_VERSION}", path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: u32,
    },
    /// The lease could not be written.
    #[error("write lease {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DurableError,
    },
    /// The directory could not be removed.
    #[error("remove lease directory {}", dir.display())]
    Remove {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process behind the lease could not be looked at.
    #[error("look at the process of the lease in {}", dir.display())]
    Process {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: ProcessError,
    },
}

impl LeaseError {
    /// Another who retires the same lease put its lock where ours had just been removed.
    fn is_not_alone(&self) -> bool {
        matches!(self, Self::Remove { source, .. } if source.kind() == io::ErrorKind::DirectoryNotEmpty)
    }

    /// Says what to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Gone { .. } | Self::NotReserved { .. } | Self::EarlierBoot { .. } => {
                "exit: whoever started this process has given up on it"
            }
            Self::Held { .. } => "end the process that holds it first, or wait for its end",
            Self::Decode { .. } | Self::NewerVersion { .. } => {
                "run the newer version, or end the process and retire the lease"
            }
            Self::Process { source, .. } => source.hint(),
            Self::Write { source, .. } => source.hint(),
            Self::Encode { .. } => "give the socket a path that is valid UTF-8",
            Self::CreateDir { .. } | Self::Lock { .. } | Self::Read { .. } | Self::Remove { .. } => {
                "the run directory must be a writable tmpfs that belongs to this user"
            }
        }
    }
}

/// The state of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// There is none.
    Absent,
    /// The process has not claimed it yet, or is just about to be written into it.
    Reserved,
    /// The process lives.
    Held(Lease),
    /// The process has ended.
    Dead(Lease),
    /// It is of an earlier boot; the process cannot live.
    OtherBoot(Lease),
}

/// A lease directory (0700). It holds `lease.json`, `lock`, and whatever the process adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseDir {
    path: PathBuf,
}

/// A claimed lease. While it is held, and the process lives, [`LeaseDir::probe`] says [`LeaseState::Held`].
#[derive(Debug)]
pub struct HeldLease {
    dir: LeaseDir,
    lock: File,
    lease: Lease,
}

impl LeaseDir {
    /// Names a lease directory; nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down that a process is about to be started; the spawner calls it **before** it starts the process.
    ///
    /// A lease whose process has ended is reserved anew, and what else is in the directory stays for the successor.
    ///
    /// # Errors
    /// [`LeaseError::Held`] when a process lives under it; otherwise the step that failed, and repeating is safe.
    pub fn reserve(&self, owner: &str, socket: &Path) -> Result<(), LeaseError> {
        let boot_id = self.boot_id()?;
        for _ in 0..MAX_ROUNDS {
            RealFs
                .create_dir_all(&self.path, 0o700)
                .map_err(|source| LeaseError::CreateDir { dir: self.path.clone(), source })?;
            let Some(_lock) = self.take_lock(true)? else { continue };
            let lease = Lease {
                version: LEASE_VERSION,
                boot_id: boot_id.as_str().to_owned(),
                process: None,
                socket: socket.to_owned(),
                binary_version: String::new(),
                owner: owner.to_owned(),
            };
            let reserved = self.sweep().and_then(|()| self.write(&lease));
            if reserved.is_err() && RealFs.exists(&self.lease_path()).is_ok_and(|exists| !exists) {
                // No lease was reserved: only the lock is ours to take back, and without a further descriptor.
                let _later = RealFs.remove_file(&self.lock_path());
                let _not_empty = RealFs.remove_dir(&self.path);
            }
            return reserved;
        }
        Err(LeaseError::Held { dir: self.path.clone() })
    }

    /// Makes the calling process the holder; the started process calls it first of all and exits on any error.
    ///
    /// # Errors
    /// [`LeaseError::Gone`], [`LeaseError::NotReserved`] or [`LeaseError::EarlierBoot`] when it came too late,
    /// [`LeaseError::Held`] when another was faster, otherwise the step that failed.
    pub fn claim(&self, binary_version: &str) -> Result<HeldLease, LeaseError> {
        let Some(lock) = self.take_lock(false)? else { return Err(LeaseError::Gone { dir: self.path.clone() }) };
        let lease = self.read()?.ok_or_else(|| LeaseError::Gone { dir: self.path.clone() })?;
        if lease.boot_id != self.boot_id()?.as_str() {
            return Err(LeaseError::EarlierBoot { dir: self.path.clone() });
        }
        if lease.process.is_some() {
            return Err(LeaseError::NotReserved { dir: self.path.clone() });
        }
        let Some(lock) = lock.keep() else { return Err(LeaseError::Gone { dir: self.path.clone() }) };
        self.hold(lock, lease, binary_version)
    }

    /// Makes the calling process the holder in the place of a living one that has handed over its lock (see
    /// [`HeldLease::as_fd`]); at no moment is the lease without a holder.
    ///
    /// # Errors
    /// [`LeaseError::Held`] when the descriptor is not that of the lock, [`LeaseError::Gone`] when the lease is retired,
    /// otherwise the step that failed.
    pub fn take_over(&self, lock: OwnedFd, binary_version: &str) -> Result<HeldLease, LeaseError> {
        let lock = File::from(lock);
        if !lock::is_at(&lock, &self.lock_path()).map_err(|source| self.lock_failed(source))? {
            return Err(LeaseError::Gone { dir: self.path.clone() });
        }
        if !lock::try_take(&lock).map_err(|source| self.lock_failed(source))? {
            return Err(LeaseError::Held { dir: self.path.clone() });
        }
        let lease = self.read()?.ok_or_else(|| LeaseError::Gone { dir: self.path.clone() })?;
        self.hold(lock, lease, binary_version)
    }

    /// Looks at the lease; disturbs nobody.
    ///
    /// # Errors
    /// The step that failed; [`LeaseError::Decode`] and [`LeaseError::NewerVersion`] when it cannot be understood.
    pub fn probe(&self) -> Result<LeaseState, LeaseError> {
        // The lock first: a process that claims between the two looks is then `Dead` for nobody, only `Reserved`.
        let is_held = self.is_held()?;
        let Some(lease) = self.read()? else { return Ok(LeaseState::Absent) };
        if lease.boot_id != self.boot_id()?.as_str() {
            return Ok(LeaseState::OtherBoot(lease));
        }
        match (lease.process, is_held) {
            (None, _) => Ok(LeaseState::Reserved),
            (Some(_), true) => Ok(LeaseState::Held(lease)),
            // It may have claimed since the first look.
            (Some(_), false) if self.is_held()? => Ok(LeaseState::Held(lease)),
            (Some(_), false) => Ok(LeaseState::Dead(lease)),
        }
    }

    /// Removes the directory with all that is in it, so that no late starter can claim it. It is fine when there is none.
    ///
    /// # Errors
    /// [`LeaseError::Held`] when a process lives under it; otherwise the step that failed, and repeating is safe.
    pub fn retire(&self) -> Result<(), LeaseError> {
        for _ in 0..MAX_ROUNDS {
            if let Some(_lock) = self.take_lock(false)? {
                match self.remove_all() {
                    // Another who retires it too put its lock where ours had just been removed.
                    Err(LeaseError::Remove { source, .. }) if source.kind() == io::ErrorKind::DirectoryNotEmpty => {
                        continue;
                    }
                    other => return other,
                }
            }
            // No lock, or a directory half-removed. Only when nobody can live here may the rest go without it.
            if !RealFs.exists(&self.path).map_err(|source| self.remove_failed(source))? {
                return Ok(());
            }
            if !RealFs.exists(&self.lock_path()).map_err(|source| self.remove_failed(source))? {
                if self.names_a_living_process()? {
                    return Err(LeaseError::Held { dir: self.path.clone() });
                }
                // With a lock of our own, the next round removes it like any other; or it is gone meanwhile.
                match lock::open(&self.lock_path(), true) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(self.lock_failed(source)),
                }
            }
        }
        Err(LeaseError::Held { dir: self.path.clone() })
    }

    /// Opens and takes the lock; `None` when there is none, or when it is no longer the one in the directory.
    fn take_lock(&self, is_created: bool) -> Result<Option<lock::Taken>, LeaseError> {
        let path = self.lock_path();
        let file = match lock::open(&path, is_created) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.lock_failed(source)),
        };
        if !lock::try_take(&file).map_err(|source| self.lock_failed(source))? {
            return Err(LeaseError::Held { dir: self.path.clone() });
        }
        let is_there = lock::is_at(&file, &path).map_err(|source| self.lock_failed(source));
        let taken = lock::Taken::new(file);
        Ok(is_there?.then_some(taken))
    }

    fn is_held(&self) -> Result<bool, LeaseError> {
        match lock::open(&self.lock_path(), false) {
            Ok(file) => lock::is_taken(&file).map_err(|source| self.lock_failed(source)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.lock_failed(source)),
        }
    }

    /// Fills in who we are; the lock is in our hand.
    fn hold(&self, lock: File, mut lease: Lease, binary_version: &str) -> Result<HeldLease, LeaseError> {
        let process =
            ProcessIdentity::of_self().map_err(|source| LeaseError::Process { dir: self.path.clone(), source })?;
        lease.process = Some(process);
        binary_version.clone_into(&mut lease.binary_version);
        self.write(&lease)?;
        Ok(HeldLease { dir: self.clone(), lock, lease })
    }

    /// Removes everything; only whoever has the lock may call it.
    fn remove_all(&self) -> Result<(), LeaseError> {
        let absent_is_fine = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| self.remove_failed(source)),
        };
        // The lease first: from here on nothing can be claimed, even if the rest fails.
        absent_is_fine(RealFs.remove_file(&self.lease_path()))?;
        absent_is_fine(RealFs.remove_dir_all(&self.path))
    }

    fn names_a_living_process(&self) -> Result<bool, LeaseError> {
        let failed = |source| LeaseError::Process { dir: self.path.clone(), source };
        let Ok(Some(lease)) = self.read() else { return Ok(false) };
        match lease.process {
            Some(process) if lease.boot_id == self.boot_id()?.as_str() => {
                Ok(pidfd(&process).map_err(failed)?.is_some())
            }
            _ => Ok(false),
        }
    }

    fn sweep(&self) -> Result<(), LeaseError> {
        sweep_temps(&RealFs, &self.path)
            .map(|_count| ())
            .map_err(|source| LeaseError::Write { path: self.lease_path(), source })
    }

    fn read(&self) -> Result<Option<Lease>, LeaseError> {
        #[derive(serde::Deserialize)]
        struct OnlyVersion {
            version: u32,
        }
        let path = self.lease_path();
        let bytes = match RealFs.read(&path, MAX_LEASE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LeaseError::Read { path, source }),
        };
        // The version first: what else a newer one has may not decode at all.
        match serde_json::from_slice::<OnlyVersion>(&bytes) {
            Ok(OnlyVersion { version: found }) if found > LEASE_VERSION => {
                return Err(LeaseError::NewerVersion { path, found });
            }
            Ok(_) => {}
            Err(source) => return Err(LeaseError::Decode { path, source }),
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|source| LeaseError::Decode { path, source })
    }

    fn write(&self, lease: &Lease) -> Result<(), LeaseError> {
        let path = self.lease_path();
        let bytes = serde_json::to_vec(lease).map_err(|source| LeaseError::Encode { path: path.clone(), source })?;
        replace_volatile(&RealFs, &path, &bytes, 0o600).map_err(|source| LeaseError::Write { path, source })
    }

    fn boot_id(&self) -> Result<BootId, LeaseError> {
        BootId::current().map_err(|source| LeaseError::Process { dir: self.path.clone(), source })
    }

    fn lock_failed(&self, source: io::Error) -> LeaseError {
        LeaseError::Lock { path: self.lock_path(), source }
    }

    fn remove_failed(&self, source: io::Error) -> LeaseError {
        LeaseError::Remove { dir: self.path.clone(), source }
    }

    fn lease_path(&self) -> PathBuf {
        self.path.join(LEASE_FILE)
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join(LOCK_FILE)
    }
}

impl HeldLease {
    /// Returns the lease as written.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Returns the directory, which belongs to the holder.
    pub fn dir(&self) -> &LeaseDir {
        &self.dir
    }

    /// Removes the directory and lets go: for a process that has nothing left to do.
    ///
    /// # Errors
    /// [`LeaseError::Remove`]; the lease is let go all the same.
    pub fn retire(self) -> Result<(), LeaseError> {
        if !lock::is_at(&self.lock, &self.dir.lock_path()).map_err(|source| self.dir.lock_failed(source))? {
            return Ok(());
        }
        match self.dir.remove_all() {
            // Then the other one removes the rest.
            Err(error) if error.is_not_alone() => Ok(()),
            other => other,
        }
    }
}

/// The lock's descriptor, to be handed to a successor that calls [`LeaseDir::take_over`].
impl AsFd for HeldLease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}
