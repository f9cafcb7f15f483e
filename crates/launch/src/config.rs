//! The types of `config.json`: every field of the OCI runtime specification 1.0–1.2 is here, honoured or refused by
//! name.
//!
//! The specification lets a runtime ignore unknown fields. A launcher of isolated processes must not: it would silently
//! drop a restriction that a user asked for. So an unknown field is an error here, with its path.

mod place;
pub(crate) mod resources;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use contd_types::WindowSize;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

pub use resources::Resources;

use crate::fault::Fault;

/// The most bytes of a configuration; one with a large seccomp profile has about 100 KiB.
const MAX_CONFIG_BYTES: u64 = 4 * 1024 * 1024;

/// The whole configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    pub(crate) oci_version: String,
    pub(crate) process: Option<Process>,
    pub(crate) root: Option<RootConfig>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    #[serde(default)]
    pub(crate) mounts: Option<Vec<MountConfig>>,
    hooks: Option<Value>,
    /// Annotations for readers of the bundle; a runtime ignores them.
    #[serde(rename = "annotations")]
    _annotations: Option<BTreeMap<String, String>>,
    pub(crate) linux: Option<Linux>,
    solaris: Option<Value>,
    windows: Option<Value>,
    vm: Option<Value>,
    zos: Option<Value>,
    freebsd: Option<Value>,
}

/// `root`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootConfig {
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) readonly: bool,
}

/// `process`; also used alone, for an exec.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Process {
    #[serde(default)]
    pub(crate) terminal: bool,
    console_size: Option<ConsoleSize>,
    pub(crate) user: User,
    #[serde(default)]
    pub(crate) args: Option<Vec<String>>,
    command_line: Option<Value>,
    #[serde(default)]
    pub(crate) env: Option<Vec<String>>,
    pub(crate) cwd: String,
    pub(crate) capabilities: Option<Capabilities>,
    #[serde(default)]
    pub(crate) rlimits: Option<Vec<Rlimit>>,
    #[serde(default)]
    pub(crate) no_new_privileges: bool,
    apparmor_profile: Option<Value>,
    pub(crate) oom_score_adj: Option<i32>,
    selinux_label: Option<Value>,
    scheduler: Option<Value>,
    io_priority: Option<Value>,
    #[serde(rename = "execCPUAffinity")]
    exec_cpu_affinity: Option<Value>,
}

/// `process.consoleSize`, in characters.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsoleSize {
    #[serde(default)]
    height: u16,
    #[serde(default)]
    width: u16,
}

/// `process.user`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct User {
    #[serde(default)]
    pub(crate) uid: u32,
    #[serde(default)]
    pub(crate) gid: u32,
    pub(crate) umask: Option<u32>,
    #[serde(default)]
    pub(crate) additional_gids: Option<Vec<u32>>,
    username: Option<Value>,
}

/// `process.capabilities`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capabilities {
    pub(crate) bounding: Option<Vec<String>>,
    pub(crate) effective: Option<Vec<String>>,
    pub(crate) inheritable: Option<Vec<String>>,
    pub(crate) permitted: Option<Vec<String>>,
    pub(crate) ambient: Option<Vec<String>>,
}

/// One of `process.rlimits`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// One of `mounts`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MountConfig {
    pub(crate) destination: String,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) source: Option<String>,
    #[serde(default)]
    pub(crate) options: Option<Vec<String>>,
    #[serde(rename = "uidMappings")]
    pub(crate) uid_mappings: Option<Value>,
    #[serde(rename = "gidMappings")]
    pub(crate) gid_mappings: Option<Value>,
}

/// `linux`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Linux {
    #[serde(default)]
    pub(crate) uid_mappings: Option<Vec<IdMapping>>,
    #[serde(default)]
    pub(crate) gid_mappings: Option<Vec<IdMapping>>,
    #[serde(default)]
    pub(crate) namespaces: Option<Vec<Namespace>>,
    #[serde(default)]
    pub(crate) devices: Option<Vec<Device>>,
    net_devices: Option<Value>,
    pub(crate) cgroups_path: Option<PathBuf>,
    pub(crate) resources: Option<Resources>,
    intel_rdt: Option<Value>,
    memory_policy: Option<Value>,
    pub(crate) rootfs_propagation: Option<String>,
    /// The unparsed text: the cache of compiled filters is keyed by its bytes.
    pub(crate) seccomp: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) sysctl: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) masked_paths: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) readonly_paths: Option<Vec<String>>,
    mount_label: Option<Value>,
    pub(crate) personality: Option<Personality>,
    time_offsets: Option<Value>,
}

/// One of `linux.uidMappings`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct IdMapping {
    #[serde(rename = "containerID")]
    pub(crate) container_id: u32,
    #[serde(rename = "hostID")]
    pub(crate) host_id: u32,
    pub(crate) size: u32,
}

/// One of `linux.namespaces`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) path: Option<PathBuf>,
}

/// One of `linux.devices`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Device {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) major: Option<i64>,
    pub(crate) minor: Option<i64>,
    pub(crate) file_mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

/// `linux.personality`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Personality {
    pub(crate) domain: String,
    flags: Option<Value>,
}

impl Config {
    /// Reads and checks the configuration of a bundle.
    ///
    /// # Errors
    /// [`Fault`] with the field.
    pub fn read(bundle: &Path) -> Result<Self, Fault> {
        let path = bundle.join("config.json");
        let text = read_text(&path).map_err(|error| Fault::kernel("", format!("read {}", path.display()), &error))?;
        Self::parse(&text)
    }

    /// Does the same as [`Self::read`], from the text.
    ///
    /// # Errors
    /// [`Fault`] with the field.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let config: Self = decode(text)?;
        config.refuse_what_is_not_implemented()?;
        let is_version_1 = config.oci_version.starts_with("1.");
        if is_version_1 {
            Ok(config)
        } else {
            Err(Fault::invalid("ociVersion", format!("version {:?} is not 1.x", config.oci_version)))
        }
    }

    fn refuse_what_is_not_implemented(&self) -> Result<(), Fault> {
        let Self { hooks, solaris, windows, vm, zos, freebsd, .. } = self;
        let whole = [("hooks", hooks), ("solaris", solaris), ("windows", windows), ("vm", vm), ("zos", zos)];
        refuse(whole.into_iter().chain([("freebsd", freebsd)]))?;
        if let Some(process) = &self.process {
            process.refuse_what_is_not_implemented()?;
        }
        for (index, mount) in self.mounts.iter().flatten().enumerate() {
            let maps = [("uidMappings", &mount.uid_mappings), ("gidMappings", &mount.gid_mappings)];
            refuse(maps).map_err(|fault| Fault { field: format!("mounts[{index}].{}", fault.field), ..fault })?;
        }
        let Some(linux) = &self.linux else { return Ok(()) };
        refuse([
            ("linux.netDevices", &linux.net_devices),
            ("linux.intelRdt", &linux.intel_rdt),
            ("linux.memoryPolicy", &linux.memory_policy),
            ("linux.mountLabel", &linux.mount_label),
            ("linux.timeOffsets", &linux.time_offsets),
        ])?;
        match &linux.personality {
            Some(personality) => refuse([("linux.personality.flags", &personality.flags)]),
            None => Ok(()),
        }
    }
}

impl Process {
    /// Parses a `process` that stands alone: the one to execute in a running container.
    ///
    /// # Errors
    /// [`Fault`] with the field.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let process: Self = decode(text)?;
        process.refuse_what_is_not_implemented()?;
        Ok(process)
    }

    /// Returns the size of its terminal, if it is to have one.
    pub(crate) fn terminal(&self) -> Option<WindowSize> {
        let ConsoleSize { height, width } = self.console_size.unwrap_or_default();
        self.terminal.then_some(WindowSize { rows: height, columns: width })
    }

    fn refuse_what_is_not_implemented(&self) -> Result<(), Fault> {
        refuse([
            ("process.commandLine", &self.command_line),
            ("process.user.username", &self.user.username),
            ("process.apparmorProfile", &self.apparmor_profile),
            ("process.selinuxLabel", &self.selinux_label),
            ("process.scheduler", &self.scheduler),
            ("process.ioPriority", &self.io_priority),
            ("process.execCPUAffinity", &self.exec_cpu_affinity),
        ])
    }
}

/// Refuses the first of these fields that is present.
fn refuse<'a>(fields: impl IntoIterator<Item = (&'static str, &'a Option<Value>)>) -> Result<(), Fault> {
    for (name, value) in fields {
        if value.as_ref().is_some_and(|value| !is_empty(value)) {
            return Err(Fault::unsupported(name));
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(is_set) => !is_set,
        Value::Number(number) => number.as_f64() == Some(0.0),
    }
}

fn decode<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| {
        // The parser knows only the position; a second, slow scan finds the path.
        let field = place::path_at(text, error.line(), error.column());
        Fault::invalid(field, error.to_string())
    })
}

fn read_text(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > MAX_CONFIG_BYTES {
        return Err(io::Error::other(format!("it is no file of at most {MAX_CONFIG_BYTES} bytes")));
    }
    let mut text = String::with_capacity(usize::try_from(metadata.len()).unwrap_or_default() + 1);
    file.take(MAX_CONFIG_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
