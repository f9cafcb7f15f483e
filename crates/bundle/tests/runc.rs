//! Generated bundles run by `runc` over a busybox root: tests what a container really gets. Needs root and `runc`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use crate::support::Case;
use contd_bundle::{BundleError, Bundles, DirBundles, MASKED_PATHS, Netns, netns};
use contd_durable::RealFs;
use contd_types::{ContainerSpec, CpuLimit, Entrypoint, MountSpec, NetnsName, UserSpec};

/// One container. Dropping it removes it, its cgroups and its directories, whatever the test found.
struct Bed {
    case: Case,
}

impl Bed {
    fn new(change: impl FnOnce(&mut ContainerSpec)) -> Self {
        let mut case = Case::new().with_busybox();
        change(&mut case.spec);
        fs::create_dir(case.dir.path().join("state")).expect("state");
        Self { case }
    }

    fn runc(&self) -> Command {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(self.case.dir.path().join("runc"));
        runc
    }

    fn write(&self) -> PathBuf {
        let bundles = DirBundles::new(Arc::new(RealFs), self.case.dir.path().join("state"));
        self.case.with_request(|request| bundles.write(request)).expect("bundle")
    }

    /// Runs a shell line to its end and returns its output.
    #[track_caller]
    fn run(mut self, line: &str) -> String {
        let args = ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
        self.case.spec.entrypoint = Some(Entrypoint::Args(args));
        let output = self.run_bundle();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line:?}: {}\n{said}\n{complained}", output.status);
        said
    }

    fn run_bundle(&self) -> Output {
        let bundle = self.write();
        self.runc()
            .args(["run", "--bundle"])
            .arg(bundle)
            .arg(self.case.id.as_str())
            .stdin(Stdio::null())
            .output()
            .expect("runc")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _absent_is_fine = self.runc().args(["delete", "--force", self.case.id.as_str()]).output();
        let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let parent = hierarchy.join(&self.case.cgroup_parent);
            for dir in [parent.join(self.case.id.as_str()), parent.clone()] {
                let _absent_is_fine = fs::remove_dir(&dir);
                if dir.exists() && !std::thread::panicking() {
                    panic!("left behind: {}", dir.display());
                }
            }
        }
    }
}

/// Returns the value of a line `Key:\tvalue` of a status file.
#[track_caller]
fn field<'a>(status: &'a str, key: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {status}")).trim()
}

fn bind(source: &Path, target: &str, options: &[&str]) -> MountSpec {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    MountSpec { source: source.to_str().unwrap().into(), target: target.into(), fs_type: "bind".into(), options }
}

/// The fourteen default capabilities in the kernel's notation.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";
/// The same with CAP_SYS_ADMIN (bit 21).
const ELEVATED_CAPABILITIES: &str = "00000000a82425fb";

#[test]
fn the_process_is_confined_as_promised() {
    let status = Bed::new(|_| {}).run("cat /proc/self/status");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(field(&status, set), DEFAULT_CAPABILITIES, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    assert_eq!(field(&status, "Seccomp"), "2");
}

#[test]
fn an_elevated_process_has_sys_admin_and_fuse_and_is_still_filtered() {
    let said = Bed::new(|spec| spec.is_elevated = true).run(
        "cat /proc/self/status; stat -c '%F %t:%T' /dev/fuse; exec 3<>/dev/fuse && echo opened; mount -t tmpfs t /tmp && echo mounted",
    );
    assert_eq!(field(&said, "CapEff"), ELEVATED_CAPABILITIES);
    assert_eq!(field(&said, "Seccomp"), "2");
    assert!(said.contains("character special file a:e5"), "{said}");
    assert!(said.contains("opened") && said.contains("mounted"), "{said}");
}

#[test]
fn mounts_namespaces_and_foreign_devices_are_refused() {
    // A user namespace needs no capability, and opening a fuse node needs none: only the filter and the device rules
    // can refuse these two. The elevated container shows that the node works where it is allowed.
    let said = Bed::new(|_| {}).run(
        "mount -t tmpfs t /tmp || echo no-mount; unshare -U true || echo no-userns; hostname x || echo no-hostname; \
         [ -e /dev/fuse ] || echo no-fuse-node; mknod /tmp/fuse c 10 229 && echo node; \
         (exec 3<>/tmp/fuse && echo opened) || echo no-fuse; head -c 1 /dev/zero >/dev/null && echo zero",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, ["no-mount", "no-userns", "no-hostname", "no-fuse-node", "node", "no-fuse", "zero"]);
}

#[test]
fn masked_paths_are_empty_and_read_only_paths_refuse_writes() {
    let said = Bed::new(|_| {}).run(
        "for f in /proc/kcore /proc/keys /proc/timer_list; do [ -e $f ] && echo \"$f $(head -c 10 $f)|\"; done; \
         ls /sys/firmware | head -3; \
         echo 1 2>/dev/null >/proc/sys/kernel/panic || echo ro-sys; echo h 2>/dev/null >/proc/sysrq-trigger || echo ro-sysrq; \
         touch /sys/x 2>/dev/null || echo ro-sysfs; cat /proc/mounts",
    );
    for expected in ["ro-sys", "ro-sysrq", "ro-sysfs", "/proc/keys |"] {
        assert!(said.lines().any(|line| line == expected), "{expected:?} is missing in {said}");
    }
    let has_mount = |path: &str| said.lines().any(|line| line.split(' ').nth(1) == Some(path));
    for path in MASKED_PATHS.iter().filter(|path| Path::new(path).exists()) {
        assert!(has_mount(path), "{path} is not masked: {said}");
    }
}

#[test]
fn name_directory_environment_and_user_are_those_of_the_spec() {
    let said = Bed::new(|spec| {
        spec.user = Some(UserSpec::new("web").unwrap());
        spec.working_dir = Some("/srv/web".into());
        spec.env = vec!["A=one".into(), "A=two words".into()];
    })
    .run("hostname; pwd; echo $A; echo $HOME; echo $PATH; id -u; id -g; cat /proc/self/status");
    let lines: Vec<&str> = said.lines().take(7).collect();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["web-1", "/srv/web", "two words", "/srv/web", path, "1000", "1001"]);
    assert_eq!(field(&said, "Groups"), "20 1001");
    assert_eq!(field(&said, "CapEff"), "0000000000000000", "a user other than root has no capabilities");
    assert_eq!(field(&said, "CapBnd"), DEFAULT_CAPABILITIES);
}

#[test]
fn a_read_only_bind_refuses_writes_and_a_plain_one_reaches_the_host() {
    let host = tempfile::tempdir().expect("tempdir");
    fs::write(host.path().join("file"), "from the host\n").expect("file");
    let (ro, rw) = (bind(host.path(), "/ro", &["ro"]), bind(host.path(), "/rw", &[]));
    let said = Bed::new(|spec| spec.mounts = vec![ro, rw])
        .run("cat /ro/file; touch /ro/new 2>/dev/null || echo refused; echo hello >/rw/new");
    assert_eq!(said, "from the host\nrefused\n");
    assert_eq!(fs::read_to_string(host.path().join("new")).expect("written"), "hello\n");
}

/// A directory with a file and, below it, a mount of its own with another one; unmounted on drop.
struct Nested {
    dir: tempfile::TempDir,
}

impl Nested {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir(dir.path().join("sub")).expect("sub");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "sub"]).arg(dir.path().join("sub")).status();
        assert!(mounted.expect("mount").success());
        Self { dir }
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        contd_test_harness::mounted::unmount(&self.dir.path().join("sub"));
    }
}

#[test]
fn read_only_reaches_what_is_mounted_below_unless_the_spec_says_otherwise() {
    let nested = Nested::new();
    let writes = "touch /d/x 2>/dev/null || echo top; touch /d/sub/x 2>/dev/null || echo below";
    for (options, said) in [
        (&["ro"][..], "top\nbelow\n"),
        (&["ro", "rslave"], "top\nbelow\n"),
        (&["ro", "norecursive"], "top\n"),
        (&["ro", "bind"], "top\nbelow\n"),
        (&["rw"], ""),
    ] {
        let mount = bind(nested.dir.path(), "/d", options);
        assert_eq!(Bed::new(|spec| spec.mounts = vec![mount]).run(writes), said, "{options:?}");
    }
}

#[test]
fn the_container_knows_localhost_and_itself_also_in_a_read_only_root() {
    for is_read_only in [false, true] {
        let bed = Bed::new(|spec| spec.is_read_only = is_read_only);
        fs::write(bed.case.root().join("etc/hosts"), "").expect("hosts");
        fs::write(bed.case.root().join("etc/hostname"), "").expect("hostname");
        let said = bed.run("grep -c -w -e localhost -e web-1 /etc/hosts; cat /etc/hostname; echo x 2>/dev/null >>/etc/hosts || echo refused");
        assert_eq!(said, format!("3\nweb-1\n{}", if is_read_only { "refused\n" } else { "" }));
    }
}

#[test]
fn a_mount_over_a_link_that_leads_to_nothing_makes_its_target_inside_the_root() {
    let host = tempfile::tempdir().expect("tempdir");
    fs::write(host.path().join("file"), "from the host\n").expect("file");
    let mounts = vec![bind(&host.path().join("file"), "/etc/resolv.conf", &["ro"]), bind(host.path(), "/link", &[])];
    let bed = Bed::new(|spec| spec.mounts = mounts);
    std::os::unix::fs::symlink("../run/systemd/stub.conf", bed.case.root().join("etc/resolv.conf")).expect("link");
    std::os::unix::fs::symlink("/srv/../srv/real", bed.case.root().join("link")).expect("link");
    assert_eq!(bed.run("cat /etc/resolv.conf /run/systemd/stub.conf /srv/real/file"), "from the host\n".repeat(3));
}

#[test]
fn a_tmpfs_has_its_size_and_its_options() {
    let tmpfs = MountSpec {
        source: "tmpfs".into(),
        target: "/scratch".into(),
        fs_type: "tmpfs".into(),
        options: ["size=1m", "noexec", "mode=0711"].map(str::to_owned).to_vec(),
    };
    let said = Bed::new(|spec| spec.mounts = vec![tmpfs]).run(
        "df -k /scratch; stat -c %a /scratch; grep ' /scratch ' /proc/mounts; \
         dd if=/dev/zero of=/scratch/f bs=64k count=32 2>/dev/null || echo full",
    );
    assert!(said.contains("1024") && said.contains("711") && said.contains("noexec"), "{said}");
    assert!(said.lines().any(|line| line == "full"), "{said}");
}

#[test]
fn a_target_that_leads_to_proc_by_a_symlink_of_the_root_does_not_start() {
    let mount = |fs_type: &str, source: &str, target: &str| MountSpec {
        source: source.into(),
        target: target.into(),
        fs_type: fs_type.into(),
        options: vec![],
    };
    for (fs_type, source, target) in [("tmpfs", "tmpfs", "/x"), ("bind", "/tmp", "/x/sys")] {
        for is_elevated in [false, true] {
            let bed = Bed::new(|spec| {
                spec.mounts = vec![mount(fs_type, source, target)];
                spec.is_elevated = is_elevated;
            });
            std::os::unix::fs::symlink("/proc", bed.case.root().join("x")).expect("symlink");
            if !is_elevated {
                let refused = bed.case.with_request(contd_bundle::preview);
                assert!(matches!(refused, Err(BundleError::MountTargetRefused { .. })), "{target}: {refused:?}");
                continue;
            }
            // The bundle lets it pass, and the runtime refuses it.
            let output = bed.run_bundle();
            let complained = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && complained.contains("proc"), "{fs_type} {target}: {complained}");
        }
    }
}

#[test]
fn a_read_only_root_refuses_writes_and_keeps_its_tmpfs_mounts_writable() {
    let said = Bed::new(|spec| spec.is_read_only = true).run(
        "touch /x 2>/dev/null || echo refused; touch /run/x 2>/dev/null || echo run; touch /dev/shm/x && echo writable",
    );
    assert_eq!(said, "refused\nrun\nwritable\n");
}

/// Returns a limit from the hierarchy that has it.
#[track_caller]
fn read_limit(bed: &Bed, v1: (&str, &str), v2: &str) -> String {
    let below = Path::new(&bed.case.cgroup_parent).join(bed.case.id.as_str());
    let base = Path::new("/sys/fs/cgroup");
    let files = [base.join(v1.0).join(&below).join(v1.1), base.join(&below).join(v2)];
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok());
    text.unwrap_or_else(|| panic!("none of {files:?}")).trim().to_owned()
}

#[test]
fn the_limits_are_in_the_cgroup_below_the_parent() {
    let bed = Bed::new(|spec| {
        spec.memory_bytes = Some(32 << 20);
        spec.cpu = Some(CpuLimit::from_millis(250).unwrap());
        spec.pids_limit = Some(21);
    });
    let bundle = bed.write();
    let created = bed
        .runc()
        .args(["create", "--bundle"])
        .arg(bundle)
        .arg(bed.case.id.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(created.expect("runc").success());
    assert_eq!(read_limit(&bed, ("memory", "memory.limit_in_bytes"), "memory.max"), (32 << 20).to_string());
    assert_eq!(read_limit(&bed, ("pids", "pids.max"), "pids.max"), "21");
    let quota = read_limit(&bed, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(["25000", "25000 100000"].contains(&quota.as_str()), "{quota}");
}

#[test]
fn a_container_sees_its_own_cgroup_as_the_root_and_cannot_write_it() {
    let said = Bed::new(|_| {}).run(
        "grep -v ':/$' /proc/self/cgroup; for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; \
         do [ -e $f ] && cat $f && { echo 1 2>/dev/null >$f || echo refused; }; done; true",
    );
    assert_eq!(said, format!("{}\nrefused\n", 64 << 20));
}

#[test]
fn the_open_file_limit_is_what_engines_give_or_what_the_node_has() {
    let own = Command::new("sh").args(["-c", "ulimit -H -n; grep CapEff /proc/self/status"]).output().expect("sh");
    let own = String::from_utf8_lossy(&own.stdout).into_owned();
    let (hard, capabilities) = own.split_once('\n').expect("two lines");
    let capabilities = u64::from_str_radix(capabilities.trim_start_matches("CapEff:").trim(), 16).expect("a set");
    let may_raise = capabilities >> 24 & 1 == 1;
    let hard = hard.parse().unwrap_or(u64::MAX);
    let limit = if may_raise { contd_bundle::NOFILE_LIMIT } else { contd_bundle::NOFILE_LIMIT.min(hard) };
    assert_eq!(Bed::new(|_| {}).run("ulimit -n; ulimit -H -n"), format!("{limit}\n{limit}\n"));
}

#[test]
fn a_private_network_has_loopback_only_and_it_is_up() {
    let said = Bed::new(|_| {}).run("ip -o addr show lo | grep -o '127.0.0.1/8' >&2 || exit 9; ls /sys/class/net; readlink /proc/self/ns/net || ls -l /proc/self/ns/net");
    let interfaces: Vec<&str> = said.lines().take_while(|line| !line.contains("net:[")).collect();
    assert!(interfaces.contains(&"lo"), "{said}");
    assert!(!interfaces.iter().any(|name| name.starts_with("eth") || name.starts_with("en")), "{said}");
}

/// A network namespace with one interface of its own name; unmounted on drop.
struct NamedNet {
    dir: tempfile::TempDir,
}

impl NamedNet {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("blue");
        fs::write(&file, "").expect("file");
        let made = Command::new("unshare")
            .arg(format!("--net={}", file.display()))
            .args(["ip", "link", "add", "blue0", "type", "bridge"])
            .status();
        let net = Self { dir };
        assert!(made.expect("unshare").success());
        net
    }
}

impl Drop for NamedNet {
    fn drop(&mut self) {
        contd_test_harness::mounted::unmount(&self.dir.path().join("blue"));
    }
}

#[test]
fn a_named_network_is_joined() {
    let net = NamedNet::new();
    let path = netns::resolve(&NetnsName::new("blue").unwrap(), net.dir.path()).expect("resolve");
    let mut bed = Bed::new(|_| {});
    bed.case.netns = Netns::Path(path);
    let said = bed.run("ls /sys/class/net");
    assert!(said.lines().any(|line| line == "blue0"), "{said}");
}

#[test]
fn an_ordinary_root_may_make_user_namespaces_so_that_the_refusal_above_means_something() {
    assert!(Command::new("unshare").args(["-U", "true"]).status().expect("unshare").success());
}

#[test]
fn threads_and_processes_start_under_the_filter() {
    // busybox forks by clone; a pipeline needs several.
    assert_eq!(Bed::new(|_| {}).run("(echo a; (echo b | cat) | cat) | grep b"), "b\n");
}

/// Lets an elevated container mount something below a bind of a shared host directory, and counts the mounts that reach
/// the outside. Runs in a mount namespace of the test's own where everything is shared, as systemd sets it up.
#[track_caller]
fn mounts_that_leaked(options: &[&str]) -> String {
    let host = tempfile::tempdir().expect("tempdir");
    let mount = bind(host.path(), "/data", options);
    let bed = Bed::new(|spec| {
        spec.mounts = vec![mount];
        spec.is_elevated = true;
        let args = ["/bin/mount", "-t", "tmpfs", "leaked", "/data/x"].map(str::to_owned).to_vec();
        spec.entrypoint = Some(Entrypoint::Args(args));
    });
    let script = format!(
        "mount --make-rshared / && mount -t tmpfs shared {host} && mkdir {host}/x && \
         runc --root {runc} run --bundle {bundle} {id} </dev/null && {{ grep -c ' leaked ' /proc/self/mountinfo || true; }}",
        host = host.path().display(),
        runc = bed.case.dir.path().join("runc").display(),
        bundle = bed.write().display(),
        id = bed.case.id,
    );
    let output = Command::new("unshare").args(["-m", "/bin/sh", "-c", &script]).output().expect("unshare");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complained}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn mounts_below_a_bind_reach_the_host_only_where_the_spec_says_shared() {
    assert_eq!(mounts_that_leaked(&[]), "0");
    // The counter-example: it shows that a leak would be detected.
    assert_eq!(mounts_that_leaked(&["rshared"]), "1");
}
