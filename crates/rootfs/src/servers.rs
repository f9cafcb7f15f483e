//! The flist servers of this node: one per flist, found by its lease, started when the first container wants it, shut
//! down with the last.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use contd_durable::{Fs, RealFs, replace_volatile};
use contd_flist::{FetchedFlist, ImageDefaults};
use contd_lease::{Lease, LeaseDir, LeaseError, LeaseState, ProcessIdentity, pidfd, signal, wait_dead};
use contd_protocol::flistfs::{
    CacheLimits, ENDING_FILE, LAST_WORDS_FILE, LimitedRoutes, Process, SERVE_SPEC_VERSION, SERVER_FILE, ServeSpec,
    Status,
};
use contd_types::{ApiError, ErrorKind, Explain};
use nix::errno::Errno;
use nix::libc::SIGKILL;
use nix::mount::{MntFlags, umount2};
use tracing::{info, warn};

use crate::client::{self, ANSWER_TIMEOUT, ClientError};
use crate::images::Images;
use crate::locks::KeyedLocks;
use crate::mount_table::{MountTable, is_mount_point};
use crate::provider::RootfsError;
use crate::source::{self, flatten};
use crate::start::{self, START_TIMEOUT};
use crate::survey::FoundServer;
use crate::users::{self, User, disk, unwritten};

/// How many digits of the hash name a server's directory: 64 bits tell the flists of a node apart, and the socket's path
/// stays short. The whole hash is compared before a server is used.
const KEY_DIGITS: usize = 16;

/// What tells a server what to serve, in its directory.
const SPEC_FILE: &str = "serve.json";

/// Far above any real one: it holds four paths.
const MAX_SPEC_BYTES: u64 = 64 * 1024;

/// How often a server that is just going or coming is looked at again.
const MAX_ROUNDS: u32 = 4;

/// How long a shutdown is repeated while the kernel still tears down the last overlay.
const SHUTDOWN_PAUSE: Duration = Duration::from_millis(100);
const MAX_SHUTDOWNS: u32 = 20;

/// How long a server that does not listen is watched, in steps of [`SHUTDOWN_PAUSE`].
const MAX_LOOKS: u32 = 100;

/// How often and how fast those who serve are killed: each may have been replaced just before it was told not to be.
const MAX_KILL_ROUNDS: u32 = 100;
const KILL_PAUSE: Duration = Duration::from_millis(10);

/// A process is two numbers; an error some lines.
const MAX_SERVER_BYTES: u64 = 1024;
const MAX_WORDS_BYTES: u64 = 64 * 1024;

/// How many mounts may lie on one another on a mount point: one, unless somebody helped by hand.
const MAX_STACKED: u32 = 8;

/// All servers below one run directory.
#[derive(Debug)]
pub(crate) struct Servers {
    binary: PathBuf,
    dir: PathBuf,
    cache: PathBuf,
    cache_limits: CacheLimits,
    locks: KeyedLocks,
    images: Images,
}

/// One server's directory.
#[derive(Debug, Clone)]
struct Server {
    lease: LeaseDir,
    mount_point: PathBuf,
    socket: PathBuf,
    /// How errors name it.
    flist: String,
}

/// What a look at a server tells.
enum Found {
    /// None was ever started, or not to the end.
    Nothing,
    /// It ended without being asked.
    Dead,
    /// It answers.
    Serving(Status),
}

impl Servers {
    /// Names them; `run_dir` must be without symlinks.
    pub(crate) fn new(binary: PathBuf, run_dir: &Path, cache: PathBuf) -> Self {
        Self {
            binary,
            dir: Self::dir_in(run_dir),
            cache,
            cache_limits: CacheLimits::default(),
            locks: KeyedLocks::default(),
            images: Images::default(),
        }
    }

    /// Tells the servers to come how large their cache may become.
    pub(crate) fn with_cache_limits(self, cache_limits: CacheLimits) -> Self {
        Self { cache_limits, ..self }
    }

    /// Says where the lease directories of all servers are.
    pub(crate) fn dir_in(run_dir: &Path) -> PathBuf {
        run_dir.join("f")
    }

    /// Makes sure that the flist is served, notes the user, and returns where it is mounted.
    ///
    /// `is_live` tells whether a user's root is mounted: a dead server that still has such users is not replaced.
    pub(crate) fn acquire(
        &self,
        flist: &FetchedFlist,
        shown: &str,
        user: &User,
        routes: Option<&LimitedRoutes>,
        is_live: &dyn Fn(&User) -> bool,
    ) -> Result<PathBuf, RootfsError> {
        let key = key_of(&flist.hash, routes);
        let _guard = self.locks.lock(key.as_str());
        let server = self.server(&key, shown);
        for _ in 0..MAX_ROUNDS {
            match server.look()? {
                Found::Serving(status) => {
                    server.check(&status, &flist.hash)?;
                    users::add(server.lease.path(), user, &flist.hash)?;
                    return Ok(server.mount_point);
                }
                Found::Dead => server.clear_dead(is_live)?,
                Found::Nothing => self.start(&server, flist, user, routes)?,
            }
        }
        Err(RootfsError::ServerSilent { flist: shown.to_owned(), waited: START_TIMEOUT })
    }

    /// Forgets that the container uses any flist, and ends the server if it was the last user. If that fails it stays a
    /// user, so that a repeated release finds it. Servers of other flists are not touched: one may be stuck.
    pub(crate) fn release(&self, user: &User) -> Result<(), RootfsError> {
        for key in self.keys()? {
            let server = self.server(&key, &key);
            if users::hash_of(server.lease.path(), user)?.is_none() {
                continue;
            }
            let _guard = self.locks.lock(key.as_str());
            server.stop_unless_used(Some(user))?;
            users::remove(server.lease.path(), user)?;
        }
        Ok(())
    }

    /// Returns the hash of the flist that the container uses, and whether its server lives.
    pub(crate) fn used_by(&self, user: &User) -> Result<Option<(String, bool)>, RootfsError> {
        for key in self.keys()? {
            let server = self.server(&key, &key);
            if let Some(hash) = users::hash_of(server.lease.path(), user)? {
                let state = server.lease.probe().map_err(|error| server.lease_failed(&error))?;
                return Ok(Some((hash, matches!(state, LeaseState::Held(_)))));
            }
        }
        Ok(None)
    }

    /// Lists the users of servers that have ended without being asked, with the hash of their flist and the reason.
    pub(crate) fn lost(&self) -> Result<Vec<(User, String, ApiError)>, RootfsError> {
        let mut lost = Vec::new();
        for key in self.keys()? {
            let server = self.server(&key, &key);
            // A directory that cannot be understood is for `recover` and the doctor to tell of, once.
            let Ok(LeaseState::Dead(_)) = server.lease.probe() else { continue };
            for user in users::list(server.lease.path())? {
                if let Some(hash) = users::hash_of(server.lease.path(), &user)? {
                    lost.push((user, hash, server.last_words()));
                }
            }
        }
        Ok(lost)
    }

    /// Has a server of this program take the place of the one that serves, under its containers. `false` when none serves.
    pub(crate) fn upgrade(&self, key: &str) -> Result<bool, RootfsError> {
        let _guard = self.locks.lock(key);
        let server = self.server(key, key);
        match server.look()? {
            Found::Serving(_) => start::succeed(&self.binary, server.lease.path(), key).map(|()| true),
            Found::Nothing | Found::Dead => Ok(false),
        }
    }

    /// Tells how the image of a fetched flist is run.
    pub(crate) fn image(&self, flist: &FetchedFlist, shown: &str) -> Result<ImageDefaults, RootfsError> {
        self.images.get(&flist.hash, || source::image(&flist.path, shown))
    }

    /// Tells how the image of the container's flist is run: by the file that its server serves.
    pub(crate) fn image_of(&self, user: &User) -> Result<ImageDefaults, RootfsError> {
        for key in self.keys()? {
            let dir = self.dir.join(&key);
            let Some(hash) = users::hash_of(&dir, user)? else { continue };
            return self.images.get(&hash, || {
                let path = dir.join(SPEC_FILE);
                let failed = |error| disk("read", &path, error);
                let text = RealFs.read(&path, MAX_SPEC_BYTES).map_err(failed)?;
                let spec: ServeSpec = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
                source::image(&spec.flist, &key)
            });
        }
        Ok(ImageDefaults::default())
    }

    /// Lists all users with the hash of their flist.
    pub(crate) fn users(&self) -> Result<Vec<(User, String)>, RootfsError> {
        let mut all = Vec::new();
        for key in self.keys()? {
            let dir = self.dir.join(&key);
            for user in users::list(&dir)? {
                if let Some(hash) = users::hash_of(&dir, &user)? {
                    all.push((user, hash));
                }
            }
        }
        Ok(all)
    }

    /// Ends every server without users and removes what dead ones left.
    pub(crate) fn sweep(&self) -> Result<(), RootfsError> {
        for key in self.keys()? {
            let _guard = self.locks.lock(key.as_str());
            let server = self.server(&key, &key);
            if let Err(error) = server.stop_unless_used(None) {
                // One that is stuck must not keep the others; the next sweep comes by again.
                warn!(flist = %key, error = %ApiError::from_error(&error), "an unused flist server could not be ended");
            }
        }
        Ok(())
    }

    /// Ends one server if nobody is noted as its user, also one that answers no more; `false` when somebody is.
    pub(crate) fn end_unused(&self, key: &str) -> Result<bool, RootfsError> {
        let _guard = self.locks.lock(key);
        let server = self.server(key, key);
        if !users::list(server.lease.path())?.is_empty() {
            return Ok(false);
        }
        match server.stop_unless_used(None) {
            Ok(()) => Ok(true),
            // Something uses the mount though nobody is noted: a person must look.
            Err(error) if error.kind() == ErrorKind::Busy => Err(error),
            Err(_stuck) => server.destroy().map(|()| true),
        }
    }

    /// Describes every directory of a server as it is; changes nothing.
    pub(crate) fn survey(&self) -> Result<Vec<FoundServer>, RootfsError> {
        let table = MountTable::read()?;
        let look = |key: String| {
            let server = self.server(&key, &key);
            let users = users::list(server.lease.path())?.into_iter().map(|user| (user.namespace, user.id)).collect();
            let is_mounted = table.is_mounted(&server.mount_point);
            Ok(FoundServer { key, state: server.lease.probe(), dir: server.lease.path().to_owned(), users, is_mounted })
        };
        self.keys()?.into_iter().filter(|key| self.dir.join(key).is_dir()).map(look).collect()
    }

    fn server(&self, key: &str, shown: &str) -> Server {
        let dir = self.dir.join(key);
        Server {
            mount_point: dir.join("mnt"),
            socket: dir.join("sock"),
            lease: LeaseDir::new(dir),
            flist: shown.to_owned(),
        }
    }

    fn keys(&self) -> Result<Vec<String>, RootfsError> {
        match RealFs.list(&self.dir) {
            Ok(names) => Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(disk("list", &self.dir, source)),
        }
    }

    fn start(
        &self,
        server: &Server,
        flist: &FetchedFlist,
        user: &User,
        routes: Option<&LimitedRoutes>,
    ) -> Result<(), RootfsError> {
        RealFs.create_dir_all(&self.dir, 0o711).map_err(|source| disk("make", &self.dir, source))?;
        std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o711))
            .map_err(|source| disk("set the mode of", &self.dir, source))?;
        let owner = format!("flist {}", flist.hash);
        server.lease.reserve(&owner, &server.socket).map_err(|error| server.lease_failed(&error))?;
        let started = self
            .describe(server, flist, routes)
            // Before the start: if we die in between, the next daemon finds a user without a root and cleans up.
            .and_then(|()| users::add(server.lease.path(), user, &flist.hash))
            .and_then(|()| start::launch(&self.binary, server.lease.path(), &server.flist));
        match started {
            Ok(()) => {
                info!(flist = %server.flist, hash = %flist.hash, "flist server started");
                Ok(())
            }
            Err(error) => {
                if let Err(also) = server.destroy() {
                    warn!(flist = %server.flist, error = %ApiError::from_error(&also), "a failed start left something");
                }
                Err(error)
            }
        }
    }

    fn describe(
        &self,
        server: &Server,
        flist: &FetchedFlist,
        routes: Option<&LimitedRoutes>,
    ) -> Result<(), RootfsError> {
        let point = &server.mount_point;
        RealFs.create_dir_all(point, 0o700).map_err(|source| disk("make", point, source))?;
        let spec = ServeSpec {
            version: SERVE_SPEC_VERSION,
            flist: flist.path.clone(),
            hash: flist.hash.clone(),
            mount_point: point.clone(),
            cache: self.cache.clone(),
            source: server.flist.clone(),
            cache_limits: self.cache_limits,
            limited_routes: routes.cloned(),
        };
        let path = server.lease.path().join(SPEC_FILE);
        let text = serde_json::to_vec(&spec).map_err(|error| disk("write", &path, error.into()))?;
        replace_volatile(&RealFs, &path, &text, 0o600).map_err(|error| unwritten(&path, &error))
    }
}

/// Names the directory of the server of a flist. With limited routes it is another one than without, and another one for
/// other limits: what one user's server may not reach must not fail for those whose flist may route there.
fn key_of(hash: &str, routes: Option<&LimitedRoutes>) -> String {
    let key = hash.get(..KEY_DIGITS).unwrap_or(hash);
    let (Some(routes), Ok(number)) = (routes, u64::from_str_radix(key, 16)) else { return key.to_owned() };
    // FNV-1a: it only tells apart what operators write, and is the same in every version.
    let mix = |digest: u64, byte: &u8| (digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let dirs = routes.dirs.iter().map(|dir| dir.as_os_str().as_bytes());
    let parts = dirs.chain([&b"servers"[..]]).chain(routes.servers.iter().map(String::as_bytes));
    let digest = parts.flat_map(|part| part.iter().chain(&[0])).fold(0xcbf2_9ce4_8422_2325, mix);
    format!("{:016x}", number ^ digest)
}

impl Server {
    /// Finds out whether it serves; waits for one that is just coming or going.
    fn look(&self) -> Result<Found, RootfsError> {
        for _ in 0..MAX_LOOKS {
            let lease = match self.lease.probe().map_err(|error| self.lease_failed(&error))? {
                LeaseState::Absent | LeaseState::Reserved => return Ok(Found::Nothing),
                LeaseState::Dead(_) | LeaseState::OtherBoot(_) => return Ok(Found::Dead),
                LeaseState::Held(lease) => lease,
            };
            match client::status(&self.socket) {
                Ok(status) => return Ok(Found::Serving(status)),
                // It is about to listen, or about to end.
                Err(error) if error.is_nobody_there() || error.is_hang_up() => {
                    if self.wait_for_end(&lease, SHUTDOWN_PAUSE)? {
                        // Its keeper is dead, and another one on its way.
                        thread::park_timeout(KILL_PAUSE);
                    }
                }
                Err(error) => return Err(self.call_failed(&error)),
            }
        }
        Err(RootfsError::ServerSilent { flist: self.flist.clone(), waited: SHUTDOWN_PAUSE * MAX_LOOKS })
    }

    /// Makes sure that it serves this flist, here.
    fn check(&self, status: &Status, hash: &str) -> Result<(), RootfsError> {
        let refuse = |message: String, hint: &str| {
            let source = ApiError::new(ErrorKind::Busy, message).with_hint(hint);
            Err(RootfsError::Server { flist: self.flist.clone(), source })
        };
        if status.hash != hash {
            let message = format!("its directory is taken by the server of flist {}", status.hash);
            return refuse(message, "remove the containers of that flist, or change either flist by a byte");
        }
        if !is_mount_point(&self.mount_point)? {
            let message = format!("its server (pid {}) lives but is unmounted", status.pid);
            return refuse(message, "something still uses the former mount: grep fuse.contd /proc/*/mountinfo");
        }
        Ok(())
    }

    /// Ends it and removes its directory, unless somebody else than `leaving` uses it. One that does not answer is killed:
    /// nobody is left to miss it, and whoever waits for it in the kernel is let go.
    fn stop_unless_used(&self, leaving: Option<&User>) -> Result<(), RootfsError> {
        if users::list(self.lease.path())?.iter().any(|user| Some(user) != leaving) {
            return Ok(());
        }
        match self.end() {
            Err(RootfsError::ServerSilent { waited, .. }) => {
                warn!(flist = %self.flist, ?waited, "killing a flist server without users that does not answer");
                self.destroy()
            }
            ended => ended,
        }
    }

    fn end(&self) -> Result<(), RootfsError> {
        match self.look()? {
            Found::Nothing => self.retire(),
            Found::Dead => self.detach().and_then(|()| self.retire()),
            Found::Serving(_) => {
                self.shut_down()?;
                self.wait_until_let_go()?;
                info!(flist = %self.flist, "flist server ended with its last user");
                self.retire()
            }
        }
    }

    /// Waits until neither the server nor its keeper, whoever that is now, has the lease any more.
    fn wait_until_let_go(&self) -> Result<(), RootfsError> {
        for _ in 0..MAX_LOOKS {
            let LeaseState::Held(lease) = self.lease.probe().map_err(|error| self.lease_failed(&error))? else {
                return Ok(());
            };
            if self.wait_for_end(&lease, SHUTDOWN_PAUSE)? {
                thread::park_timeout(KILL_PAUSE);
            }
        }
        Err(RootfsError::ServerSilent { flist: self.flist.clone(), waited: SHUTDOWN_PAUSE * MAX_LOOKS })
    }

    fn shut_down(&self) -> Result<(), RootfsError> {
        let mut round = 1;
        loop {
            match client::shut_down(&self.socket) {
                Ok(()) => return Ok(()),
                // It went by itself; whether that is so, the wait for its end tells.
                Err(error) if error.is_nobody_there() || error.is_hang_up() => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Busy && round < MAX_SHUTDOWNS => {
                    round += 1;
                    thread::park_timeout(SHUTDOWN_PAUSE);
                }
                Err(error) => return Err(self.call_failed(&error)),
            }
        }
    }

    /// Clears away a server that died, unless containers still have its tree below them.
    fn clear_dead(&self, is_live: &dyn Fn(&User) -> bool) -> Result<(), RootfsError> {
        let users = users::list(self.lease.path())?;
        if let Some(user) = users.iter().find(|user| is_live(user)) {
            let message = format!("its server died while container {} of {} uses it", user.id.short(), user.namespace);
            let hint = "stop and start the containers of this flist: they cannot read what is not cached";
            let source = ApiError::new(ErrorKind::Unavailable, message).with_hint(hint);
            return Err(RootfsError::Server { flist: self.flist.clone(), source });
        }
        warn!(flist = %self.flist, "clearing away a dead flist server");
        self.detach()?;
        self.retire()
    }

    /// Kills all its processes, and removes what they leave.
    fn destroy(&self) -> Result<(), RootfsError> {
        self.leave_word_of_the_end()?;
        for _ in 0..MAX_KILL_ROUNDS {
            let LeaseState::Held(lease) = self.lease.probe().map_err(|error| self.lease_failed(&error))? else {
                self.detach()?;
                return self.retire();
            };
            // The keeper, the process that serves, and whoever has just taken the place of either.
            for process in lease.process.into_iter().chain(self.serving()) {
                self.kill(&process)?;
            }
            thread::park_timeout(KILL_PAUSE);
        }
        Err(RootfsError::ServerSilent { flist: self.flist.clone(), waited: KILL_PAUSE * MAX_KILL_ROUNDS })
    }

    /// From here on no process starts another one in the directory, if there is one.
    fn leave_word_of_the_end(&self) -> Result<(), RootfsError> {
        let path = self.lease.path().join(ENDING_FILE);
        match RealFs.write_new(&path, b"", 0o600) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Ok(()),
            written => written.map_err(|source| disk("write", &path, source)),
        }
    }

    /// The process that serves, as it has written itself down.
    fn serving(&self) -> Option<ProcessIdentity> {
        let text = RealFs.read(&self.lease.path().join(SERVER_FILE), MAX_SERVER_BYTES).ok()?;
        let process: Process = serde_json::from_slice(&text).ok()?;
        Some(ProcessIdentity { pid: process.pid, start_ticks: process.start_ticks })
    }

    fn kill(&self, process: &ProcessIdentity) -> Result<(), RootfsError> {
        let failed = |error: contd_lease::ProcessError| self.process_failed(&error);
        if let Some(fd) = pidfd(process).map_err(failed)? {
            signal(&fd, SIGKILL).map_err(failed)?;
            wait_dead(&fd, ANSWER_TIMEOUT).map_err(failed)?;
        }
        Ok(())
    }

    /// Tells why nobody serves any more, if the last one could say.
    fn last_words(&self) -> ApiError {
        let text = RealFs.read(&self.lease.path().join(LAST_WORDS_FILE), MAX_WORDS_BYTES);
        text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_else(|| {
            ApiError::new(ErrorKind::Unavailable, "the flist server and its keeper were both killed")
                .with_hint("stop and start the containers of this flist")
        })
    }

    /// Unmounts what a dead server left; nobody can use it.
    fn detach(&self) -> Result<(), RootfsError> {
        let point = &self.mount_point;
        for _ in 0..MAX_STACKED {
            match umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(errno) => return Err(RootfsError::Unmount { path: point.clone(), source: errno.into() }),
            }
        }
        Ok(())
    }

    fn retire(&self) -> Result<(), RootfsError> {
        self.lease.retire().map_err(|error| self.lease_failed(&error))
    }

    /// Waits until the process has ended; `false` when it lives on.
    fn wait_for_end(&self, lease: &Lease, timeout: Duration) -> Result<bool, RootfsError> {
        let failed = |error: contd_lease::ProcessError| self.process_failed(&error);
        match lease.pidfd().map_err(failed)? {
            Some(pidfd) => wait_dead(&pidfd, timeout).map_err(failed),
            None => Ok(true),
        }
    }

    fn process_failed(&self, error: &contd_lease::ProcessError) -> RootfsError {
        let source = flatten(ErrorKind::Internal, error, error.hint());
        RootfsError::Server { flist: self.flist.clone(), source }
    }

    fn lease_failed(&self, error: &LeaseError) -> RootfsError {
        let kind = if matches!(error, LeaseError::Held { .. }) { ErrorKind::Busy } else { ErrorKind::Internal };
        RootfsError::Server { flist: self.flist.clone(), source: flatten(kind, error, error.hint()) }
    }

    fn call_failed(&self, error: &ClientError) -> RootfsError {
        if error.is_silence() {
            return RootfsError::ServerSilent { flist: self.flist.clone(), waited: ANSWER_TIMEOUT };
        }
        RootfsError::Server { flist: self.flist.clone(), source: ApiError::from_error(error) }
    }
}
