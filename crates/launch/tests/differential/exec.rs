//! Executes one more process in a running container, by `runc exec` and natively, with the same bundle: a probe must
//! see the same.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bundle::Case;
use crate::normal;
use crate::run::{Bench, Outcome, outcome};

/// The interval and number of looks at a container until its init sleeps: 20 s.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const MAX_LOOKS: usize = 300_000;

/// An exec and its container.
struct Spec {
    name: &'static str,
    config: Value,
    options: &'static [&'static str],
    args: &'static [&'static str],
    /// The field that a native refusal must name, and its exit code.
    refusal: Option<(&'static str, i32)>,
}

const PROBE: &[&str] = &["/bin/probe", "--option", "a b"];

/// Makes a configuration whose soft limit of descriptors equals the hard one: Go's runtime in `runc exec` raises it,
/// sometimes after it was set.
fn config(change: impl FnOnce(&mut Value)) -> Value {
    let set = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SYS_CHROOT", "CAP_SETUID"]);
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": {"path": "root"},
        "hostname": "inside",
        "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/busybox", "sleep", "1000"],
            "env": ["PATH=/sbin:/bin", "A=1"], "noNewPrivileges": true, "oomScoreAdj": 100,
            "capabilities": {"bounding": set, "effective": set, "permitted": set},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 256, "hard": 256}, {"type": "RLIMIT_STACK", "soft": 4_194_304, "hard": 8_388_608}]},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"},
                {"type": "cgroup"}],
            "maskedPaths": ["/proc/keys", "/proc/kcore"], "readonlyPaths": ["/proc/sys", "/proc/bus"],
            "resources": {"pids": {"limit": 64}, "memory": {"limit": 268_435_456}, "devices": [{"allow": false, "access": "rwm"}]},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "syscalls": [{"names": ["keyctl", "bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                    {"names": ["chroot", "setns"], "action": "SCMP_ACT_ERRNO"}]}}
    });
    change(&mut config);
    config
}

fn specs() -> Vec<Spec> {
    let ran = |name, options, config| Spec { name, config, options, args: PROBE, refusal: None };
    let refused = |name, options, args, refusal| {
        let config = config(|_| {});
        Spec { name, config, options, args, refusal: Some(refusal) }
    };
    vec![
        ran("as the bundle has it", &[], config(|_| {})),
        ran(
            "in another directory, with more environment",
            &["--cwd", "/work", "--env", "A=2", "--env", "B=two words"],
            config(|_| {}),
        ),
        ran(
            "as another user",
            &["--user", "1000:1000", "--additional-gids", "5", "--additional-gids", "7"],
            config(|_| {}),
        ),
        ran(
            "as the bundle's user",
            &[],
            config(|config| {
                config["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [9]});
                let set = json!(["CAP_KILL", "CAP_NET_RAW"]);
                config["process"]["capabilities"] =
                    json!({"bounding": set, "effective": set, "permitted": set, "inheritable": set, "ambient": set});
            }),
        ),
        ran(
            "with new privileges and a filter",
            &["--user", "1000"],
            config(|config| config["process"]["noNewPrivileges"] = false.into()),
        ),
        ran(
            "without a filter, in few namespaces",
            &["--cwd", "/data/sub"],
            config(|config| {
                config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
                config["linux"].as_object_mut().unwrap().remove("seccomp");
                config.as_object_mut().unwrap().remove("hostname");
            }),
        ),
        ran("on a read-only root", &["--cwd", "/private"], config(|config| config["root"]["readonly"] = true.into())),
        refused("a program that is missing", &[], &["/no/such"], ("process.args", 127)),
        refused("a program that is none", &[], &["/bin/plain"], ("process.args", 126)),
        refused("a directory that is missing", &["--cwd", "/missing"], PROBE, ("process.cwd", 125)),
        refused("a directory that is not absolute", &["--cwd", "work"], PROBE, ("process.cwd", 125)),
    ]
}

fn furnish(bundle: &Path) {
    fs::copy("/usr/bin/busybox", bundle.join("root/bin/busybox")).unwrap();
}

fn by_runc(bench: &Bench, spec: &Spec, case: &Case) -> Outcome {
    let (bundle, id) = bench.bundle(case);
    furnish(&bundle);
    let id = format!("{}-{id}", bench.parent);
    // Use no pipes: its init would keep them open.
    let mut run = bench.runc_command();
    run.args(["run", "--detach", "--bundle"]).arg(bundle).arg(&id);
    let status = run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "runc run: {status}");
    let output = bench.runc_command().arg("exec").args(spec.options).arg(&id).args(spec.args).output().unwrap();
    let deleted = bench.runc_command().args(["delete", "--force", &id]).status().unwrap();
    assert!(deleted.success(), "runc delete: {deleted}");
    outcome(&output)
}

fn natively(bench: &Bench, spec: &Spec, case: &Case, is_warm: bool) -> Outcome {
    let (bundle, id) = bench.bundle(case);
    furnish(&bundle);
    let cgroup = format!("/{}/{id}", bench.parent);
    let mut run = bench.launch("run", &bundle, &cgroup);
    if is_warm {
        run.arg("--warm");
    }
    let mut launched = run.stdout(Stdio::null()).spawn().unwrap();
    let init = (0..MAX_LOOKS).find_map(|_| {
        std::thread::sleep(LOOK_EVERY);
        sleeper(launched.id())
    });
    let init = init.unwrap();
    let mut exec = bench.launch("exec", &bundle, &cgroup);
    let output = exec.args(["--pid", &init.to_string()]).args(spec.options).arg("--").args(spec.args).output().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(launched.wait().unwrap().code(), Some(137));
    outcome(&output)
}

/// Finds the child of a launcher that has executed the entrypoint.
fn sleeper(launcher: u32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).unwrap_or_default();
    let mut pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("/bin/busybox\0"))
    })
}

/// Removes pids: `runc` needs more processes before the program starts.
fn lines(report: &str) -> Vec<String> {
    normal::lines(report).into_iter().filter(|line| !line.starts_with("pid ")).collect()
}

/// Returns the difference between the two, if there is one.
fn difference(spec: &Spec, runc: &Outcome, native: &Outcome) -> Option<String> {
    match (runc, native, spec.refusal) {
        (Outcome::Ran { code: left, report: one }, Outcome::Ran { code: right, report: other }, None) => {
            let (one, other) = (lines(one), lines(other));
            let only_runc: Vec<_> = one.iter().filter(|line| !other.contains(line)).collect();
            let only_native: Vec<_> = other.iter().filter(|line| !one.contains(line)).collect();
            let is_same = left == right && only_runc.is_empty() && only_native.is_empty();
            let difference = || format!("{left}, {right}\nonly runc: {only_runc:#?}\nonly native: {only_native:#?}");
            (!is_same).then(difference)
        }
        (Outcome::Refused { .. }, Outcome::Refused { code, words }, Some((field, expected))) => {
            let is_right = *code == expected && words.contains(field);
            (!is_right).then(|| format!("{code}: {words}"))
        }
        _ => Some(format!("runc {runc:?}\nnative {native:?}")),
    }
}

#[test]
fn a_process_that_is_executed_in_a_container_is_the_same_under_runc_and_natively() {
    let bench = Bench::prepare();
    let mut differences = Vec::new();
    for (number, spec) in specs().into_iter().enumerate() {
        let case = Case { config: spec.config.clone(), field: None, native_code: None };
        let (runc, native) = (by_runc(&bench, &spec, &case), natively(&bench, &spec, &case, number % 2 == 1));
        differences.extend(difference(&spec, &runc, &native).map(|difference| format!("{}: {difference}", spec.name)));
    }
    let leftovers = bench.leftovers();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(leftovers.is_empty(), "left behind: {leftovers:?}");
}
