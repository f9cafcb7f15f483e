//! [`ShimClient`] for real shim processes.

mod attach;
mod clean_up;
mod holder;
mod holdouts;
mod keep;
mod launch;
mod list;
mod shim;
mod slots;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_durable::{Fs, RealFs};
use contd_lease::{LeaseDir, LeaseError, ProcessLog};
use contd_per_key::PerKey;
use contd_protocol::shim::{InitRecord, TaskSpec, files};
use contd_types::{ContainerId, NamespaceId};
use futures_util::future::{BoxFuture, FutureExt};
use serde::de::DeserializeOwned;

use crate::{Attached, FoundShim, Holdout, Shim, ShimClient, ShimError, Vault};

use holder::Holder;
use keep::Keep;
pub use keep::is_kept_name;
pub use slots::SlotConfig;
use slots::Slots;

/// `sun_path` has 108 bytes, the last of which is NUL.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// How many digits of an id name its directory: the whole id would make the socket's path too long. 64 random bits.
const DIR_DIGITS: usize = 16;

/// The most bytes of a file that a shim or we write into a lease directory.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Where shims are and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimClientConfig {
    /// The program `contd-shim`, absolute.
    pub shim_binary: PathBuf,
    /// The run directory, on tmpfs; shims live in `<run_dir>/s/<16 hex>`.
    pub run_dir: PathBuf,
}

/// Starts real shims and finds them again. All state is on tmpfs; clones share the locks of starts.
#[derive(Debug, Clone)]
pub struct ProcessShimClient {
    config: ShimClientConfig,
    /// Held by each start of a shim. Of two starts of one, the second finds the first one's shim ready, and one that fails
    /// does not end the other's.
    starts: Arc<PerKey<ContainerId, tokio::sync::Mutex<()>>>,
    slots: Option<Arc<Slots>>,
    keep: Arc<Keep>,
    holder: Arc<Holder>,
}

impl ProcessShimClient {
    /// Makes a client; nothing is touched yet.
    pub fn new(config: ShimClientConfig) -> Self {
        let holder = Arc::new(Holder::new(&config.run_dir, &config.shim_binary, None));
        Self { config, starts: Arc::default(), slots: None, keep: Arc::default(), holder }
    }

    /// Keeps warm shims for containers to come; see [`Self::fill_slots`].
    #[must_use]
    pub fn with_slots(mut self, slots: SlotConfig) -> Self {
        self.slots = (slots.count > 0).then(|| Arc::new(Slots::new(slots)));
        self
    }

    /// Has the holder and all shims that it starts in a cgroup of their own, such as `/u.service/helpers`.
    #[must_use]
    pub fn with_cgroup(mut self, cgroup: Option<PathBuf>) -> Self {
        self.holder = Arc::new(Holder::new(&self.config.run_dir, &self.config.shim_binary, cgroup));
        self
    }

    /// Has what is held of running containers kept beyond this process too.
    #[must_use]
    pub fn with_vault(mut self, vault: Arc<dyn Vault>) -> Self {
        self.keep = Arc::new(Keep::new(vault));
        self
    }

    /// Takes back what an earlier process held of running containers, by the names of [`Self::release_kept`]. What belongs
    /// to no container any more is closed, and leaves the vault, which must have been given before.
    #[must_use]
    pub fn with_kept(self, kept: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        let dir = self.shims_dir();
        self.keep.take_back(kept, |digits| dir.join(digits).exists());
        self
    }

    /// Gives what is held of running containers to a successor of this process. Only legal when nothing is under way.
    pub fn release_kept(&self) -> Vec<(String, OwnedFd)> {
        self.keep.release()
    }

    /// Begins to start the holder and the warm shims, in the background; from then on each one that is used is replaced.
    /// Wants a tokio runtime.
    pub fn fill_slots(&self) {
        let holder = Arc::clone(&self.holder);
        tokio::spawn(async move { holder.be_there().await });
        if let Some(slots) = &self.slots {
            slots.refill(self);
        }
    }

    /// Ends the warm shims that no container has taken, and waits until nothing of them is left.
    pub async fn drain_slots(&self) {
        if let Some(slots) = &self.slots {
            slots.drain(self).await;
        }
    }

    /// Returns the directory of all leases.
    fn shims_dir(&self) -> PathBuf {
        self.config.run_dir.join("s")
    }

    /// Returns the lease directory of a container's shim.
    pub fn dir_of(&self, id: &ContainerId) -> PathBuf {
        self.shims_dir().join(dir_name(id))
    }

    fn place(&self, id: &ContainerId) -> Result<Place, ShimError> {
        let lease = LeaseDir::new(self.dir_of(id));
        let socket = lease.path().join(files::SOCKET);
        if socket.as_os_str().as_bytes().len() > MAX_SOCKET_PATH_BYTES {
            return Err(ShimError::PathTooLong { id: id.clone(), socket, limit: MAX_SOCKET_PATH_BYTES });
        }
        Ok(Place { id: id.clone(), lease, socket, shim_binary: self.config.shim_binary.clone() })
    }
}

fn dir_name(id: &ContainerId) -> &str {
    id.as_str().get(..DIR_DIGITS).unwrap_or(id.as_str())
}

/// Where one container's shim lives.
#[derive(Debug, Clone)]
struct Place {
    id: ContainerId,
    lease: LeaseDir,
    socket: PathBuf,
    /// The program that its successor would be.
    shim_binary: PathBuf,
}

impl Place {
    fn lease_failed(&self, source: LeaseError) -> ShimError {
        ShimError::Lease { id: self.id.clone(), source }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.lease.path().join(name)
    }

    /// Reads one of the directory's files; what cannot be understood is as good as absent, and said so.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.file(name);
        match RealFs.read(&path, MAX_FILE_BYTES).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
            Ok(value) => Some(value),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "file of a shim is not readable");
                None
            }
        }
    }

    /// Opens a pidfd of the container's init if it still runs; a zombie does not.
    fn living_init(&self) -> io::Result<Option<OwnedFd>> {
        let Some(init) = self.read::<InitRecord>(files::INIT) else { return Ok(None) };
        let identity = contd_lease::ProcessIdentity { pid: init.pid.0, start_ticks: init.start_ticks };
        let Some(pidfd) = contd_lease::pidfd(&identity).map_err(io::Error::other)? else { return Ok(None) };
        let is_dead = contd_lease::wait_dead(&pidfd, std::time::Duration::ZERO).map_err(io::Error::other)?;
        Ok((!is_dead).then_some(pidfd))
    }

    fn clean_up_failed(&self, path: &Path, source: io::Error) -> ShimError {
        ShimError::CleanUp { id: self.id.clone(), path: path.to_owned(), source }
    }

    /// Carries new lines of the shim's log over into the daemon's.
    fn tell_the_log(&self) {
        match ProcessLog::new(self.lease.path(), files::SHIM_LOG).new_lines() {
            Ok(lines) => lines.iter().for_each(|line| tracing::info!("shim: {line}")),
            Err(error) => tracing::debug!(%error, "shim log not read"),
        }
    }

    /// Removes the lease directory; a living shim keeps it.
    fn retire(&self) -> Result<(), ShimError> {
        self.tell_the_log();
        match self.lease.retire() {
            Ok(()) => Ok(()),
            Err(LeaseError::Held { .. }) => Err(ShimError::StillAlive { id: self.id.clone() }),
            Err(source) => Err(self.lease_failed(source)),
        }
    }
}

/// Runs what may block on the pool for that.
async fn blocking<T: Send + 'static>(
    place: &Place,
    verb: &'static str,
    work: impl FnOnce(&Place) -> Result<T, ShimError> + Send + 'static,
) -> Result<T, ShimError> {
    let (own, span) = (place.clone(), tracing::Span::current());
    // It panics when there is no thread and none can be made; what was to be done is then done with the next thread that
    // can be made, like everything that may be repeated.
    let spawned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tokio::task::spawn_blocking(move || span.in_scope(|| work(&own)))
    }));
    let Ok(spawned) = spawned else {
        let source = io::Error::from(nix::errno::Errno::EAGAIN);
        return Err(ShimError::NoThread { id: place.id.clone(), verb, source });
    };
    match spawned.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down: nobody will use the answer.
            Err(_cancelled) => Err(ShimError::Lost { id: place.id.clone(), verb }),
        },
    }
}

impl ShimClient for ProcessShimClient {
    fn spawn(&self, task: TaskSpec) -> BoxFuture<'_, Result<Arc<dyn Shim>, ShimError>> {
        async move {
            let turn = self.starts.of(&task.id, Default::default);
            // Waits at most for one start that fails in each of its steps; they all have deadlines.
            let _own_turn = turn.lock().await;
            let place = self.place(&task.id)?;
            if let Some(slot) = self.slots.as_ref().and_then(|slots| slots.taken(&task.id)) {
                match slots::assign(slot, &self.keep, &place, &task).await {
                    Ok(shim) => return Ok(Arc::new(shim.of(task.input)) as Arc<dyn Shim>),
                    // The rest of it is removed by the cold start.
                    Err(error) => tracing::warn!(%error, "warm shim not usable, starting one"),
                }
            }
            let input = task.input;
            let shim = launch::spawn(self, &place, task).await?;
            Ok(Arc::new(shim.of(input)) as Arc<dyn Shim>)
        }
        .boxed()
    }

    fn reserve_id(&self) -> Option<ContainerId> {
        let slots = self.slots.as_ref()?;
        let id = slots.reserve(self.holder.pid());
        slots.refill(self);
        id
    }

    fn release_id(&self, id: &ContainerId) {
        let Some(slots) = self.slots.clone() else { return };
        if let (Some(slot), Ok(place)) = (slots.taken(id), self.place(id)) {
            tokio::spawn(async move { slots.end(slot, &place).await });
        }
    }

    fn attach(&self, _namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Result<Attached, ShimError>> {
        let (place, turn) = (self.place(id), self.starts.of(id, Default::default));
        async move {
            // Of two who look at once, one starts the successor.
            let _own_turn = turn.lock().await;
            attach::attach(self, &place?).await
        }
        .boxed()
    }

    fn end_silent(&self, _namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Result<(), ShimError>> {
        let place = self.place(id);
        async move { blocking(&place?, "end the silent shim of", launch::end_silent).await }.boxed()
    }

    fn clean_up(&self, _namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Result<(), ShimError>> {
        let place = self.place(id);
        // Letting go of its leash ends a slot that was given no task.
        let slot = self.slots.clone().and_then(|slots| slots.taken(id).map(|slot| (slots, slot)));
        async move {
            let place = place?;
            if let Some((slots, slot)) = slot {
                slots.end(slot, &place).await;
            }
            clean_up::clean_up(&place).await?;
            self.keep.let_go(&place.id);
            Ok(())
        }
        .boxed()
    }

    fn holdouts(&self, _namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Vec<Holdout>> {
        let place = self.place(id);
        async move {
            let Ok(place) = place else { return Vec::new() };
            blocking(&place, "look at the processes of", |place| Ok(holdouts::list(place))).await.unwrap_or_default()
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<FoundShim>, ShimError>> {
        let (dir, slots) = (self.shims_dir(), self.slots.clone());
        async move { list::list(dir, slots).await }.boxed()
    }
}
