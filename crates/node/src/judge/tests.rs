//! Each part of a spec, with and without the rule that gives it.

use contd_types::{ContainerName, NetnsName};

use super::*;

const UID: u32 = 61_000;

fn caller() -> Caller {
    Caller { uid: UID, gid: UID, groups: vec![61_007] }
}

fn namespace() -> NamespaceId {
    NamespaceId::new("a").expect("valid")
}

fn spec() -> ContainerSpec {
    ContainerSpec::new(ContainerName::new("web").expect("valid"), "/flists/x.fl")
}

fn mount(fs_type: &str, source: &str, options: &[&str]) -> MountSpec {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    MountSpec { fs_type: fs_type.into(), source: source.into(), target: "/m".into(), options }
}

fn with_mount(fs_type: &str, source: &str, options: &[&str]) -> ContainerSpec {
    ContainerSpec { mounts: vec![mount(fs_type, source, options)], ..spec() }
}

/// A node with one rule, and the node's own defaults.
fn rules(text: &str) -> Rules {
    let text = format!("[[access]]\nuid = {UID}\nnamespaces = ['a']\nflists = ['/flists']\n{text}");
    Rules::of(&toml::from_str::<Config>(&text).expect("valid"))
}

#[track_caller]
fn allowed(rule: &str, spec: &ContainerSpec) -> Arc<Grant> {
    rules(rule).judge(&caller(), &namespace(), spec).unwrap_or_else(|error| panic!("{rule}: {error}")).grant
}

/// Demands a refusal that names what is refused, and the key that would give it.
#[track_caller]
fn denied(rule: &str, spec: &ContainerSpec, what: &str, key: &str) {
    let refused = rules(rule).judge(&caller(), &namespace(), spec).expect_err(what);
    assert_eq!(refused.kind, ErrorKind::PermissionDenied);
    assert!(refused.message.contains(what), "{what:?} is not in {:?}", refused.message);
    assert!(refused.hint.as_ref().is_some_and(|hint| hint.contains(key)), "{key:?} is not in {:?}", refused.hint);
}

#[test]
fn a_plain_container_of_an_allowed_flist_is_all_that_a_bare_rule_gives() {
    let grant = allowed("", &spec());
    assert_eq!(grant.flist, FlistGrant::File(Below { base: "/flists".into(), rest: "x.fl".into() }));
    assert_eq!(grant.caller, caller());
    assert!(grant.binds.is_empty() && grant.upper.is_none());
    allowed("", &with_mount("tmpfs", "tmpfs", &["size=1m", "mode=0700", "noexec"]));
}

#[test]
fn roots_come_from_where_the_rule_says() {
    let of = |flist: &str| ContainerSpec { flist: flist.into(), ..spec() };
    for outside in
        ["/etc/x.fl", "/flistsx/x.fl", "/flists/../etc/x.fl", "x.fl", "file:///etc/x.fl", "dir:/", "dir:/flists"]
    {
        denied("", &of(outside), "flist", "flists");
    }
    allowed("", &of("file:///flists/sub/x.fl"));
    let rule = "";
    denied(rule, &of("http://127.0.0.1/x.fl"), "http://127.0.0.1", "flists");
    let with = |flists: &str| {
        let text = format!("[[access]]\nuid = {UID}\nflists = [{flists}]");
        Rules::of(&toml::from_str::<Config>(&text).expect("valid"))
    };
    let judged = |rule: &str, flist: &str| with(rule).judge(&caller(), &namespace(), &of(flist));
    assert!(judged("'https://good.example/f/'", "https://good.example/f/x.fl").is_ok());
    for evil in ["https://good.example.evil/f/x.fl", "https://good.example/fx", "http://good.example/f/x.fl"] {
        assert!(judged("'https://good.example/f/'", evil).is_err(), "{evil}");
    }
    let dir = judged("'dir:/srv/roots'", "dir:/srv/roots/a").expect("allowed").grant;
    assert_eq!(dir.flist, FlistGrant::Directory(Below { base: "/srv/roots".into(), rest: "a".into() }));
    assert!(judged("'dir:/srv/roots'", "/srv/roots/a.fl").is_err(), "a directory rule gives no files");
    let routes = judged("'/f', 'zdb://10.0.0.5/ns', 'https://h/'", "/f/x.fl").expect("allowed").grant.routes.clone();
    assert_eq!((routes.dirs, routes.servers), (vec!["/f".into()], vec!["10.0.0.5:9900".into(), "h:443".into()]));
}

#[test]
fn binds_lie_below_what_the_rule_names_and_read_only_is_that() {
    let bind = |source: &str, options: &[&str]| with_mount("bind", source, options);
    denied("", &bind("/", &[]), "a mount of /", "binds");
    let rule = "binds = ['/srv/a', '/srv/shared:ro']";
    for outside in ["/", "/srv", "/srv/ab", "/etc", "/srv/a/../b"] {
        denied(rule, &bind(outside, &[]), "a mount of", "binds");
    }
    let of = |source, options: &[&str]| allowed(rule, &bind(source, options)).binds[&0].clone();
    assert!(!of("/srv/a/data", &[]).is_read_only);
    assert!(of("/srv/a/data", &["ro"]).is_read_only);
    for words in [&["ro"][..], &["readonly"], &["RO", "rbind"], &["rro"]] {
        assert!(of("/srv/shared/x", words).is_read_only, "{words:?}");
    }
    for words in [&[][..], &["rw"], &["ro", "rw"], &["bind"]] {
        denied(rule, &bind("/srv/shared/x", words), "read-only", "binds");
    }
}

#[test]
fn mounts_that_travel_and_other_file_systems_are_never_given() {
    let rule = "binds = ['/']\nelevated = true";
    for option in [
        "shared",
        "rshared",
        "slave",
        "rslave",
        "unbindable",
        "RSHARED",
        "remount",
        "dev",
        "suid",
        "idmap",
        "upperdir=/x",
    ] {
        denied(rule, &with_mount("bind", "/srv", &[option]), option, "root's");
    }
    for fs_type in ["proc", "sysfs", "overlay", "ext4", "cgroup", "nfs", "none", ""] {
        denied(rule, &with_mount(fs_type, "x", &[]), "type", "root's");
    }
    for propagation in [Propagation::Shared, Propagation::Slave] {
        denied(rule, &ContainerSpec { rootfs_propagation: propagation, ..spec() }, "travel", "root's");
    }
}

#[test]
fn uppers_networks_runtimes_and_elevation_are_given_by_name() {
    let upper = ContainerSpec { upper_dir: Some("/srv/u/one".into()), ..spec() };
    denied("", &upper, "/srv/u/one", "uppers");
    denied("uppers = ['/srv/us']", &upper, "/srv/u/one", "uppers");
    assert!(allowed("uppers = ['/srv/u']", &upper).upper.is_some());
    let network =
        |name: &str| ContainerSpec { network: Network::Named(NetnsName::new(name).expect("valid")), ..spec() };
    denied("", &network("theirs"), "theirs", "networks");
    denied("networks = ['mine']", &network("theirs"), "theirs", "networks");
    allowed("networks = ['mine']", &network("mine"));
    let runtime = ContainerSpec { runtime: Some("runc".into()), ..spec() };
    denied("", &runtime, "runc", "runtimes");
    allowed("runtimes = ['runc']", &runtime);
    let elevated = ContainerSpec { is_elevated: true, ..spec() };
    denied("", &elevated, "elevated", "elevated");
    allowed("elevated = true", &elevated);
}

#[test]
fn limits_are_those_of_the_rule_and_else_the_nodes_defaults() {
    let memory = |bytes| ContainerSpec { memory_bytes: Some(bytes), ..spec() };
    denied("max_memory = '64m'", &memory(65 << 20), "memory", "max_memory");
    denied("max_memory = '64m'", &memory(0), "unlimited bytes of memory", "max_memory");
    allowed("max_memory = '64m'", &memory(64 << 20));
    // Without a word of the rule, the default of the node is the most.
    denied("", &memory(1025 << 20), "memory", "max_memory");
    allowed("", &memory(1024 << 20));
    allowed("max_memory = '0'", &memory(1 << 40));
    let cpu = |millis| ContainerSpec { cpu: Some(CpuLimit::from_millis(millis).expect("valid")), ..spec() };
    denied("", &cpu(1001), "CPU", "max_cpus");
    allowed("max_cpus = 2", &cpu(2000));
    denied("", &ContainerSpec { pids_limit: Some(4_000_000), ..spec() }, "processes", "max_pids");
    denied(
        "max_rootfs_size = '1m'",
        &ContainerSpec { rootfs_size_bytes: Some(2 << 20), ..spec() },
        "layer",
        "max_rootfs",
    );
}

#[test]
fn what_is_left_out_is_filled_with_the_rule_where_the_default_is_more() {
    let mut filled = spec();
    let rule = "max_memory = '64m'\nmax_cpus = 0.5\nmax_pids = 10\nmax_rootfs_size = '1m'";
    rules(rule).fit(&caller(), &namespace(), &mut filled).expect("allowed");
    assert_eq!((filled.memory_bytes, filled.cpu.map(CpuLimit::millis)), (Some(64 << 20), Some(500)));
    assert_eq!((filled.pids_limit, filled.rootfs_size_bytes), (Some(10), Some(1 << 20)));
    let mut plain = spec();
    rules("max_memory = '64g'").fit(&caller(), &namespace(), &mut plain).expect("allowed");
    assert_eq!(plain, spec(), "the defaults are within the rule");
}

#[test]
fn one_rule_must_allow_all_and_the_first_that_does_is_named() {
    let text = format!(
        "[[access]]\nuid = {UID}\nflists = ['/flists']\n[[access]]\nname = 'ops'\ngid = 61007\nflists = ['/flists']\nbinds = ['/srv']\n\
         max_containers = 2\n[[access]]\ngid = 61007\nread_only = true\nflists = ['/flists']\nelevated = true"
    );
    let rules = Rules::of(&toml::from_str::<Config>(&text).expect("valid"));
    let judge = |spec: &ContainerSpec| rules.judge(&caller(), &namespace(), spec);
    assert_eq!(judge(&spec()).expect("allowed").rule, "access #1");
    let bound = judge(&with_mount("bind", "/srv", &[])).expect("a supplementary group counts");
    assert_eq!((bound.rule.as_str(), bound.max_containers), ("ops", Some(2)));
    assert!(judge(&ContainerSpec { is_elevated: true, ..spec() }).is_err(), "a rule to look gives nothing to run");
    let stranger = Caller { uid: 1, gid: 1, groups: vec![] };
    let refused = rules.judge(&stranger, &namespace(), &spec()).expect_err("no rule");
    assert!(refused.message.contains("no rule"), "{refused}");
}
