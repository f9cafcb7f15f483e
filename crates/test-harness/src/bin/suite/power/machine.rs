//! The machine: a node and the disk that outlives it, booted, and killed as by a loss of power.
//!
//! The disk is served by nbdkit, whose cache filter writes to the file what the node has flushed, and nothing else. The machine is killed
//! first: from then on nothing is acknowledged any more. Then nbdkit is, and with it goes all that was written and not flushed.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::link::Link;

/// How long the server of the disk may take to listen.
const SERVER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an ordered end may take before it is a failure by itself: far longer than any time-out of systemd on the way.
const END_TIMEOUT: Duration = Duration::from_secs(1800);
const PAUSE: Duration = Duration::from_millis(20);

/// The file system of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileSystem {
    Ext4,
    Btrfs,
}

impl FileSystem {
    pub(super) const ALL: [Self; 2] = [Self::Ext4, Self::Btrfs];
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Btrfs => "btrfs",
        })
    }
}

impl FromStr for FileSystem {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|file_system| file_system.to_string() == text);
        known.ok_or_else(|| format!("--fs {text}: it is ext4 or btrfs"))
    }
}

/// Where a node lies and what is in it.
#[derive(Debug)]
pub(super) struct Site {
    root: PathBuf,
    pub(super) node: String,
    pub(super) file_system: FileSystem,
    /// Disk, sockets, console, output.
    pub(super) dir: PathBuf,
    programs: Vec<PathBuf>,
}

impl Site {
    /// # Errors
    /// When its directory cannot be made.
    pub(super) fn new(
        root: &Path,
        node: &str,
        file_system: FileSystem,
        programs: Vec<PathBuf>,
    ) -> Result<Self, String> {
        let dir = root.join(format!("target/suite/power-{node}-{file_system}"));
        let made = fs::remove_dir_all(&dir).or(Ok(())).and_then(|()| fs::create_dir_all(&dir));
        made.map_err(|error: std::io::Error| format!("make {}: {error}", dir.display()))?;
        Ok(Self { root: root.to_owned(), node: node.to_owned(), file_system, dir, programs })
    }

    pub(super) fn disk(&self) -> PathBuf {
        self.dir.join("disk")
    }

    /// Keeps the disk as the power has left it, for a person who looks for a fault.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub(super) fn keep_disk(&self) -> Result<(), String> {
        let (from, to) = (self.disk(), self.dir.join("disk.lost"));
        let copied = Command::new("cp").args(["--sparse=always", "--reflink=auto"]).args([&from, &to]).status();
        match copied {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("copy {}: {other:?}", from.display())),
        }
    }

    fn open(&self, name: &str) -> Result<File, String> {
        let path = self.dir.join(name);
        let file = File::options().create(true).append(true).open(&path);
        file.map_err(|error| format!("open {}: {error}", path.display()))
    }

    /// Starts the server of the disk.
    fn serve(&self) -> Result<Child, String> {
        let socket = self.dir.join("nbd");
        let _there_was_none = fs::remove_file(&socket);
        let mut server = Command::new("nbdkit")
            .args(["--foreground", "--exit-with-parent", "--filter=cache", "--unix"])
            .arg(&socket)
            .arg("file")
            .arg(self.disk())
            .args(["cache=writeback", "cache-min-block-size=4K"])
            .stdin(Stdio::null())
            .stderr(self.open("nbdkit.err")?)
            .spawn()
            .map_err(|error| format!("run nbdkit: {error}"))?;
        let begin = Instant::now();
        while !socket.exists() {
            if begin.elapsed() > SERVER_TIMEOUT || server.try_wait().is_ok_and(|end| end.is_some()) {
                let _ended = server.kill();
                return Err(format!("nbdkit does not listen: {}/nbdkit.err", self.dir.display()));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(server)
    }
}

/// A node that runs.
#[derive(Debug)]
pub(super) struct Machine {
    emulator: Child,
    disk: Child,
    pub(super) link: Link,
}

impl Machine {
    /// Boots the node; returns when contd is installed in it, and not yet started.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) fn boot(site: &Site) -> Result<Self, String> {
        let mut disk = site.serve()?;
        let (socket, job) = (site.dir.join("talk"), site.dir.join("job"));
        let _there_was_none = fs::remove_file(&socket);
        let programs = site.programs[0].parent().unwrap_or(&site.root);
        let script = format!("exec bash {}/tests/vm/power.sh {}\n", site.root.display(), programs.display());
        fs::write(&job, script).map_err(|error| format!("write {}: {error}", job.display()))?;
        let mut emulator = Command::new(site.root.join("tests/vm/run.sh"))
            .arg(&site.node)
            .args([&site.dir, &job])
            .args(&site.programs)
            .env("VM_DATA", format!("nbd:unix:{}", site.dir.join("nbd").display()))
            .env("VM_TALK", &socket)
            .env("VM_TREE", "kept")
            .stdin(Stdio::null())
            .stdout(site.open("node.out")?)
            .stderr(site.open("node.err")?)
            .spawn()
            .map_err(|error| format!("run tests/vm/run.sh: {error}"))?;
        let link = Link::open(&socket, || matches!(emulator.try_wait(), Ok(None)));
        let link = link.map_err(|error| format!("{error}; see {}/console.txt and node.err", site.dir.display()));
        if link.is_err() {
            end(&mut emulator);
            end(&mut disk);
        }
        let link = link?;
        Ok(Self { emulator, disk, link })
    }

    /// Takes its power.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub(super) fn lose_power(&mut self) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("kill the machine: {error}");
        self.emulator.kill().map_err(failed)?;
        self.disk.kill().map_err(failed)?;
        self.emulator.wait().map_err(failed)?;
        self.disk.wait().map_err(failed)?;
        Ok(())
    }

    /// Waits until it has ended by itself, then takes the power of the disk.
    ///
    /// # Errors
    /// When it does not end.
    pub(super) fn wait(&mut self) -> Result<ExitStatus, String> {
        let begin = Instant::now();
        let status = loop {
            match self.emulator.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if begin.elapsed() > END_TIMEOUT => return Err("the machine does not end".to_owned()),
                Ok(None) => std::thread::sleep(PAUSE),
                Err(error) => return Err(format!("wait for the machine: {error}")),
            }
        };
        self.disk.kill().and_then(|()| self.disk.wait()).map_err(|error| format!("kill nbdkit: {error}"))?;
        Ok(status)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        end(&mut self.emulator);
        end(&mut self.disk);
    }
}

/// Ends a process of ours; fine when it has ended.
fn end(child: &mut Child) {
    let _ended = child.kill().and_then(|()| child.wait());
}
