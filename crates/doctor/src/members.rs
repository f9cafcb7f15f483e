//! The processes in a cgroup, and whether each is certainly of this node.

use std::path::Path;

use crate::error::entries;
use crate::node::Node;
use crate::process::lease_dir_of;

/// Lists the living processes in a cgroup such as `/contd/<id>` and below it, in whichever hierarchy.
pub(crate) fn of(cgroup: &Path) -> Vec<i32> {
    let pid = |path: &Path| path.file_name()?.to_str()?.parse::<i32>().ok();
    let is_member = |path: &Path| {
        // One that ends under our eyes is in no cgroup.
        let is_member = std::fs::read_to_string(path.join("cgroup")).is_ok_and(|text| is_in(&text, cgroup));
        is_member && std::fs::read_to_string(path.join("stat")).is_ok_and(|text| !is_dead(&text))
    };
    let all = entries(Path::new("/proc")).unwrap_or_default();
    all.iter().filter(|path| is_member(path)).filter_map(|path| pid(path)).collect()
}

/// Tells whether a process has ended and was not reaped: it keeps no cgroup from being removed. Its name stands in
/// parentheses and may hold some itself.
fn is_dead(stat: &str) -> bool {
    stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z") || rest.starts_with(" X"))
}

fn is_in(memberships: &str, cgroup: &Path) -> bool {
    let path = |line: &str| line.splitn(3, ':').nth(2).map(|path| Path::new(path).starts_with(cgroup));
    memberships.lines().filter_map(path).any(|is_below| is_below)
}

/// Tells whether a process is of this node: its root lies on our directories, or it is a helper with a lease in them. A
/// node beside this one may have the same cgroup parent; what cannot be told apart is not ours to end.
pub(crate) fn is_of(pid: i32, node: &Node<'_>) -> bool {
    if let Some(dir) = lease_dir_of(pid) {
        return dir.starts_with(&node.run);
    }
    match std::fs::read(format!("/proc/{pid}/mountinfo")) {
        Ok(bytes) => names(&String::from_utf8_lossy(&bytes), &[&node.state, &node.run]),
        // It has just ended, and is nobody's.
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Finds the root of a container among mounts: an overlay whose layers are below one of these directories.
fn names(mountinfo: &str, dirs: &[&Path]) -> bool {
    let layers = mountinfo.lines().filter(|line| line.contains(" - overlay ")).flat_map(|line| line.split([',', ' ']));
    let paths = layers.filter_map(|option| {
        option.strip_prefix("upperdir=").or_else(|| option.strip_prefix("lowerdir=")).map(Path::new)
    });
    paths.into_iter().any(|path| dirs.iter().any(|dir| path.starts_with(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_one_in_the_cgroup_or_below_it_in_any_hierarchy() {
        let cgroup = Path::new("/contd/aa");
        assert!(is_in("4:memory:/\n0::/contd/aa/sub\n", cgroup));
        assert!(is_in("4:memory:/contd/aa\n0::/\n", cgroup));
        assert!(!is_in("4:memory:/contd/aab\n0::/contd\n", cgroup));
    }

    #[test]
    fn a_zombie_is_no_member() {
        assert!(is_dead("12 (a) Z) Z 1 2 3") && !is_dead("12 (a) Z) S 1 2 3") && !is_dead(""));
    }

    #[test]
    fn a_root_on_our_directories_is_told_from_one_of_another_node() {
        let line =
            "9 8 0:1 / / rw - overlay contd rw,lowerdir=/run/contd/f/0/mnt,upperdir=/s/a/b/layer/upper,workdir=/w\n";
        assert!(names(line, &[Path::new("/s"), Path::new("/nowhere")]));
        assert!(names(line, &[Path::new("/run/contd")]));
        assert!(!names(line, &[Path::new("/other"), Path::new("/s2")]));
        assert!(!names("9 8 0:1 / /s rw - tmpfs /s rw\n", &[Path::new("/s")]));
    }
}
