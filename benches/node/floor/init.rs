//! The child process: from the clone to `execve`, in the order with the fewest calls.

use std::ffi::CStr;
use std::io::{PipeReader, PipeWriter, Read};

use nix::libc;

use super::bundle::{Bundle, Mount, c};
use super::cgroups::Cgroups;
use super::sys;

/// The nodes of `/dev`: path, major and minor number.
const NODES: [(&CStr, u32, u32); 6] = [
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/tty", 5, 0),
];
const LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
    (c"/proc/kcore", c"/dev/core"),
    (c"pts/ptmx", c"/dev/ptmx"),
];

/// Runs the child; never returns. The exec closes `hold`.
pub(super) fn run(bundle: &Bundle, cgroups: &Cgroups, mut wait: PipeReader, hold: &PipeWriter) -> ! {
    cgroups.enter();
    sys::new_cgroup_namespace();
    if wait.read(&mut [0]).expect("wait for go") == 0 {
        sys::exit_at_once();
    }
    sys::join_network(&bundle.netns);
    sys::set_hostname(&bundle.hostname);
    sys::mount_c(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None);
    sys::mount_c(Some(&bundle.root), &bundle.root, None, libc::MS_BIND | libc::MS_REC, None);
    sys::pivot(&bundle.root);
    for mount in &bundle.mounts {
        if mount.fs_type.as_bytes() == b"cgroup" {
            mount_cgroups(bundle, mount);
            continue;
        }
        sys::make_dir(&mount.target);
        sys::mount_c(Some(&mount.source), &mount.target, Some(&mount.fs_type), mount.flags, Some(&mount.options));
        if mount.target.as_bytes() == b"/dev" {
            fill_dev();
        }
    }
    for path in &bundle.readonly {
        if sys::bind_over_itself(path) {
            sys::remount_read_only(path);
        }
    }
    for path in &bundle.masked {
        sys::mask(path);
    }
    let _still_held = hold;
    sys::restrict(bundle);
    sys::execute(&bundle.args, &bundle.env)
}

fn fill_dev() {
    for (path, major, minor) in NODES {
        sys::make_node(path, major, minor);
    }
    for (target, link) in LINKS {
        sys::make_link(target, link);
    }
}

/// Mounts each hierarchy below a small tmpfs, as the runtimes do on v1.
fn mount_cgroups(bundle: &Bundle, mount: &Mount) {
    let flags = mount.flags & !libc::MS_RDONLY;
    sys::mount_c(Some(c"tmpfs"), &mount.target, Some(c"tmpfs"), flags, Some(c"mode=755"));
    for (name, option) in &bundle.hierarchies {
        let target = format!("{}/{}", mount.target.to_str().expect("utf-8"), name.to_str().expect("utf-8"));
        let target = c(&target);
        sys::make_dir(&target);
        sys::mount_c(Some(c"cgroup"), &target, Some(c"cgroup"), mount.flags, Some(option));
    }
    sys::mount_c(None, &mount.target, None, flags | libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_BIND, None);
}
