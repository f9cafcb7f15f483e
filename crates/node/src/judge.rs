//! The rules for containers of callers with limited rights: which parts of the host they may use. Only what a rule names is given.
//!
//! No path is looked up here: paths are compared by their parts, URLs by theirs. A file is opened later,
//! below the directory of the rule, by descriptor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use contd_access::Below;
use contd_actors::{Judge, Judgement};
use contd_flist::{FlistSource, UrlPrefix, permitted};
use contd_rootfs::{BindGrant, FlistGrant, Grant, LimitedRoutes};
use contd_types::{
    ApiError, Caller, ContainerSpec, CpuLimit, ErrorKind, MountSpec, NamespaceId, Network, Propagation, Resources,
};

use crate::config::{Access, Config, FlistRule};

/// Words that ask for a read-only mount.
const READ_ONLY: [&str; 3] = ["ro", "readonly", "rro"];
/// Options of mounts that give nothing, beside those of [`TMPFS_KEYS`]. Any other is refused: it may let mounts travel to or
/// from the host.
const PLAIN_OPTIONS: [&str; 21] = [
    "ro",
    "readonly",
    "rro",
    "rw",
    "norecursive",
    "bind",
    "rbind",
    "private",
    "rprivate",
    "nosuid",
    "nodev",
    "noexec",
    "rnosuid",
    "rnodev",
    "rnoexec",
    "exec",
    "noatime",
    "relatime",
    "strictatime",
    "nodiratime",
    "diratime",
];
const TMPFS_KEYS: [&str; 5] = ["size=", "mode=", "uid=", "gid=", "nr_inodes="];

const MIB: u64 = 1024 * 1024;

/// The rules, and what a container gets that does not say: for callers with limited rights that is also the most.
#[derive(Debug)]
pub struct Rules {
    access: Vec<Access>,
    defaults: Defaults,
}

/// The node's defaults; 0 is no limit.
#[derive(Debug, Clone, Copy)]
struct Defaults {
    memory: u64,
    cpu_millis: u64,
    pids: u64,
    rootfs_size: u64,
}

/// Something that a spec asks for and a rule does not give.
#[derive(Debug, PartialEq, Eq)]
struct Denial {
    what: String,
    /// The rule that the operator would have to write.
    key: String,
}

type Judged<T> = Result<T, Denial>;

impl Rules {
    /// Takes them from a configuration.
    pub fn of(config: &Config) -> Self {
        let (access, given) = (config.access.clone(), &config.defaults);
        let defaults = Defaults {
            memory: given.memory_mib.saturating_mul(MIB),
            cpu_millis: u64::from(given.cpu_millis),
            pids: u64::from(given.pids),
            rootfs_size: given.rootfs_mib.saturating_mul(MIB),
        };
        Self { access, defaults }
    }

    /// Returns the rules themselves.
    pub fn access(&self) -> &[Access] {
        &self.access
    }

    /// Fills in the limits that a spec leaves out and whose default is more than the first rule that allows the rest has.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn fit(
        &self,
        caller: &Caller,
        namespace: &NamespaceId,
        spec: &mut ContainerSpec,
    ) -> Result<Judgement, ApiError> {
        let (rule, judgement) = self.decide(caller, namespace, spec)?;
        self.fill(rule, spec);
        Ok(judgement)
    }

    /// Judges what a container asks for.
    ///
    /// # Errors
    /// `PermissionDenied` with the part that no rule allows, and what to ask the operator for.
    pub fn judge(&self, caller: &Caller, namespace: &NamespaceId, spec: &ContainerSpec) -> Result<Judgement, ApiError> {
        self.decide(caller, namespace, spec).map(|(_, judgement)| judgement)
    }

    /// Finds the first rule that allows all that a spec asks for.
    fn decide(
        &self,
        caller: &Caller,
        namespace: &NamespaceId,
        spec: &ContainerSpec,
    ) -> Result<(&Access, Judgement), ApiError> {
        let mut denial: Option<(String, Denial)> = None;
        for (position, rule) in self.access.iter().enumerate() {
            if !fits(rule, caller) || rule.read_only || !is_in_scope(rule, namespace) {
                continue;
            }
            match self.judge_by(rule, caller, spec) {
                Ok(grant) => {
                    let (rule_name, max_containers) = (rule.label(position), rule.max_containers);
                    let grant = Arc::new(grant);
                    return Ok((rule, Judgement { rule: rule_name, grant, max_containers }));
                }
                // The first one is told: it is the one that an operator wrote for this user.
                Err(denied) => _ = denial.get_or_insert((rule.label(position), denied)),
            }
        }
        let (uid, name) = (caller.uid, &spec.name);
        let denied = |message: String| ApiError::new(ErrorKind::PermissionDenied, message);
        Err(match denial {
            Some((rule, Denial { what, key })) => denied(format!("container {name}: uid {uid} may not have {what}"))
                .with_hint(format!("ask the operator for {key} in rule {rule:?} of contd's configuration")),
            None => {
                denied(format!("container {name}: no rule lets uid {uid} make or start it in namespace {namespace}"))
                    .with_hint("ask the operator for an [[access]] rule in the configuration of contd")
            }
        })
    }

    /// Judges every part of a spec. Without `..`: a new field is judged before it compiles.
    fn judge_by(&self, rule: &Access, caller: &Caller, spec: &ContainerSpec) -> Judged<Grant> {
        let ContainerSpec {
            // A name in its namespace; the log's path is made of both, which are single components.
            name: _,
            flist,
            // Kept and shown. Labels are no annotations: no runtime reads them.
            tags: _,
            labels: _,
            // The program and its environment: root in a container can do no more than its limits allow.
            env: _,
            entrypoint: _,
            working_dir: _,
            user: _,
            network,
            mounts,
            memory_bytes,
            cpu,
            pids_limit,
            // Takes rights away.
            is_read_only: _,
            // On disk below the state directory, or in memory that its own limit counts.
            layer: _,
            rootfs_size_bytes,
            upper_dir,
            // How often it is started costs no more than its limits; each start is judged.
            restart: _,
            stop_signal: _,
            shutdown_timeout: _,
            is_auto_removed: _,
            // Its own, which this user may use: FIFOs of root's, opened by whoever may attach.
            is_interactive: _,
            has_terminal: _,
            rights,
            resources,
            hostname: _,
            // Words in its own files.
            names: _,
            annotations,
            log_max_bytes,
            log_max_files,
            is_elevated,
            rootfs_propagation,
            runtime,
        } = spec;
        judge_network(rule, network)?;
        if *is_elevated && !rule.elevated {
            return Err(deny("an elevated container", "elevated = true"));
        }
        if rights.gives_more() {
            return Err(deny(
                "more rights than the defaults (capabilities, devices, sysctls, ulimits, ...)",
                "a container of root's",
            ));
        }
        // A quota or shares would be more than its CPU limit. Memory for /dev/shm is in its memory limit.
        let own_shares = Resources { shm_bytes: None, ..resources.clone() };
        if own_shares != Resources::default() {
            return Err(deny("shares and limits beyond memory, cpus and pids", "a container of root's"));
        }
        // Some runtimes act on them.
        if !annotations.is_empty() {
            return Err(deny("annotations", "a container of root's"));
        }
        if log_max_bytes.is_some() || log_max_files.is_some() {
            return Err(deny("a log of its own size", "a container of root's"));
        }
        // Mounts that travel between the host and a container are nothing that a rule gives.
        if *rootfs_propagation != Propagation::Private {
            return Err(deny("mounts that travel between its root and the host", "a container of root's"));
        }
        if let Some(runtime) = runtime.as_ref().filter(|runtime| !rule.runtimes.contains(runtime)) {
            return Err(deny(format!("the runtime {runtime:?}"), format!("runtimes = [{runtime:?}]")));
        }
        for limit in self.limits(rule, *memory_bytes, *cpu, *pids_limit, *rootfs_size_bytes) {
            limit.judge()?;
        }
        Ok(Grant {
            caller: caller.clone(),
            flist: judge_flist(rule, flist)?,
            binds: judge_mounts(rule, mounts)?,
            upper: upper_dir.as_deref().map(|dir| judge_upper(rule, dir)).transpose()?,
            routes: routes(rule),
        })
    }

    fn limits(
        &self,
        rule: &Access,
        memory: Option<u64>,
        cpu: Option<CpuLimit>,
        pids: Option<u32>,
        rootfs: Option<u64>,
    ) -> [Limit; 4] {
        let Defaults { memory: default_memory, cpu_millis, pids: default_pids, rootfs_size } = self.defaults;
        let limit = |what, key, given, default, max: Option<u64>| Limit { what, key, given, default, max };
        let (given_cpu, max_cpu) = (cpu.map(|cpu| u64::from(cpu.millis())), rule.max_cpus.map(u64::from));
        [
            limit("bytes of memory", "max_memory", memory, default_memory, rule.max_memory),
            limit("thousandths of a CPU", "max_cpus", given_cpu, cpu_millis, max_cpu),
            limit("processes", "max_pids", pids.map(u64::from), default_pids, rule.max_pids.map(u64::from)),
            limit("bytes of writable layer", "max_rootfs_size", rootfs, rootfs_size, rule.max_rootfs_size),
        ]
    }

    fn fill(&self, rule: &Access, spec: &mut ContainerSpec) {
        let [memory, cpu, pids, rootfs] =
            self.limits(rule, spec.memory_bytes, spec.cpu, spec.pids_limit, spec.rootfs_size_bytes);
        spec.memory_bytes = memory.filled();
        let least = u64::from(CpuLimit::LEAST_MILLIS);
        let millis = cpu.filled().and_then(|millis| u32::try_from(millis.max(least)).ok());
        spec.cpu = millis.and_then(|millis| CpuLimit::from_millis(millis).ok());
        spec.pids_limit = pids.filled().and_then(|count| u32::try_from(count).ok());
        spec.rootfs_size_bytes = rootfs.filled();
    }
}

/// Judges by the rules as they are when it is asked.
#[derive(Debug)]
pub struct Gate(RwLock<Arc<Rules>>);

impl Gate {
    /// Begins with these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self(RwLock::new(Arc::new(rules)))
    }

    /// Returns the rules as they are now.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes other rules; what is judged from now on goes by them.
    pub fn replace(&self, rules: Rules) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }
}

impl Judge for Gate {
    fn judge(&self, caller: &Caller, namespace: &NamespaceId, spec: &ContainerSpec) -> Result<Judgement, ApiError> {
        self.rules().judge(caller, namespace, spec)
    }
}

/// Tells whether a rule is about this caller: by its user, by one of its groups, or by both where it names both.
pub fn fits(rule: &Access, caller: &Caller) -> bool {
    match (rule.uid, rule.gid) {
        (None, None) => false,
        (uid, gid) => uid.is_none_or(|uid| uid == caller.uid) && gid.is_none_or(|gid| caller.is_in(gid)),
    }
}

/// Tells whether a rule is about this namespace.
pub fn is_in_scope(rule: &Access, namespace: &NamespaceId) -> bool {
    rule.namespaces.is_empty() || rule.namespaces.contains(namespace)
}

/// One limit: what is asked for, what the node gives by default, and what the rule says; 0 is no limit.
#[derive(Debug, Clone, Copy)]
struct Limit {
    what: &'static str,
    key: &'static str,
    given: Option<u64>,
    default: u64,
    max: Option<u64>,
}

impl Limit {
    fn most(&self) -> u64 {
        bound(self.max.unwrap_or(self.default))
    }

    fn judge(&self) -> Judged<()> {
        let Some(given) = self.given.filter(|given| bound(*given) > self.most()) else { return Ok(()) };
        let amount = if given == 0 { "unlimited".to_owned() } else { given.to_string() };
        let most = self.most();
        Err(deny(format!("{amount} {}, the most is {most}", self.what), format!("a higher {}", self.key)))
    }

    /// Returns the value that the container asks for, or the most if the default is more.
    fn filled(&self) -> Option<u64> {
        self.given.or_else(|| (bound(self.default) > self.most()).then(|| self.most()))
    }
}

fn bound(limit: u64) -> u64 {
    if limit == 0 { u64::MAX } else { limit }
}

fn deny(what: impl Into<String>, key: impl Into<String>) -> Denial {
    Denial { what: what.into(), key: key.into() }
}

fn judge_network(rule: &Access, network: &Network) -> Judged<()> {
    match network {
        Network::Private => Ok(()),
        Network::Named(name) if rule.networks.contains(name) => Ok(()),
        Network::Named(name) => Err(deny(format!("the network {name}"), format!("networks = [\"{name}\"]"))),
    }
}

fn judge_flist(rule: &Access, flist: &str) -> Judged<FlistGrant> {
    let source =
        FlistSource::parse(flist).map_err(|_| deny("a flist that is none", "nothing: write it as a path or URL"))?;
    let denied = || deny(format!("the flist {source}"), format!("flists = [\"{source}\"]"));
    let found = match &source {
        FlistSource::File(path) => files(rule).find_map(|base| Below::split(base, path)).map(FlistGrant::File),
        FlistSource::Directory(path) => {
            let mut dirs = rule.flists.iter().filter_map(|allowed| match allowed {
                FlistRule::Directories(base) => Below::split(base.path(), path),
                FlistRule::Files(_) | FlistRule::Url(_) => None,
            });
            dirs.next().map(FlistGrant::Directory)
        }
        FlistSource::Http(url) => {
            let prefixes: Vec<UrlPrefix> = urls(rule).cloned().collect();
            permitted(url, &prefixes).map(|_| FlistGrant::Url(prefixes))
        }
    };
    found.ok_or_else(denied)
}

fn files(rule: &Access) -> impl Iterator<Item = &Path> {
    rule.flists.iter().filter_map(|allowed| match allowed {
        FlistRule::Files(base) => Some(base.path()),
        FlistRule::Directories(_) | FlistRule::Url(_) => None,
    })
}

fn urls(rule: &Access) -> impl Iterator<Item = &UrlPrefix> {
    rule.flists.iter().filter_map(|allowed| match allowed {
        FlistRule::Url(prefix) => Some(prefix),
        FlistRule::Files(_) | FlistRule::Directories(_) => None,
    })
}

/// Returns what the routes of the caller's flists may name: the stores beside allowed flists, and allowed servers.
fn routes(rule: &Access) -> LimitedRoutes {
    LimitedRoutes {
        dirs: files(rule).map(PathBuf::from).collect(),
        servers: urls(rule).map(UrlPrefix::host_and_port).collect(),
    }
}

fn judge_upper(rule: &Access, dir: &str) -> Judged<Below> {
    let found = rule.uppers.iter().find_map(|base| Below::split(base.path(), Path::new(dir)));
    found.ok_or_else(|| deny(format!("its writable layer in {dir}"), format!("uppers = [{dir:?}]")))
}

fn judge_mounts(rule: &Access, mounts: &[MountSpec]) -> Judged<BTreeMap<usize, BindGrant>> {
    let mut binds = BTreeMap::new();
    for (number, mount) in mounts.iter().enumerate() {
        // Where inside the container: what is guarded there is guarded for everybody.
        let MountSpec { source, target: _, fs_type, options } = mount;
        for option in options {
            let lower = option.to_ascii_lowercase();
            let is_tmpfs = fs_type == "tmpfs" && TMPFS_KEYS.iter().any(|key| lower.starts_with(key));
            if !is_tmpfs && !PLAIN_OPTIONS.contains(&lower.as_str()) {
                return Err(deny(format!("the mount option {option:?}"), "a container of root's"));
            }
        }
        match fs_type.as_str() {
            "bind" => drop(binds.insert(number, judge_bind(rule, source, options)?)),
            "tmpfs" => {}
            _ => return Err(deny(format!("a mount of type {fs_type:?}"), "a container of root's")),
        }
    }
    Ok(binds)
}

fn judge_bind(rule: &Access, source: &str, options: &[String]) -> Judged<BindGrant> {
    let is_one_of =
        |words: &[&str]| options.iter().any(|option| words.iter().any(|word| option.eq_ignore_ascii_case(word)));
    // One that says both is not read-only for sure.
    let is_read_only = is_one_of(&READ_ONLY) && !is_one_of(&["rw"]);
    let mut read_only_base = None;
    for bind in &rule.binds {
        let Some(place) = Below::split(bind.base.path(), Path::new(source)) else { continue };
        if !bind.is_read_only || is_read_only {
            return Ok(BindGrant { place, is_read_only });
        }
        read_only_base = Some(bind.base.path());
    }
    Err(match read_only_base {
        Some(base) => deny(
            format!("a writable mount of {source}: {} may only be mounted read-only, as {source}:…:ro", base.display()),
            format!("binds = [{source:?}]"),
        ),
        None => deny(format!("a mount of {source}"), format!("binds = [\"{source}:ro\"]")),
    })
}

#[cfg(test)]
mod tests;
