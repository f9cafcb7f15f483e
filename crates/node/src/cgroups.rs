//! Where the cgroups of a node stand: below the unit of its service manager that is delegated to it, or at the top.
//!
//! ```text
//!  /system.slice/contd-containers.service/contd/<id>    a container; `contd` is the key `cgroup_parent`
//!                                        /helpers       the holder, the shims and the flist servers
//!  /contd/<id>                                          a container where there is no such unit; helpers are where the daemon is
//! ```
//!
//! The unit writes down where it is when it starts: [`UNIT_FILE`] in the run directory is the `/proc/self/cgroup` of a process
//! in it. So nobody asks the service manager, and a daemon that is started by hand finds the same place. A container stays where
//! it was made, wherever the next one is.
//!
//! The runtime makes the parent of all containers with the first one and never removes it. `rmdir` refuses while anything is
//! inside, so to remove it is safe at any moment: under running containers nothing happens.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{debug, info, warn};

use crate::config::Config;

/// The file in the run directory that says where the unit of containers is.
pub const UNIT_FILE: &str = "unit.cgroup";

/// The cgroup in the unit for the processes of ours that outlive the daemon. None of a container can have this name: the
/// parent's begins with `contd`. Not the unit itself: on v2 processes are in leaves only.
const HELPERS: &str = "helpers";

/// Where every hierarchy of cgroup v1, hybrid and v2 is mounted by convention.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The places of one node. All paths are relative to the top of each hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    unit: Option<String>,
    parent: String,
}

impl Cgroups {
    /// Finds them; says in the log where there is a unit.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let path = config.run_dir.join(UNIT_FILE);
        let unit = match fs::read_to_string(&path) {
            Ok(text) => unit_of(&text).map(str::to_owned),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), %error, "where the unit of containers is cannot be read: their cgroups stand at the top");
                None
            }
        };
        let there = unit.filter(|unit| {
            let is_there = hierarchies().iter().any(|top| top.join(unit).is_dir());
            if is_there {
                info!(unit, "cgroups stand below the unit of containers");
            } else {
                warn!(unit, "the unit of containers does not run: their cgroups stand at the top");
            }
            is_there
        });
        Self { unit: there, parent: config.cgroup_parent.clone() }
    }

    /// Returns the parent of the containers to come.
    #[must_use]
    pub fn parent(&self) -> String {
        self.unit.as_ref().map_or_else(|| self.parent.clone(), |unit| format!("{unit}/{}", self.parent))
    }

    /// Lists the parents that containers of this node may have, the present one first.
    #[must_use]
    pub fn parents(&self) -> Vec<String> {
        let mut parents = vec![self.parent()];
        if self.unit.is_some() {
            parents.push(self.parent.clone());
        }
        parents
    }

    /// Returns the absolute path of the cgroup for helpers.
    pub(crate) fn helpers(&self) -> Option<PathBuf> {
        self.unit.as_ref().map(|unit| Path::new("/").join(unit).join(HELPERS))
    }

    /// Removes the parents in each hierarchy where they are empty.
    pub fn remove_if_empty(&self) {
        for (top, parent) in hierarchies().iter().flat_map(|top| self.parents().into_iter().map(move |one| (top, one)))
        {
            let path = top.join(parent);
            match fs::remove_dir(&path) {
                Ok(()) => debug!(path = %path.display(), "removed the empty parent cgroup"),
                // Absent here, or in use: both are as they should be.
                Err(error) => debug!(path = %path.display(), %error, "left the parent cgroup"),
            }
        }
    }
}

/// Finds the unit's path in the lines of `/proc/<pid>/cgroup`: in v2, and where there is none in systemd's own hierarchy of v1.
/// The hierarchies of v1's controllers have the unit at the same path, or not at all.
fn unit_of(memberships: &str) -> Option<&str> {
    let path_in = |wanted: &str| {
        memberships.lines().find_map(|line| {
            let (name, path) = line.split_once(':')?.1.split_once(':')?;
            let path = path.strip_prefix('/')?;
            // A path with `..` is outside of our cgroup namespace; an empty one is no unit.
            let is_plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
            (name == wanted && is_plain).then_some(path)
        })
    };
    path_in("").or_else(|| path_in("name=systemd"))
}

/// Lists the hierarchies: the root itself (v2), and each directory below it that is a mount of its own (v1, hybrid).
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(CGROUP_ROOT);
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let subs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    std::iter::once(root.to_path_buf()).chain(subs.filter(|dir| dir.join("cgroup.procs").exists())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_where_its_process_was_in_v2_or_in_systemds_own_hierarchy() {
        let unit = "system.slice/contd-containers.service";
        for text in [
            format!("0::/{unit}\n"),
            format!("12:pids:/{unit}\n5:freezer:/\n1:name=systemd:/{unit}\n0::/{unit}\n"),
            format!("12:pids:/{unit}\n5:cpu,cpuacct:/x\n1:name=systemd:/{unit}\n0::/\n"),
        ] {
            assert_eq!(unit_of(&text), Some(unit), "{text}");
        }
        for none in ["", "0::/\n", "0::/../other\n", "0::/a//b\n", "4:pids:/a\n", "0:/a\n", "garbage"] {
            assert_eq!(unit_of(none), None, "{none:?}");
        }
    }

    #[test]
    fn containers_stand_below_the_unit_while_it_is_there_and_at_the_top_otherwise() {
        let run = tempfile::tempdir().expect("a directory");
        let mut config = Config { run_dir: run.path().to_owned(), ..Config::default() };
        config.cgroup_parent = "contd-t".into();
        let at_top = Cgroups::of(&config);
        assert_eq!((at_top.parent().as_str(), at_top.helpers()), ("contd-t", None));
        fs::write(run.path().join(UNIT_FILE), "0::/contd-t-none.slice/contd.service\n").expect("written");
        assert_eq!(Cgroups::of(&config), at_top, "the cgroup that the file names does not exist");
        let below = Cgroups { unit: Some("a.slice/b.service".into()), parent: "contd-t".into() };
        assert_eq!(below.parents(), ["a.slice/b.service/contd-t", "contd-t"]);
        assert_eq!(below.helpers(), Some("/a.slice/b.service/helpers".into()));
    }
}
