//! Processes of ours and their age, as `/proc` tells.

use std::path::{Path, PathBuf};
use std::time::Duration;

use contd_lease::ProcessIdentity;
use contd_types::Timestamp;
use nix::unistd::{SysconfVar, sysconf};

use crate::error::{LookError, entries, read};

/// The value of `sysconf` on every Linux.
const USUAL_TICKS_PER_SECOND: u64 = 100;

/// A helper of some contd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Helper {
    /// Which process, for certain.
    pub(crate) identity: ProcessIdentity,
    /// Its program.
    pub(crate) program: String,
    /// Its lease directory.
    pub(crate) dir: PathBuf,
}

/// Lists the shims and flist servers on this machine, whatever contd they are of.
pub(crate) fn helpers() -> Result<Vec<Helper>, LookError> {
    let mut found = Vec::new();
    for path in entries(Path::new("/proc"))? {
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok()) else { continue };
        // Before the rest: if it is the same afterwards, all was of one process.
        let Ok(Some(identity)) = ProcessIdentity::of(pid) else { continue };
        if let Some((program, dir)) = look(&path)
            && ProcessIdentity::of(pid).is_ok_and(|now| now == Some(identity))
        {
            found.push(Helper { identity, program, dir });
        }
    }
    Ok(found)
}

/// The kernel's path for a program that is executed from a mount of its own file alone, as shims are
/// (docs/decisions/0005).
const SEALED: &str = "/";

/// Returns the lease directory of a process that is a helper of some contd.
pub(crate) fn lease_dir_of(pid: i32) -> Option<PathBuf> {
    look(Path::new(&format!("/proc/{pid}"))).map(|(_, dir)| dir)
}

fn look(path: &Path) -> Option<(String, PathBuf)> {
    // It may end under our eyes, and a process of the kernel has no program.
    let (exe, words) = (std::fs::read_link(path.join("exe")).ok()?, std::fs::read(path.join("cmdline")).ok()?);
    if exe == Path::new(SEALED) {
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        return helper(name.trim(), &words);
    }
    helper(&exe.to_string_lossy(), &words)
}

/// Tells by program and words whether it is a helper, and which lease directory it has.
fn helper(exe: &str, words: &[u8]) -> Option<(String, PathBuf)> {
    // An upgrade has replaced the file.
    let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
    let program = exe.rsplit('/').next()?;
    if !["contd-shim", "contd-flistfs"].contains(&program) {
        return None;
    }
    let mut words = words.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    words.find(|word| word == "--dir")?;
    Some((program.to_owned(), PathBuf::from(words.next()?.into_owned())))
}

/// When this boot began and how fast it ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boot {
    began: Timestamp,
    ticks_per_second: u64,
}

impl Boot {
    /// Asks the kernel.
    pub(crate) fn read() -> Result<Self, LookError> {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
        let ticks_per_second = ticks.filter(|ticks| *ticks > 0).unwrap_or(USUAL_TICKS_PER_SECOND);
        let began = Timestamp(boot_seconds(&read(Path::new("/proc/stat"))?).saturating_mul(1_000_000_000));
        Ok(Self { began, ticks_per_second })
    }

    /// Tells whether this process lived already at a time; one that began later cannot have written what is older.
    pub(crate) fn lived_at(self, process: &ProcessIdentity, time: Timestamp) -> bool {
        let seconds = process.start_ticks / self.ticks_per_second;
        self.began.saturating_add(Duration::from_secs(seconds)) <= time
    }
}

fn boot_seconds(stat: &str) -> u64 {
    let value = stat.lines().find_map(|line| line.strip_prefix("btime "));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_known_by_its_program_and_its_directory() {
        let words = b"contd-shim\0--dir\0/run/contd/s/0123\0--slot\0";
        let expected = Some(("contd-shim".to_owned(), PathBuf::from("/run/contd/s/0123")));
        assert_eq!(helper("/usr/bin/contd-shim", words), expected);
        assert_eq!(helper("/usr/bin/contd-shim (deleted)", words), expected);
        assert_eq!(helper("/bin/sh", words), None);
        assert_eq!(helper("/usr/bin/contd-flistfs", b"contd-flistfs\0--version\0"), None);
    }

    #[test]
    fn a_process_that_began_later_did_not_live_then() {
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1000\nprocesses 3\n"), 1000);
        let boot = Boot { began: Timestamp(1_000_000_000_000), ticks_per_second: 100 };
        let process = ProcessIdentity { pid: 1, start_ticks: 500 };
        assert!(boot.lived_at(&process, Timestamp(1_005_000_000_000)));
        assert!(!boot.lived_at(&process, Timestamp(1_004_000_000_000)));
    }
}
