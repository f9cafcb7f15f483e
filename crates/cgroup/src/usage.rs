//! The figures of a cgroup, read again and again from files that stay open: no path is walked after the first time.
//!
//! A file that this kernel or this node has not leaves its figures `None`; figures are never guessed.

mod parse;
mod v1;
mod v2;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use contd_types::Usage;

use crate::cgroup::Cgroup;
use crate::error::CgroupError;

/// The open files of a cgroup that tell what it uses: those of the controllers of v1, and those of v2, which counts processor time
/// and pressure also where the controllers are v1's.
#[derive(Debug)]
pub struct Meter {
    v1: Option<v1::Files>,
    v2: Option<v2::Files>,
}

/// A file that is read from its beginning again and again; `None` where the kernel has none.
#[derive(Debug)]
struct Gauge(Option<File>);

impl Gauge {
    /// # Errors
    /// Everything but that there is none.
    fn open(dir: &Path, name: &str) -> Result<Self, CgroupError> {
        let path = dir.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Self(Some(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(None)),
            Err(source) => Err(CgroupError::file("open", path, source)),
        }
    }

    /// Reads all of it into a buffer that is used again; empty when it cannot be read, as after the cgroup was removed.
    fn read<'a>(&self, buffer: &'a mut Vec<u8>) -> &'a str {
        buffer.resize(buffer.capacity().max(FIRST_READ_BYTES), 0);
        let length = self.0.as_ref().map_or(0, |file| {
            loop {
                match file.read_at(buffer, 0) {
                    // The kernel cuts what does not fit.
                    Ok(length) if length == buffer.len() && length < LARGEST_READ_BYTES => buffer.resize(length * 2, 0),
                    Ok(length) => break length,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_removed) => break 0,
                }
            }
        });
        buffer.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

/// Room for every file but some `memory.stat` and `io.stat`.
const FIRST_READ_BYTES: usize = 2048;
/// A node with very many block devices.
const LARGEST_READ_BYTES: usize = 1 << 20;

impl Cgroup {
    /// Opens the files that tell what it uses.
    ///
    /// # Errors
    /// [`CgroupError::File`] when no descriptor is free.
    pub fn meter(&self) -> Result<Meter, CgroupError> {
        let v2 = self.dirs.iter().find(|dir| dir.is_v2);
        let has_v1 = self.dirs.iter().any(|dir| !dir.is_v2);
        Ok(Meter {
            v1: has_v1.then(|| v1::Files::open(self)).transpose()?,
            v2: v2.map(|dir| v2::Files::open(&dir.path)).transpose()?,
        })
    }
}

impl Meter {
    /// Reads all figures; `buffer` may be used for many meters.
    pub fn read(&self, buffer: &mut Vec<u8>) -> Usage {
        let v2 = self.v2.as_ref().map(|files| files.read(buffer)).unwrap_or_default();
        let Some(files) = &self.v1 else { return v2 };
        let mut usage = files.read(buffer);
        usage.pressure = v2.pressure;
        usage.cpu.total_ns = usage.cpu.total_ns.or(v2.cpu.total_ns);
        usage.cpu.user_ns = usage.cpu.user_ns.or(v2.cpu.user_ns);
        usage.cpu.system_ns = usage.cpu.system_ns.or(v2.cpu.system_ns);
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Controllers, Hierarchies};

    #[test]
    fn a_process_that_works_is_seen_on_whatever_hierarchies_this_node_has() {
        let hierarchies = Hierarchies::read().expect("mountinfo");
        let path = format!("/contd-t-usage-{}", std::process::id());
        let needs = Controllers::usual() | Controllers::CPUACCT | Controllers::BLKIO;
        let cgroup = Cgroup::create(&hierarchies, Path::new(&path), needs).expect("as root");
        let meter = cgroup.meter().expect("its files");
        let mut buffer = Vec::new();
        assert_eq!(meter.read(&mut buffer).pids.count, Some(0));
        let mut child = std::process::Command::new("/bin/sh");
        child.args(["-c", "while read line; do i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo $line; done"]);
        let piped = std::process::Stdio::piped;
        let mut child = child.stdin(piped()).stdout(piped()).spawn().expect("a shell");
        let pid = i32::try_from(child.id()).expect("a pid");
        for dir in &cgroup.dirs {
            std::fs::write(dir.path.join("cgroup.procs"), pid.to_string()).expect("move it");
        }
        let (mut stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut answers = std::io::BufReader::new(stdout);
        std::io::Write::write_all(&mut stdin, b"work\n").expect("ask");
        let mut line = String::new();
        std::io::BufRead::read_line(&mut answers, &mut line).expect("an answer");
        let usage = meter.read(&mut buffer);
        drop(stdin);
        child.wait().expect("reap it");
        cgroup.remove(std::time::Duration::from_secs(60)).expect("remove it");
        assert_eq!(usage.pids.count, Some(1), "{usage:?}");
        assert!(usage.cpu.total_ns > Some(1_000_000), "{usage:?}");
        assert!(usage.memory.bytes > Some(0) && usage.memory.working_set_bytes <= usage.memory.bytes, "{usage:?}");
        assert_eq!((usage.memory.limit_bytes, usage.memory.oom_kills), (None, Some(0)), "{usage:?}");
        assert!(usage.io.read_bytes.is_some(), "{usage:?}");
        // Its files are open still, and it is gone.
        assert_eq!(meter.read(&mut buffer), Usage::default());
    }
}
