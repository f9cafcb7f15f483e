//! Generates the family of bundles.

use std::path::Path;

use contd_bundle::{BundleRequest, Defaults, Netns};
use contd_types::{ContainerId, ContainerName, ContainerSpec, CpuLimit, Entrypoint, NamespaceId};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

/// One bundle, and the expected refusal if it has one.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) config: Value,
    /// The field that a refusal must name.
    pub(crate) field: Option<&'static str>,
    /// The exit code of a native refusal.
    pub(crate) native_code: Option<i32>,
}

const CAPABILITIES: [&str; 8] = [
    "CAP_CHOWN",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_DAC_OVERRIDE",
];

/// The mounts of every bundle.
fn base_mounts() -> Vec<Value> {
    vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]}),
    ]
}

fn more_mounts() -> impl Strategy<Value = Vec<Value>> {
    let all = vec![
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
        json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noatime", "mode=755", "size=1m"]}),
        json!({"destination": "/data", "type": "bind", "source": "source", "options": ["rbind", "ro"]}),
        json!({"destination": "/made/here", "type": "bind", "source": "source", "options": ["bind", "nosuid", "nodev", "rprivate"]}),
        json!({"destination": "/etc/hosts", "type": "bind", "source": "source/file", "options": ["bind", "noexec"]}),
        json!({"destination": "/new/file", "type": "bind", "source": "source/file", "options": ["rbind", "ro", "private"]}),
        json!({"destination": "/made/closed", "type": "bind", "source": "source", "options": ["rbind", "rro", "rprivate"]}),
        json!({"destination": "/dangling", "type": "bind", "source": "source/file", "options": ["rbind", "rro"]}),
        json!({"destination": "/dangling.d/below", "type": "tmpfs", "source": "tmpfs", "options": ["size=4k"]}),
        json!({"destination": "/link/inside", "type": "tmpfs", "source": "tmpfs", "options": ["relatime", "size=4k"]}),
        json!({"destination": "/climb/outside", "type": "tmpfs", "source": "none", "options": ["nodiratime", "mode=700"]}),
        json!({"destination": "/work", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "nosuid", "noexec"]}),
        json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777", "shared"]}),
    ];
    let count = all.len();
    subsequence(all, 0..=count)
}

fn capability_sets() -> impl Strategy<Value = Value> {
    let set = || subsequence(CAPABILITIES.to_vec(), 0..=CAPABILITIES.len());
    prop_oneof![
        3 => set().prop_map(|set| json!({"bounding": set, "effective": set, "permitted": set, "inheritable": [], "ambient": []})),
        1 => set().prop_map(|set| json!({"bounding": set, "effective": set, "permitted": set, "inheritable": set, "ambient": set})),
        1 => (set(), set()).prop_map(|(bounding, rest)| {
            let own: Vec<_> = rest.iter().filter(|one| bounding.contains(one)).collect();
            json!({"bounding": bounding, "effective": own, "permitted": own})
        }),
    ]
}

fn user() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => Just(json!({"uid": 0, "gid": 0})),
        1 => Just(json!({"uid": 1000, "gid": 1000})),
        1 => (0u32..3000, 0u32..3000, proptest::collection::vec(0u32..3000, 0..4), select(vec![0u32, 0o22, 0o77]))
            .prop_map(|(uid, gid, more, umask)| json!({"uid": uid, "gid": gid, "additionalGids": more, "umask": umask})),
    ]
}

fn process() -> impl Strategy<Value = Value> {
    let cwd = select(vec!["/", "/work", "/data/sub", "/missing/dir", "/private"]);
    let env = subsequence(vec!["A=1", "B=two words", "A=2", "HOME=/elsewhere", "EMPTY="], 0..=5);
    let rlimits = subsequence(
        vec![
            json!({"type": "RLIMIT_NOFILE", "soft": 256, "hard": 512}),
            json!({"type": "RLIMIT_CORE", "soft": 0, "hard": 0}),
            json!({"type": "RLIMIT_STACK", "soft": 4_194_304, "hard": 8_388_608}),
            json!({"type": "RLIMIT_CPU", "soft": 60, "hard": 60}),
        ],
        0..=4,
    );
    let args = select(vec![json!(["/bin/probe"]), json!(["probe", "--option", "a b"])]);
    let score = select(vec![Value::Null, json!(100), json!(1000)]);
    (user(), capability_sets(), cwd, env, rlimits, args, any::<bool>(), score).prop_map(
        |(user, capabilities, cwd, env, rlimits, args, no_new_privileges, score)| {
            let mut env: Vec<Value> = env.into_iter().map(|pair| json!(pair)).collect();
            env.push(json!("PATH=/sbin:/bin"));
            let mut process = json!({"terminal": false, "user": user, "capabilities": capabilities, "cwd": cwd, "env": env,
                "rlimits": rlimits, "args": args, "noNewPrivileges": no_new_privileges});
            if !score.is_null() {
                process["oomScoreAdj"] = score;
            }
            process
        },
    )
}

fn seccomp() -> impl Strategy<Value = Value> {
    let small = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["keyctl", "bpf", "swapon", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["chroot", "setns"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
                "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}]});
    prop_oneof![1 => Just(Value::Null), 1 => Just(small), 1 => Just(default_profile())]
}

/// The seccomp profile of our containers.
fn default_profile() -> Value {
    let (namespace, id) = (NamespaceId::new("differential").unwrap(), ContainerId::from_random([7; 16]));
    let mut spec = ContainerSpec::new(ContainerName::new("one").unwrap(), "dir:/");
    spec.entrypoint = Some(Entrypoint::Args(vec!["/bin/probe".to_owned()]));
    let defaults = Defaults {
        memory_bytes: 1 << 28,
        cpu: CpuLimit::from_millis(1000).unwrap(),
        pids_limit: 64,
        oom_score_adj: None,
    };
    let request = BundleRequest {
        namespace: &namespace,
        id: &id,
        spec: &spec,
        root: Path::new("/"),
        netns: Netns::Private,
        cgroup_parent: "contd",
        defaults: &defaults,
    };
    let config: Value = serde_json::from_str(&contd_bundle::preview(&request).unwrap()).unwrap();
    config["linux"]["seccomp"].clone()
}

fn resources() -> impl Strategy<Value = Value> {
    let pids = select(vec![Value::Null, json!({"limit": 64}), json!({"limit": -1})]);
    let memory = select(vec![
        Value::Null,
        json!({"limit": 268_435_456}),
        json!({"limit": 134_217_728, "reservation": 67_108_864}),
    ]);
    let cpu =
        select(vec![Value::Null, json!({"shares": 512}), json!({"shares": 1024, "quota": 50_000, "period": 100_000})]);
    let devices = select(vec![
        json!([{"allow": false, "access": "rwm"}]),
        json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]),
    ]);
    (pids, memory, cpu, devices).prop_map(|(pids, memory, cpu, devices)| {
        let mut resources = json!({"devices": devices});
        for (name, value) in [("pids", pids), ("memory", memory), ("cpu", cpu)] {
            if !value.is_null() {
                resources[name] = value;
            }
        }
        resources
    })
}

fn linux() -> impl Strategy<Value = Value> {
    let namespaces = subsequence(vec!["uts", "ipc", "network", "cgroup"], 0..=4);
    let masked =
        subsequence(vec!["/proc/keys", "/proc/kcore", "/proc/acpi", "/sys/firmware", "/no/such", "/data/sub"], 0..=6);
    let readonly = subsequence(vec!["/proc/sys", "/proc/bus", "/proc/sysrq-trigger", "/absent", "/data"], 0..=5);
    let devices = select(vec![
        json!([]),
        json!([{"path": "/dev/extra", "type": "c", "major": 1, "minor": 11, "fileMode": 416, "uid": 7, "gid": 8}]),
        json!([{"path": "/dev/pipe", "type": "p", "fileMode": 384}]),
    ]);
    let propagation = select(vec![Value::Null, json!("private"), json!("rslave"), json!("rprivate"), json!("slave")]);
    (namespaces, masked, readonly, devices, propagation, seccomp(), resources()).prop_map(
        |(namespaces, masked, readonly, devices, propagation, seccomp, resources)| {
            let own: Vec<Value> = ["mount", "pid"].into_iter().chain(namespaces).map(|kind| json!({"type": kind})).collect();
            let mut linux = json!({"namespaces": own, "maskedPaths": masked, "readonlyPaths": readonly, "devices": devices,
                "resources": resources});
            for (name, value) in [("rootfsPropagation", propagation), ("seccomp", seccomp)] {
                if !value.is_null() {
                    linux[name] = value;
                }
            }
            linux
        },
    )
}

/// A fault that both must refuse: the change of the configuration, the field to name, and the exit code.
type Spoiler = (fn(&mut Value), &'static str, i32);

fn spoilers() -> Vec<Spoiler> {
    vec![
        (|config| config["process"]["cwd"] = json!("relative"), "process.cwd", 125),
        (|config| config["process"]["args"] = json!([]), "process.args", 125),
        (|config| config["process"]["args"] = json!(["/no/such/program"]), "process.args", 127),
        (|config| config["process"]["args"] = json!(["nosuch"]), "process.args", 127),
        (|config| config["process"]["args"] = json!(["/bin/plain"]), "process.args", 126),
        (|config| config["process"]["args"] = json!(["/etc"]), "process.args", 126),
        (
            |config| config["process"]["rlimits"] = json!([{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]),
            "process.rlimits[0]",
            125,
        ),
        (|config| push(config, json!({"destination": "/x", "type": "nosuchfs", "source": "x"})), "mounts[", 125),
        (
            |config| {
                push(config, json!({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}));
            },
            ".source",
            125,
        ),
        (
            |config| push(config, json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"})),
            ".destination",
            125,
        ),
        (
            |config| {
                push(
                    config,
                    json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["nosuchoption"]}),
                );
            },
            "mounts[",
            125,
        ),
        (|config| config["root"]["path"] = json!("nowhere"), "root.path", 125),
        (
            |config| config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}, {"type": "pid"}]),
            "linux.namespaces[2]",
            125,
        ),
        (
            |config| config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "galaxy"}]),
            "linux.namespaces[1].type",
            125,
        ),
        (
            |config| {
                config["linux"]["namespaces"] =
                    json!([{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": "/etc/passwd"}]);
            },
            "linux.namespaces[2].path",
            125,
        ),
        (|config| config["linux"]["sysctl"] = json!({"kernel.panic": "1"}), "linux.sysctl.kernel.panic", 125),
        (|config| config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_DANCE"}), "linux.seccomp", 125),
        (|config| config["linux"]["rootfsPropagation"] = json!("sideways"), "linux.rootfsPropagation", 125),
    ]
}

fn push(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// Returns the whole family: one bundle in six has a fault.
pub(crate) fn cases() -> impl Strategy<Value = Case> {
    let sound = (process(), more_mounts(), linux(), any::<bool>()).prop_map(|(process, more, linux, readonly)| {
        let mounts: Vec<Value> = base_mounts().into_iter().chain(more).collect();
        let mut config = json!({"ociVersion": "1.0.2", "process": process, "root": {"path": "root", "readonly": readonly},
            "mounts": mounts, "linux": linux});
        if linux_has(&config, "uts") {
            config["hostname"] = json!("inside");
        }
        config
    });
    let spoiler = proptest::option::weighted(1.0 / 6.0, select(spoilers()));
    (sound, spoiler).prop_map(|(mut config, spoiler)| match spoiler {
        Some((spoil, field, code)) => {
            if code != 125 {
                // Whether the program is found must not depend on rights.
                config["process"]["user"] = json!({"uid": 0, "gid": 0});
            }
            if field.starts_with("linux.namespaces") {
                config.as_object_mut().unwrap().remove("hostname");
            }
            // One fault each: which of two faults is reported first is not specified.
            config["mounts"] = Value::Array(base_mounts());
            spoil(&mut config);
            Case { config, field: Some(field), native_code: Some(code) }
        }
        None => Case { config, field: None, native_code: None },
    })
}

fn linux_has(config: &Value, kind: &str) -> bool {
    config["linux"]["namespaces"].as_array().unwrap().iter().any(|namespace| namespace["type"] == kind)
}
