//! The mounted cgroup hierarchies; read once.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use contd_mountinfo::{Mount, parse_line};

use crate::controllers::Controllers;
use crate::error::CgroupError;

/// The arrangement of hierarchies on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// v1 only.
    V1,
    /// v1 with the controllers, v2 beside it.
    Hybrid,
    /// v2 only.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// The names of v1's controllers, `name=...` included; empty for v2.
    pub(crate) names: Vec<String>,
    pub(crate) controllers: Controllers,
    /// The part of the hierarchy that is mounted.
    root: PathBuf,
    pub(crate) point: PathBuf,
}

/// All hierarchies of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    pub(crate) all: Vec<Hierarchy>,
}

/// A hierarchy that a container joins, in the form in which it is mounted in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The names of v1's controllers; empty for v2.
    pub names: Vec<String>,
    /// The name of its directory below `/sys/fs/cgroup`.
    pub dir: String,
}

impl Hierarchy {
    pub(crate) fn is_v2(&self) -> bool {
        self.names.is_empty()
    }
}

impl Hierarchies {
    /// Reads the mounts of our own mount namespace.
    ///
    /// # Errors
    /// [`CgroupError::Mounts`], [`CgroupError::NoneMounted`].
    pub fn read() -> Result<Self, CgroupError> {
        let text = fs::read(contd_mountinfo::PATH).map_err(|source| CgroupError::Mounts { source })?;
        let hierarchies = Self::parse(&text);
        if hierarchies.all.is_empty() { Err(CgroupError::NoneMounted) } else { Ok(hierarchies) }
    }

    pub(crate) fn parse(mountinfo: &[u8]) -> Self {
        /// A busy node has thousands of other mounts.
        const MARK: &[u8] = b" - cgroup";
        let mut all: Vec<Hierarchy> = Vec::new();
        let lines = mountinfo.split(|byte| *byte == b'\n').filter(|line| line.windows(MARK.len()).any(|at| at == MARK));
        for found in lines.filter_map(parse_line).filter_map(hierarchy) {
            // If a hierarchy is mounted twice, the first mount is used.
            if !all.iter().any(|known| known.names == found.names) {
                all.push(found);
            }
        }
        Self { all }
    }

    /// Returns the arrangement of the hierarchies.
    pub fn kind(&self) -> Kind {
        let has_v2 = self.all.iter().any(Hierarchy::is_v2);
        let has_controllers = self.all.iter().any(|hierarchy| hierarchy.controllers != Controllers::NONE);
        match (has_v2, has_controllers) {
            (true, false) => Kind::V2,
            (true, true) => Kind::Hybrid,
            (false, _) => Kind::V1,
        }
    }

    /// Returns the hierarchies that a container with these needs joins: those of the controllers, and v2.
    pub(crate) fn needed(&self, needs: Controllers) -> impl Iterator<Item = &Hierarchy> {
        self.all.iter().filter(move |one| one.is_v2() || one.controllers.intersects(needs))
    }

    /// Returns the same hierarchies in the form in which a container mounts them.
    pub fn joined(&self, needs: Controllers) -> Vec<Joined> {
        let is_only_v2 = self.kind() == Kind::V2;
        self.needed(needs)
            .map(|hierarchy| {
                let name = hierarchy.point.file_name().map(|name| name.to_string_lossy().into_owned());
                let dir = if is_only_v2 { String::new() } else { name.unwrap_or_else(|| hierarchy.names.join(",")) };
                Joined { names: hierarchy.names.clone(), dir }
            })
            .collect()
    }

    /// Returns the needed controllers that this node lacks: mounted nowhere on v1, not offered on v2.
    ///
    /// # Errors
    /// [`CgroupError::File`].
    pub fn lacking(&self, needs: Controllers) -> Result<Vec<&'static str>, CgroupError> {
        if self.kind() != Kind::V2 {
            let has = |one| self.all.iter().any(|hierarchy| hierarchy.controllers.intersects(one));
            return Ok(needs.each().filter(|(one, _)| !has(*one)).map(|(_, name)| name).collect());
        }
        let Some(root) = self.all.iter().find(|hierarchy| hierarchy.is_v2()) else { return Ok(Vec::new()) };
        let offered = crate::cgroup::read(&root.point.join("cgroup.controllers"))?;
        Ok(needs.v2_names().filter(|name| !offered.split_ascii_whitespace().any(|known| known == *name)).collect())
    }

    /// Returns the mount points of the hierarchies that a container with these needs joins.
    pub fn points(&self, needs: Controllers) -> Vec<&Path> {
        self.needed(needs).map(|hierarchy| hierarchy.point.as_path()).collect()
    }

    /// Lists the names of the cgroups directly below a path such as `/contd`, in all hierarchies; empty when the path
    /// does not exist.
    ///
    /// # Errors
    /// [`CgroupError::Path`], [`CgroupError::File`].
    pub fn names_below(&self, path: &Path) -> Result<BTreeSet<String>, CgroupError> {
        let below = path.strip_prefix("/").ok().filter(|below| is_plain(below));
        let below = below.ok_or_else(|| CgroupError::Path { path: path.to_owned() })?;
        let mut names = BTreeSet::new();
        for hierarchy in &self.all {
            let dir = hierarchy.point.join(below);
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(CgroupError::file("list", dir, source)),
            };
            for entry in entries {
                let entry = entry.map_err(|source| CgroupError::file("list", &dir, source))?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    names.insert(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        Ok(names)
    }

    /// Finds the directory of a controller (empty: v2) in the lines of `/proc/<pid>/cgroup`.
    pub(crate) fn dir(&self, controller: &str, memberships: &str) -> Option<PathBuf> {
        let path = memberships.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            controllers.split(',').any(|name| name == controller).then_some(Path::new(path))
        })?;
        let hierarchy = self.all.iter().find(|one| {
            if controller.is_empty() { one.is_v2() } else { one.names.iter().any(|name| name == controller) }
        })?;
        let below = path.strip_prefix(&hierarchy.root).ok()?;
        // A path with `..` is outside our cgroup namespace.
        is_plain(below).then(|| hierarchy.point.join(below))
    }
}

/// Tells whether a path consists of names only.
pub(crate) fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

fn hierarchy(mount: Mount) -> Option<Hierarchy> {
    let names: Vec<String> = match mount.fs_type.as_str() {
        "cgroup2" => Vec::new(),
        "cgroup" => {
            let general = ["rw", "ro", "xattr", "clone_children", "noprefix"];
            let options = String::from_utf8_lossy(&mount.super_options);
            let is_name = |name: &&str| !general.contains(name) && !name.starts_with("release_agent");
            options.split(',').filter(is_name).map(str::to_owned).collect()
        }
        _ => return None,
    };
    let controllers = names.iter().fold(Controllers::NONE, |set, name| set | Controllers::named(name));
    Some(Hierarchy { names, controllers, root: mount.root, point: mount.point })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 /sub /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn each_controller_is_found_in_its_own_hierarchy() {
        let hierarchies = Hierarchies::parse(HYBRID.as_bytes());
        assert_eq!(hierarchies.kind(), Kind::Hybrid);
        let memberships = "4:memory:/a/b\n3:cpu,cpuacct:/c\n0::/sub/d\n";
        let dir = |controller| hierarchies.dir(controller, memberships);
        assert_eq!(dir("memory"), Some("/sys/fs/cgroup/memory/a/b".into()));
        assert_eq!(dir("cpuacct"), Some("/sys/fs/cgroup/cpu,cpuacct/c".into()));
        assert_eq!(dir(""), Some("/sys/fs/cgroup/uni fied/d".into()));
        assert_eq!(dir("pids"), None);
    }

    #[test]
    fn a_path_outside_of_what_is_mounted_is_not_followed() {
        let hierarchies = Hierarchies::parse(HYBRID.as_bytes());
        assert_eq!(hierarchies.dir("memory", "4:memory:/../../etc\n"), None);
        assert_eq!(hierarchies.dir("", "0::/elsewhere\n"), None);
    }

    #[test]
    fn only_what_is_needed_is_joined_and_v2_always() {
        let joined = Hierarchies::parse(HYBRID.as_bytes()).joined(Controllers::CPU);
        let dirs: Vec<&str> = joined.iter().map(|one| one.dir.as_str()).collect();
        assert_eq!(dirs, ["cpu,cpuacct", "uni fied"]);
    }

    #[test]
    fn what_is_lacking_is_named_and_where_the_rest_is_mounted_told() {
        let hierarchies = Hierarchies::parse(HYBRID.as_bytes());
        let needs = Controllers::CPU | Controllers::MEMORY | Controllers::PIDS;
        assert_eq!(hierarchies.lacking(needs).expect("no file is read on v1"), ["pids"]);
        let points = hierarchies.points(needs);
        assert_eq!(
            points,
            ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/uni fied"].map(Path::new)
        );
    }

    #[test]
    fn names_below_a_path_are_those_of_all_hierarchies() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in ["v1/contd/a", "v2/contd/b", "v2/contd/a/deeper"] {
            fs::create_dir_all(dir.path().join(path)).expect("made");
        }
        let line = |name: &str, kind| format!("1 1 0:1 / {}/{name} rw - {kind} x rw,memory\n", dir.path().display());
        let hierarchies = Hierarchies::parse((line("v1", "cgroup") + &line("v2", "cgroup2")).as_bytes());
        let names = hierarchies.names_below(Path::new("/contd")).expect("listed");
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert!(hierarchies.names_below(Path::new("/none")).expect("listed").is_empty());
        assert!(matches!(hierarchies.names_below(Path::new("/../etc")), Err(CgroupError::Path { .. })));
    }

    #[test]
    fn the_arrangements_are_told_apart() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(Hierarchies::parse(v2.as_bytes()).kind(), Kind::V2);
        let with_systemd = format!("{v2}40 31 0:37 / /run/systemd rw - cgroup cgroup rw,name=systemd\n");
        assert_eq!(Hierarchies::parse(with_systemd.as_bytes()).kind(), Kind::V2);
        let v1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        assert_eq!(Hierarchies::parse(v1.as_bytes()).kind(), Kind::V1);
    }
}
