//! The flags of `contd run` about what a container may do, how much of the node it may use, and which names it knows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use contd_types::{
    Capability, ContainerSpec, DeviceSpec, HostEntry, MemorySwap, MountSpec, Resources, Seccomp, Ulimit, UlimitKind,
};

use crate::cli::error::CliError;
use crate::cli::parse;

/// The largest seccomp profile that is read, in bytes.
const MAX_PROFILE_BYTES: u64 = 1024 * 1024;

/// One `--security-opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecurityOption {
    /// `no-new-privileges`, as it is by default, or `no-new-privileges=false`.
    NoNewPrivileges(bool),
    /// `seccomp=unconfined`.
    Unconfined,
    /// `seccomp=FILE`.
    Profile(PathBuf),
}

/// Rights.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Rights")]
pub(crate) struct RightsArgs {
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', value_parser = capability)]
    cap_add: Vec<Capability>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', value_parser = capability)]
    cap_drop: Vec<Capability>,
    /// seccomp=FILE, seccomp=unconfined, or no-new-privileges=false
    #[arg(long, value_name = "OPTION", value_parser = security_option)]
    security_opt: Vec<SecurityOption>,
    /// Give it all capabilities and devices, and take no system call, path or sysctl from it. As good as root on the host
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_name = "BOOL", action = clap::ArgAction::Set, value_parser = parse::boolean)]
    privileged: bool,
    /// Give it a device of the host
    #[arg(long, value_name = "SRC[:DST][:rwm]", value_parser = device)]
    device: Vec<DeviceSpec>,
    /// Set a sysctl of its own namespaces
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse::pair)]
    sysctl: Vec<(String, String)>,
    /// Limit each of its processes: nofile, core, memlock, ...
    #[arg(long, value_name = "KIND=SOFT[:HARD]", value_parser = ulimit)]
    ulimit: Vec<(UlimitKind, Ulimit)>,
    /// Add a group to its user's: a name in the container, or a number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// How willingly the kernel ends it when memory runs out: -1000 (never) to 1000 (first)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    oom_score_adj: Option<i16>,
}

/// Shares and limits that can be changed later, too.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Resources")]
pub(crate) struct LimitArgs {
    /// Limit of memory and swap together; -1 for as much swap as there is
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = memory_swap)]
    memory_swap: Option<MemorySwap>,
    /// Memory that it is brought back to when the node runs short
    #[arg(long, value_name = "SIZE", value_parser = parse::limit_size)]
    memory_reservation: Option<u64>,
    /// Weight against others who want the processors; 1024 is that of one
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Microseconds of processor time in each period
    #[arg(long, value_name = "MICROSECONDS", conflicts_with = "cpus")]
    cpu_quota: Option<u64>,
    /// That period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Processors that it may run on, such as 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that it may use, such as 0,1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Weight against others who want a block device, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
}

/// Shares and limits.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Resources")]
pub(crate) struct ResourceArgs {
    #[command(flatten)]
    limits: LimitArgs,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = parse::limit_size)]
    shm_size: Option<u64>,
    /// Mount a tmpfs, with options as of mount(8) by commas
    #[arg(long, value_name = "DST[:OPTS]", value_parser = tmpfs)]
    tmpfs: Vec<MountSpec>,
}

/// Names.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Names")]
pub(crate) struct NameArgs {
    /// Name that it has for itself [default: its name]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Add a host to its /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = host)]
    add_host: Vec<HostEntry>,
    /// Name server to ask, instead of those of its network
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Domain in which short names are looked for; . for none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of its resolver, as in resolv.conf(5)
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
}

impl NameArgs {
    /// Puts them into a spec.
    pub(crate) fn fill(&self, spec: &mut ContainerSpec) {
        spec.hostname.clone_from(&self.hostname);
        spec.names.hosts.clone_from(&self.add_host);
        spec.names.servers.clone_from(&self.dns);
        spec.names.search.clone_from(&self.dns_search);
        spec.names.options.clone_from(&self.dns_option);
    }
}

impl RightsArgs {
    /// Puts them into a spec; files are read here.
    pub(crate) fn fill(&self, spec: &mut ContainerSpec, cwd: &Path) -> Result<(), CliError> {
        let rights = &mut spec.rights;
        rights.cap_add = self.cap_add.iter().cloned().collect();
        rights.cap_drop = self.cap_drop.iter().cloned().collect();
        rights.is_privileged = self.privileged;
        rights.devices.clone_from(&self.device);
        rights.sysctls = self.sysctl.iter().cloned().collect();
        rights.ulimits = self.ulimit.iter().copied().collect::<BTreeMap<_, _>>();
        rights.additional_groups.clone_from(&self.group_add);
        rights.oom_score_adj = self.oom_score_adj;
        // The last of several counts, as for every flag.
        for option in &self.security_opt {
            match option {
                SecurityOption::NoNewPrivileges(is_so) => rights.may_gain_privileges = !is_so,
                SecurityOption::Unconfined => rights.seccomp = Seccomp::Unconfined,
                SecurityOption::Profile(path) => rights.seccomp = Seccomp::Profile(read_profile(&cwd.join(path))?),
            }
        }
        Ok(())
    }
}

impl LimitArgs {
    /// Returns them; the rest is not given.
    pub(crate) fn resources(&self) -> Resources {
        Resources {
            memory_swap: self.memory_swap,
            memory_reservation_bytes: self.memory_reservation,
            cpu_shares: self.cpu_shares,
            cpu_quota_us: self.cpu_quota,
            cpu_period_us: self.cpu_period,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            blkio_weight: self.blkio_weight,
            shm_bytes: None,
        }
    }
}

impl ResourceArgs {
    /// Puts them into a spec.
    pub(crate) fn fill(&self, spec: &mut ContainerSpec) {
        spec.resources = Resources { shm_bytes: self.shm_size, ..self.limits.resources() };
        spec.mounts.extend(self.tmpfs.iter().cloned());
    }
}

fn read_profile(path: &Path) -> Result<String, CliError> {
    use std::io::Read as _;
    let failed = |source| CliError::SeccompFile { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_PROFILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn capability(text: &str) -> Result<Capability, String> {
    Capability::new(text).map_err(|error| format!("{error}; {}", error.hint()))
}

fn device(text: &str) -> Result<DeviceSpec, String> {
    text.parse().map_err(|error: contd_types::SpecError| format!("{error}; {}", error.hint()))
}

fn host(text: &str) -> Result<HostEntry, String> {
    text.parse().map_err(|error: contd_types::SpecError| format!("{error}; {}", error.hint()))
}

fn ulimit(text: &str) -> Result<(UlimitKind, Ulimit), String> {
    Ulimit::parse(text).map_err(|error| format!("{error}; {}", error.hint()))
}

fn memory_swap(text: &str) -> Result<MemorySwap, String> {
    match text {
        "-1" => Ok(MemorySwap::Unlimited),
        size => parse::limit_size(size).map(MemorySwap::Bytes),
    }
}

/// Parses `DST[:OPTIONS]`.
fn tmpfs(text: &str) -> Result<MountSpec, String> {
    let (target, options) = text.split_once(':').map_or((text, None), |(target, options)| (target, Some(options)));
    if !target.starts_with('/') {
        return Err("write an absolute path, and options behind a colon: /tmp:size=64m,mode=1777".to_owned());
    }
    let options = options.into_iter().flat_map(|options| options.split(',')).map(str::to_owned).collect();
    Ok(MountSpec { source: "tmpfs".to_owned(), target: target.to_owned(), fs_type: "tmpfs".to_owned(), options })
}

/// Parses one `--security-opt`, in docker's form with `=` or the older one with `:`.
fn security_option(text: &str) -> Result<SecurityOption, String> {
    let (key, value) = text.split_once(['=', ':']).map_or((text, None), |(key, value)| (key, Some(value)));
    match (key, value) {
        ("no-new-privileges", None) => Ok(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", Some(value)) => parse::boolean(value).map(SecurityOption::NoNewPrivileges),
        ("seccomp", Some("unconfined")) => Ok(SecurityOption::Unconfined),
        ("seccomp", Some(path)) if !path.is_empty() => Ok(SecurityOption::Profile(path.into())),
        ("apparmor", _) => {
            Err("contd sets no AppArmor profiles: Zero-OS and Debian 12 run containers without; leave it out"
                .to_owned())
        }
        ("label", _) => Err("contd sets no SELinux labels; leave it out".to_owned()),
        ("systempaths" | "mask" | "unmask", _) => {
            Err("the hidden paths of /proc and /sys stay as they are; --privileged takes all of it away".to_owned())
        }
        _ => Err("write seccomp=FILE, seccomp=unconfined, or no-new-privileges=false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_are_taken_or_refused_by_their_names() {
        assert_eq!(security_option("seccomp=unconfined"), Ok(SecurityOption::Unconfined));
        assert_eq!(security_option("seccomp:p.json"), Ok(SecurityOption::Profile("p.json".into())));
        assert_eq!(security_option("no-new-privileges"), Ok(SecurityOption::NoNewPrivileges(true)));
        assert_eq!(security_option("no-new-privileges=false"), Ok(SecurityOption::NoNewPrivileges(false)));
        for (refused, word) in
            [("apparmor=x", "AppArmor"), ("label=disable", "SELinux"), ("systempaths=unconfined", "--privileged")]
        {
            assert!(security_option(refused).expect_err(refused).contains(word));
        }
        assert!(security_option("seccomp=").is_err() && security_option("x").is_err());
    }

    #[test]
    fn a_tmpfs_is_a_mount_and_swap_may_be_without_limit() {
        let mount = tmpfs("/t:size=1m,noexec").expect("valid");
        assert_eq!((mount.target.as_str(), mount.options), ("/t", vec!["size=1m".to_owned(), "noexec".to_owned()]));
        assert!(tmpfs("/t").expect("valid").options.is_empty() && tmpfs("t").is_err());
        assert_eq!(memory_swap("-1"), Ok(MemorySwap::Unlimited));
        assert_eq!(memory_swap("1g"), Ok(MemorySwap::Bytes(1 << 30)));
    }
}
