//! The node as checks see it: its configuration, its daemon, its records, its mounts, at one moment.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contd_cgroup::Hierarchies;
use contd_client::{Client, ClientError, Deadline, ListFilter};
use contd_lease::BootId;
use contd_rootfs::MountTable;
use contd_types::{Clock, ContainerId, ContainerSummary, Explain, SystemClock, Timestamp};

use crate::error::{LookError, read};
use crate::known::Known;
use contd_node::{Cgroups, Config};

/// Below this age a thing without a record may be one that a daemon is just making: a dry run has a root for a moment and
/// never a record, and a lease is reserved before its process is there.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// How often a daemon that holds its lock is tried again, and the pause between: it may be about to listen.
const MAX_TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// The daemon of these directories.
#[derive(Debug, Clone)]
pub(crate) enum Daemon {
    /// It answers.
    Answers {
        /// Its version.
        version: String,
        /// Its process.
        pid: i32,
        /// All containers of all namespaces.
        containers: Vec<ContainerSummary>,
    },
    /// There is one, and it does not say what it knows.
    Silent {
        /// Why.
        why: String,
        /// The next step for a person.
        hint: String,
    },
    /// There is none.
    Absent,
}

/// All that checks look at.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// The configuration, as the daemon would have it.
    pub(crate) config: &'a Config,
    /// The state directory, without symlinks where it exists; so for the next three.
    pub(crate) state: PathBuf,
    /// The run directory.
    pub(crate) run: PathBuf,
    /// The directory of logs.
    pub(crate) logs: PathBuf,
    /// The cache.
    pub(crate) cache: PathBuf,
    /// The daemon.
    pub(crate) daemon: Daemon,
    /// The containers that have records.
    pub(crate) known: Known,
    /// The mount table.
    pub(crate) mounts: MountTable,
    /// The cgroups that may be the parent of containers' cgroups, absolute.
    pub(crate) parents: Vec<PathBuf>,
    /// Where cgroups are; `None` when none is mounted.
    pub(crate) cgroups: Option<Hierarchies>,
    /// This boot.
    pub(crate) boot: BootId,
    now: Timestamp,
}

impl<'a> Node<'a> {
    /// Looks around. Changes nothing.
    pub(crate) async fn look(config: &'a Config) -> Result<Self, LookError> {
        let daemon = contact(config).await?;
        let state = real(&config.state_dir);
        let known = known(&state, &daemon)?;
        Ok(Self {
            config,
            run: real(&config.run_dir),
            logs: real(&config.log_dir),
            cache: real(&config.cache_dir),
            daemon,
            known,
            mounts: MountTable::read()?,
            parents: Cgroups::of(config).parents().iter().map(|parent| Path::new("/").join(parent)).collect(),
            cgroups: Hierarchies::read().ok(),
            boot: BootId::current()?,
            now: SystemClock.now(),
            state,
        })
    }

    /// Tells whether a daemon may be making things right now.
    pub(crate) fn has_daemon(&self) -> bool {
        !matches!(self.daemon, Daemon::Absent)
    }

    /// Tells whether what lies there cannot be in the making any more. Without a daemon nothing is.
    pub(crate) fn is_settled(&self, path: &Path) -> bool {
        !self.has_daemon() || self.age(path).is_none_or(|age| age >= SETTLED_AFTER)
    }

    /// Returns how long ago something was changed last.
    pub(crate) fn age(&self, path: &Path) -> Option<Duration> {
        let changed = path.symlink_metadata().and_then(|metadata| metadata.modified()).ok()?;
        Some(self.now.saturating_since(Timestamp::from_system_time(changed)))
    }

    /// Returns the cgroups that a container may have, as contd names them: the one that its next run would have first.
    pub(crate) fn cgroups_of(&self, name: &str) -> Vec<PathBuf> {
        self.parents.iter().map(|parent| parent.join(name)).collect()
    }

    /// Returns where the lease of a container's shim lies.
    pub(crate) fn lease_dir(&self, id: &ContainerId) -> PathBuf {
        self.run.join("s").join(lease_name(id))
    }
}

/// How many digits of an id name the lease directory of its shim.
const LEASE_DIGITS: usize = 16;

/// Returns the name of the lease directory of a container's shim.
pub(crate) fn lease_name(id: &ContainerId) -> &str {
    id.as_str().get(..LEASE_DIGITS).unwrap_or(id.as_str())
}

/// Lists whose things are whose.
pub(crate) fn known(state: &Path, daemon: &Daemon) -> Result<Known, LookError> {
    match daemon {
        Daemon::Answers { containers, .. } => Known::by_daemon(state, containers),
        // Without an answer of the daemon the records on disk are read; leaks are then not looked for.
        Daemon::Silent { .. } | Daemon::Absent => Known::by_store(state),
    }
}

/// Asks the daemon who it is and what it has.
pub(crate) async fn contact(config: &Config) -> Result<Daemon, LookError> {
    let socket = config.socket();
    for _ in 0..MAX_TRIES {
        match ask(&socket).await {
            Ok(Daemon::Answers { pid, .. }) if lock_holder(&config.run_dir)? != Some(pid) => {
                let why = format!("pid {pid} answers, which is not the daemon of {}", config.run_dir.display());
                let hint = "give --run-dir and --address of the same daemon; CONTD_ADDRESS may name another".to_owned();
                return Ok(Daemon::Silent { why, hint });
            }
            Ok(daemon) => return Ok(daemon),
            Err(error) if is_nobody_there(&error) => {
                if lock_holder(&config.run_dir)?.is_none() {
                    return Ok(Daemon::Absent);
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                let why = error.to_api_error().chain();
                return Ok(Daemon::Silent { why, hint: error.hint().unwrap_or_default() });
            }
        }
    }
    let why = format!("it holds its lock and does not listen at {}", socket.display());
    let hint = "give the daemon's own --address, or read its log and start it again".to_owned();
    Ok(Daemon::Silent { why, hint })
}

async fn ask(socket: &Path) -> Result<Daemon, ClientError> {
    let client = Client::connect(socket, Deadline::Usual).await?;
    let info = client.version(Deadline::Usual).await?;
    let containers = client.list(ListFilter::All, Deadline::Usual).await?;
    Ok(Daemon::Answers { version: info.version, pid: info.pid, containers })
}

fn is_nobody_there(error: &ClientError) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    matches!(error, ClientError::Connect { source, .. } if matches!(source.kind(), NotFound | ConnectionRefused))
}

/// Returns who holds the lock of a run directory, by the kernel's list: to try it would keep a daemon that is just
/// starting from taking it.
fn lock_holder(run: &Path) -> Result<Option<i32>, LookError> {
    let Ok(lock) = std::fs::metadata(run.join("contd.lock")) else { return Ok(None) };
    Ok(holder(&read(Path::new("/proc/locks"))?, lock.ino()))
}

/// Finds the pid of `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF` by its inode.
fn holder(locks: &str, inode: u64) -> Option<i32> {
    let lock = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(4);
        let (pid, file) = (fields.next()?.parse::<i32>().ok()?, fields.next()?);
        Some((pid, file.rsplit(':').next()?.parse::<u64>().ok()?))
    };
    let held = locks.lines().filter(|line| line.contains("FLOCK") && !line.contains("->")).filter_map(lock);
    held.into_iter().find(|(_, its)| *its == inode).map(|(pid, _)| pid)
}

fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF\n\
                         1: -> FLOCK  ADVISORY  WRITE 99 fe:00:1111 0 EOF\n\
                         2: OFDLCK ADVISORY  WRITE -1 00:1a:42 0 EOF\n";

    #[test]
    fn a_daemons_lock_is_found_by_its_inode_and_other_locks_are_none() {
        assert_eq!(holder(LOCKS, 5678), Some(1234));
        assert_eq!(holder(LOCKS, 42), None, "an open file description's lock is a lease's");
        assert_eq!(holder(LOCKS, 1111), None, "who waits for a lock does not have it");
        assert_eq!(holder("", 5678), None);
    }

    #[test]
    fn the_lock_of_a_daemon_is_seen_without_taking_it() {
        let run = tempfile::tempdir().expect("a directory");
        assert_eq!(lock_holder(run.path()).expect("looked"), None);
        let lock = contd_node::NodeLock::keep_away(run.path()).expect("free");
        assert_eq!(lock_holder(run.path()).expect("looked"), i32::try_from(std::process::id()).ok());
        drop(lock);
        // A process that another test is just starting has the descriptor until it executes its program.
        while lock_holder(run.path()).expect("looked").is_some() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
