//! The flags of `contd run`, and the spec made from them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use contd_types::{
    ContainerName, ContainerSpec, CpuLimit, Entrypoint, LayerKind, MountSpec, Network, Propagation, RestartPolicy,
    Signal, UserSpec,
};

use crate::cli::environment::{self, Lookup};
use crate::cli::error::CliError;
use crate::cli::rights_args::{NameArgs, ResourceArgs, RightsArgs};
use crate::cli::terminal::DetachKeys;
use crate::cli::{mounts, parse};

/// The number of random bytes at the end of a generated name.
const NAME_SUFFIX_BYTES: usize = 3;
/// The most characters of the flist's name in a generated name; with a dash and the digits it is still a valid name.
const NAME_STEM_BYTES: usize = 40;

/// The flags of `contd run`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_name = "BOOL", action = clap::ArgAction::Set, value_parser = parse::boolean)]
    pub(crate) detach: bool,
    /// Open its standard input, and pass this command's on unless it is left in the background
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_name = "BOOL", action = clap::ArgAction::Set, value_parser = parse::boolean)]
    pub(crate) interactive: bool,
    /// Give its process a terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_name = "BOOL", action = clap::ArgAction::Set, value_parser = parse::boolean)]
    pub(crate) tty: bool,
    /// The keys that end this command and leave a container with a terminal running; "" for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = DetachKeys::parse)]
    pub(crate) detach_keys: DetachKeys,
    /// Remove the container as soon as it has ended
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_name = "BOOL", action = clap::ArgAction::Set, value_parser = parse::boolean)]
    pub(crate) rm: bool,
    /// Name of the container [default: made from the flist's]
    #[arg(long, value_parser = parse::container_name)]
    pub(crate) name: Option<ContainerName>,
    /// Network namespace to join, as `ip netns` names it (NAME or ns:NAME), or `none` for a new, empty one
    #[arg(long, visible_alias = "network", value_name = "NETNS|none", default_value = "none", value_parser = parse::network)]
    pub(crate) net: Network,
    /// Set a variable; KEY alone takes it from your own environment
    #[arg(short, long, value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    pub(crate) env: Vec<String>,
    /// Read variables from a file: KEY=VALUE lines, KEY alone from your own environment, # comments
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Mount a host path; separate options, such as ro, by commas
    #[arg(short, long, value_name = "SRC:DST[:OPTS]", value_parser = mounts::volume)]
    pub(crate) volume: Vec<MountSpec>,
    /// Mount a file system by docker's keys, as one line of CSV: type=bind,src=,dst=,ro or type=tmpfs,dst=,tmpfs-size=
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = mounts::mount)]
    pub(crate) mount: Vec<MountSpec>,
    /// Program to run in place of the image's entrypoint and command, or a JSON list; "" runs the command alone
    #[arg(long, value_name = "PROGRAM", allow_hyphen_values = true, value_parser = parse::entrypoint)]
    pub(crate) entrypoint: Option<parse::Words>,
    /// Working directory inside the container [default: the flist's, or /]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User to run as: user[:group] or uid[:gid], looked up inside the container [default: the flist's, or root]
    #[arg(short, long, value_parser = parse::user)]
    pub(crate) user: Option<UserSpec>,
    /// Memory limit: a number and b, k, m or g
    #[arg(short, long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse::limit_size)]
    pub(crate) memory: Option<u64>,
    /// CPU limit, for example 0.5
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = parse::cpus)]
    pub(crate) cpus: Option<CpuLimit>,
    /// Limit of processes and threads
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = parse::pids)]
    pub(crate) pids_limit: Option<u32>,
    /// Attach a tag; may be repeated
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) tag: Vec<String>,
    /// Attach a label; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", allow_hyphen_values = true, value_parser = parse::label)]
    pub(crate) label: Vec<(String, String)>,
    /// Restart policy when the container ends by itself: no, on-failure[:MAX], always or unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = parse::restart)]
    pub(crate) restart: RestartPolicy,
    /// Make its root read-only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_name = "BOOL", action = clap::ArgAction::Set, value_parser = parse::boolean)]
    pub(crate) read_only: bool,
    /// Seconds between the stop signal and SIGKILL
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = parse::seconds)]
    pub(crate) stop_timeout: Option<Duration>,
    /// Signal that asks the container to end [default: the flist's, or SIGTERM]
    #[arg(long, value_name = "SIGNAL", value_parser = parse::signal)]
    pub(crate) stop_signal: Option<Signal>,
    /// Size limit of the writable layer; refused if its file system cannot enforce one
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = parse::limit_size)]
    pub(crate) rootfs_size: Option<u64>,
    /// Place of the writable layer: disk (kept until the container is removed) or memory (lost at each end) [default:
    /// the node's]
    #[arg(long, value_name = "KIND", conflicts_with = "upper")]
    pub(crate) layer: Option<LayerKind>,
    /// Your own directory for the writable layer; kept when the container is removed
    #[arg(long, value_name = "DIR")]
    pub(crate) upper: Option<String>,
    /// Give the container CAP_SYS_ADMIN and /dev/fuse
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_name = "BOOL", action = clap::ArgAction::Set, value_parser = parse::boolean)]
    pub(crate) elevated: bool,
    /// Propagation of mounts between the container's root and the host
    #[arg(long, value_name = "MODE", default_value = "private")]
    pub(crate) rootfs_propagation: PropagationArg,
    /// Runtime of the node to use: native, runc, ... [default: the node's]
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime: Option<String>,
    /// Write the container's id to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Write the process id of its first run to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,
    /// Print the runtime's config.json without making a container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, value_name = "BOOL", action = clap::ArgAction::Set, value_parser = parse::boolean)]
    pub(crate) dry_run: bool,
    /// Set an annotation for the runtime and its hooks
    #[arg(long, value_name = "KEY=VALUE", allow_hyphen_values = true, value_parser = parse::pair)]
    pub(crate) annotation: Vec<(String, String)>,
    /// max-size=SIZE or max-file=NUMBER: when the next file of its log is begun, and how many are kept
    #[arg(long, value_name = "KEY=VALUE", value_parser = log_option)]
    pub(crate) log_opt: Vec<LogOption>,
    /// Names.
    #[command(flatten)]
    names: NameArgs,
    /// Rights.
    #[command(flatten)]
    rights: RightsArgs,
    /// Shares and limits.
    #[command(flatten)]
    resources: ResourceArgs,
    /// Root file system: path or URL of a .fl file, or dir:PATH for a plain directory. Everything after it is for the
    /// container, flags too: the command and its arguments, in place of the image's command [default: the flist's]
    // One list for both, so that clap parses no flag of ours after the first word.
    #[arg(required = true, trailing_var_arg = true, value_name = "FLIST", value_hint = clap::ValueHint::AnyPath)]
    words: Vec<String>,
}

/// The values of `--rootfs-propagation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PropagationArg {
    /// No propagation.
    Private,
    /// From the host into the container.
    Slave,
    /// In both directions.
    Shared,
}

impl From<PropagationArg> for Propagation {
    fn from(arg: PropagationArg) -> Self {
        match arg {
            PropagationArg::Private => Self::Private,
            PropagationArg::Slave => Self::Slave,
            PropagationArg::Shared => Self::Shared,
        }
    }
}

impl RunArgs {
    /// Returns the root, and the command to run in it.
    pub(crate) fn flist_and_command(&self) -> (&str, &[String]) {
        // clap guarantees at least one word.
        self.words.split_first().map_or(("", &[]), |(flist, command)| (flist.as_str(), command))
    }

    /// Makes the spec. Paths become absolute here, because the daemon has another working directory.
    ///
    /// # Errors
    /// The error in the flags, files or paths; the daemon was not asked yet.
    pub(crate) fn to_spec(&self, cwd: &Path, own_env: Lookup<'_>) -> Result<ContainerSpec, CliError> {
        if self.rm && self.restart != RestartPolicy::No {
            return Err(CliError::RmWithRestart { policy: self.restart });
        }
        let (flist, command) = self.flist_and_command();
        let name = match &self.name {
            Some(name) => name.clone(),
            None => generated_name(flist)?,
        };
        let mut spec = ContainerSpec::new(name, absolute_flist(flist, cwd));
        spec.tags.clone_from(&self.tag);
        spec.env = environment::collect(&self.env_file, &self.env, own_env)?;
        spec.network = self.net.clone();
        spec.mounts = self.volume.iter().chain(&self.mount).map(|mount| absolute_mount(mount, cwd)).collect();
        spec.entrypoint = match &self.entrypoint {
            Some(parse::Words(entrypoint)) => Some(Entrypoint::Exact([entrypoint.as_slice(), command].concat())),
            None => (!command.is_empty()).then(|| Entrypoint::Args(command.to_vec())),
        };
        spec.working_dir.clone_from(&self.workdir);
        spec.user.clone_from(&self.user);
        spec.memory_bytes = self.memory;
        spec.cpu = self.cpus;
        spec.pids_limit = self.pids_limit;
        spec.is_read_only = self.read_only;
        spec.rootfs_size_bytes = self.rootfs_size;
        spec.layer = self.layer;
        spec.upper_dir = self.upper.as_deref().map(|dir| absolute(dir, cwd));
        spec.restart = self.restart;
        spec.stop_signal = self.stop_signal;
        spec.shutdown_timeout = self.stop_timeout;
        spec.runtime.clone_from(&self.runtime);
        spec.is_elevated = self.elevated;
        spec.rootfs_propagation = self.rootfs_propagation.into();
        spec.labels = self.label.iter().cloned().collect();
        spec.is_auto_removed = self.rm;
        spec.is_interactive = self.interactive;
        spec.has_terminal = self.tty;
        self.names.fill(&mut spec);
        spec.annotations = self.annotation.iter().cloned().collect();
        for option in &self.log_opt {
            match option {
                LogOption::MaxSize(bytes) => spec.log_max_bytes = Some(*bytes),
                LogOption::MaxFile(count) => spec.log_max_files = Some(*count),
            }
        }
        self.rights.fill(&mut spec, cwd)?;
        self.resources.fill(&mut spec);
        spec.validate()?;
        Ok(spec)
    }
}

/// One `--log-opt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogOption {
    MaxSize(u64),
    MaxFile(u32),
}

fn log_option(text: &str) -> Result<LogOption, String> {
    const FORM: &str = "write max-size=10m or max-file=3";
    match text.split_once('=') {
        Some(("max-size", size)) => parse::limit_size(size).map(LogOption::MaxSize),
        Some(("max-file", count)) => count.parse().map(LogOption::MaxFile).map_err(|_| FORM.to_owned()),
        Some(("path", _)) => Err("logs are below the daemon's log_dir".to_owned()),
        _ => Err(format!("contd has no other log options: {FORM}")),
    }
}

fn absolute(path: &str, cwd: &Path) -> String {
    // Lossy is good enough: a spec cannot name a directory that is not UTF-8 anyway.
    if path.starts_with('/') { path.to_owned() } else { tidy(&cwd.join(path)) }
}

/// Removes `.` and `..` without asking the file system, as a shell's `cd` does: a spec must not have them.
fn tidy(path: &Path) -> String {
    let mut tidy = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                tidy.pop();
            }
            std::path::Component::Normal(name) => tidy.push(name),
            _ => {}
        }
    }
    tidy.to_string_lossy().into_owned()
}

fn absolute_flist(flist: &str, cwd: &Path) -> String {
    if let Some(dir) = flist.strip_prefix("dir:") {
        let plain = dir.strip_prefix("//").unwrap_or(dir);
        return format!("dir:{}", absolute(plain, cwd));
    }
    if flist.contains("://") { flist.to_owned() } else { absolute(flist, cwd) }
}

fn absolute_mount(mount: &MountSpec, cwd: &Path) -> MountSpec {
    let mut mount = mount.clone();
    if mount.fs_type == "bind" {
        mount.source = absolute(&mount.source, cwd);
    }
    mount
}

/// Makes a readable name from the flist's, with random digits at its end.
fn generated_name(flist: &str) -> Result<ContainerName, CliError> {
    let mut random = [0u8; NAME_SUFFIX_BYTES];
    getrandom::fill(&mut random).map_err(|source| CliError::Random { source })?;
    let suffix: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(ContainerName::new(format!("{}-{suffix}", name_stem(flist)))?)
}

fn name_stem(flist: &str) -> String {
    let path = flist.split(['?', '#']).next().unwrap_or_default();
    let last = path.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let stem = last.strip_suffix(".fl").or_else(|| last.strip_suffix(".flist")).unwrap_or(last);
    let is_allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let kept: String = stem.chars().filter(is_allowed).take(NAME_STEM_BYTES).collect();
    let kept = kept.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if kept.is_empty() { "container".to_owned() } else { kept.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use proptest::prelude::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(words: &[&str]) -> RunArgs {
        Only::try_parse_from(std::iter::once(&"run").chain(words)).expect("valid flags").run
    }

    fn spec(words: &[&str]) -> ContainerSpec {
        parse(words).to_spec(Path::new("/home/me"), &|_| None).expect("valid spec")
    }

    #[test]
    fn every_flag_arrives_in_the_spec() {
        let words = "--rm --name web --net blue -e A=1 -v data:/data:ro --mount type=tmpfs,dst=/t -w /w -u 1:2 -m 64m \
            --cpus 1.5 --pids-limit 9 --tag t --label k=v --read-only --stop-timeout 3 --stop-signal INT --rootfs-size 1g \
            --upper up --elevated --rootfs-propagation slave x.fl sh -c true";
        let got = spec(&words.split_whitespace().collect::<Vec<_>>());
        assert_eq!(got.name.as_str(), "web");
        assert_eq!(got.flist, "/home/me/x.fl");
        assert_eq!(got.network, parse::network("blue").expect("valid"));
        assert_eq!(got.env, ["A=1"]);
        assert_eq!(got.mounts[0].source, "/home/me/data");
        assert_eq!(got.mounts[0].options, ["ro"]);
        assert_eq!((got.mounts[1].source.as_str(), got.mounts[1].fs_type.as_str()), ("tmpfs", "tmpfs"));
        assert_eq!(got.working_dir.as_deref(), Some("/w"));
        assert_eq!(got.user.map(String::from).as_deref(), Some("1:2"));
        assert_eq!((got.memory_bytes, got.rootfs_size_bytes), (Some(64 << 20), Some(1 << 30)));
        assert_eq!((got.cpu.map(CpuLimit::millis), got.pids_limit), (Some(1500), Some(9)));
        assert_eq!((got.tags, got.labels.get("k").map(String::as_str)), (vec!["t".to_owned()], Some("v")));
        assert_eq!(got.shutdown_timeout, Some(Duration::from_secs(3)));
        assert_eq!(got.stop_signal, Signal::new(2).ok());
        assert_eq!(got.upper_dir.as_deref(), Some("/home/me/up"));
        assert_eq!(got.rootfs_propagation, Propagation::Slave);
        assert!(got.is_auto_removed && got.is_read_only && got.is_elevated);
        assert_eq!(got.entrypoint, Some(Entrypoint::Args(vec!["sh".into(), "-c".into(), "true".into()])));
    }

    #[test]
    fn a_layer_lies_where_it_is_told() {
        assert_eq!(spec(&["--layer", "memory", "x.fl"]).layer, Some(LayerKind::Memory));
        assert_eq!(spec(&["x.fl"]).layer, None);
        for bad in [&["run", "--layer", "ram", "x.fl"][..], &["run", "--layer", "disk", "--upper", "u", "x.fl"]] {
            assert!(Only::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_entrypoint_is_a_program_or_a_json_list_and_the_command_its_arguments() {
        let exact = |words: &[&str]| Some(Entrypoint::Exact(words.iter().map(|word| (*word).to_owned()).collect()));
        for (given, expected) in [
            (&["--entrypoint", "/bin/a b", "x.fl"][..], exact(&["/bin/a b"])),
            (&["--entrypoint", "[\"sh\", \"-c\"]", "x.fl", "true"], exact(&["sh", "-c", "true"])),
            (&["--entrypoint", "", "x.fl", "true"], exact(&["true"])),
        ] {
            assert_eq!(spec(given).entrypoint, expected, "{given:?}");
        }
        let nothing = parse(&["--entrypoint", "", "x.fl"]).to_spec(Path::new("/"), &|_| None);
        assert!(matches!(nothing, Err(CliError::Spec(_))), "got {nothing:?}");
    }

    #[test]
    fn the_network_is_an_own_one_unless_it_is_named() {
        assert_eq!(spec(&["x.fl"]).network, Network::Private);
        assert_eq!(spec(&["x.fl"]).entrypoint, None);
    }

    #[test]
    fn flists_become_absolute_and_urls_stay() {
        let cwd = Path::new("/home/me");
        for (given, wanted) in [
            ("x.fl", "/home/me/x.fl"),
            ("../x.fl", "/home/x.fl"),
            ("/a/x.fl", "/a/x.fl"),
            ("dir:root", "dir:/home/me/root"),
            ("dir:.", "dir:/home/me"),
            ("dir:/root", "dir:/root"),
            ("dir:///root", "dir:/root"),
            ("http://h/x.fl", "http://h/x.fl"),
            ("file:///x.fl", "file:///x.fl"),
        ] {
            assert_eq!(absolute_flist(given, cwd), wanted, "{given}");
        }
    }

    #[test]
    fn rm_and_restart_contradict_each_other() {
        let args = parse(&["--rm", "--restart", "always", "x.fl"]);
        let result = args.to_spec(Path::new("/"), &|_| None);
        assert!(matches!(result, Err(CliError::RmWithRestart { .. })), "got {result:?}");
    }

    #[test]
    fn names_are_made_from_the_flist() {
        for (flist, stem) in [
            ("/a/web.fl", "web"),
            ("https://hub/me/nginx-1.2.flist?x=1", "nginx-1.2"),
            ("dir:/srv/root/", "root"),
            ("dir:/", "container"),
            ("/a/_é.fl", "container"),
        ] {
            assert_eq!(name_stem(flist), stem, "{flist}");
        }
        let (one, two) = (spec(&["x.fl"]).name, spec(&["x.fl"]).name);
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), "x-".len() + 6);
    }

    proptest! {
        #[test]
        fn a_generated_name_is_always_valid(flist in ".{0,100}") {
            prop_assert!(generated_name(&flist).is_ok());
        }
    }
}
