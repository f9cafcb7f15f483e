//! The verbs and flags that people know from podman and docker and that contd has not, or has otherwise: with the reason.
//!
//! Wrong usage says the reason (`usage`), and `docs/cli.md` is made of this, the grammar, and podman's own list
//! (`tests/data/podman.txt`): a test holds all three together.

/// Why contd has not a verb.
pub(crate) const REFUSED_VERBS: &[(&str, &str)] = &[
    ("auto-update", NO_IMAGES),
    ("build", NO_IMAGES),
    ("commit", NO_IMAGES),
    ("container", "containers are all that contd has: leave the word out"),
    ("cp", "not built yet; mount a directory, or pass files through contd exec -i NAME tar"),
    ("diff", NO_IMAGES),
    ("export", NO_IMAGES),
    ("generate", "a container that is to come up with the node has --restart always"),
    ("healthcheck", NO_HEALTH),
    ("history", NO_IMAGES),
    ("image", NO_IMAGES),
    ("images", NO_IMAGES),
    ("import", NO_IMAGES),
    ("info", "contd version, contd doctor and contd namespaces tell of the node"),
    ("init", "contd create makes all of a container but its processes"),
    ("kube", NO_PODS),
    ("load", NO_IMAGES),
    ("login", NO_REGISTRY),
    ("logout", NO_REGISTRY),
    ("machine", "contd runs on the node itself"),
    ("manifest", NO_IMAGES),
    ("mount", "the root of a container is the node's own affair; contd exec looks into one that runs"),
    ("network", NO_NETWORKS),
    ("pod", NO_PODS),
    ("port", NO_NETWORKS),
    ("pull", NO_REGISTRY),
    ("push", NO_REGISTRY),
    ("rename", "not built yet; a container's name is also that of its log"),
    ("rmi", NO_IMAGES),
    ("save", NO_IMAGES),
    ("search", NO_REGISTRY),
    ("secret", NO_SECRETS),
    ("system", "contd doctor, contd flist cache prune and contd prune do its parts"),
    ("tag", NO_IMAGES),
    ("unmount", "the root of a container is the node's own affair"),
    ("unshare", NO_USERNS),
    ("untag", NO_IMAGES),
    ("volume", NO_VOLUMES),
];

const NO_IMAGES: &str = "contd runs flists and keeps no images: contd flist makes, imports and inspects flists";
const NO_REGISTRY: &str = "contd asks no registry: bring the image here with skopeo, then contd flist import";
const NO_NETWORKS: &str = "contd makes no networks: a container joins one that exists, by --net (docs/networking.md)";
const NO_PODS: &str = "contd has no pods: containers share a network by --net";
const NO_VOLUMES: &str = "contd has no volumes: bind a directory, by -v";
const NO_SECRETS: &str = "contd keeps no secrets: bind a file that only root reads, by -v FILE:/run/secrets/NAME:ro";
const NO_HEALTH: &str = "contd has no health checks yet";
const NO_USERNS: &str = "contd uses no user namespaces: -u chooses the user in the container";
const OWN_NAMESPACES: &str = "a container always has its own of this namespace";
const NO_PLATFORM: &str = "a flist is of one platform: contd flist import --platform chooses it";
const NO_DEVICE_LIMITS: &str =
    "contd limits no single block device: --blkio-weight weighs containers against each other";
const NO_REALTIME: &str = "kernels without real-time groups, as of Debian and Zero-OS, have no such limit";
const NAME_IT: &str = "name the container: contd ps -ql tells the latest one";
const LIST_THEM: &str = "name them: contd ps -q, with --filter, lists some for $(...)";
const BY_CIDFILE: &str = "name it: $(cat FILE)";
const OWN_LOGS: &str = "output always goes to the log of the container; --log-opt sizes it";
const V1_ONLY: &str = "only cgroup v1 had it, and containers hang by it";

/// The verbs that make a container.
pub(crate) const MAKES: &str = "run, create";

/// Why contd has not a flag: the verbs (all of them when empty), the flag, the reason.
pub(crate) const REFUSED_FLAGS: &[(&str, &str, &str)] = &[
    (MAKES, "--arch", NO_PLATFORM),
    (MAKES, "--attach", "an attached run shows both streams; -i opens standard input, -d attaches nothing"),
    (MAKES, "--authfile", NO_REGISTRY),
    ("", "--blkio-weight-device", NO_DEVICE_LIMITS),
    (MAKES, "--cgroup-conf", "each limit has a flag of its own"),
    (
        MAKES,
        "--cgroup-parent",
        "all containers stand below the daemon's own cgroup: cgroup_parent of its configuration",
    ),
    (MAKES, "--cgroupns", OWN_NAMESPACES),
    (MAKES, "--cgroups", "a container always has a cgroup, by which it is counted and ended"),
    (MAKES, "--chrootdirs", "contd makes hosts, hostname and resolv.conf in the root alone"),
    (MAKES, "--conmon-pidfile", "there is no conmon; contd's shims are found by contd doctor"),
    ("", "--cpu-rt-period", NO_REALTIME),
    ("", "--cpu-rt-runtime", NO_REALTIME),
    (MAKES, "--device-cgroup-rule", "name the device: --device"),
    ("", "--device-read-bps", NO_DEVICE_LIMITS),
    ("", "--device-read-iops", NO_DEVICE_LIMITS),
    ("", "--device-write-bps", NO_DEVICE_LIMITS),
    ("", "--device-write-iops", NO_DEVICE_LIMITS),
    (MAKES, "--disable-content-trust", NO_REGISTRY),
    (MAKES, "--env-host", "-e NAME takes one variable from your environment"),
    (MAKES, "--env-merge", "write the whole value: -e NAME=VALUE"),
    (MAKES, "--expose", NO_NETWORKS),
    (MAKES, "--gidmap", NO_USERNS),
    (MAKES, "--health-cmd", NO_HEALTH),
    (MAKES, "--health-interval", NO_HEALTH),
    (MAKES, "--health-on-failure", NO_HEALTH),
    (MAKES, "--health-retries", NO_HEALTH),
    (MAKES, "--health-start-period", NO_HEALTH),
    (MAKES, "--health-timeout", NO_HEALTH),
    (MAKES, "--hostuser", NO_USERNS),
    (MAKES, "--http-proxy", "no variable of yours is passed on; -e http_proxy passes this one"),
    (MAKES, "--image-volume", NO_VOLUMES),
    (MAKES, "--init", "not built yet; an init of the flist's own does it, as the first word of the command"),
    (MAKES, "--init-ctr", NO_PODS),
    (MAKES, "--init-path", "not built yet; an init of the flist's own does it, as the first word of the command"),
    (MAKES, "--ip", NO_NETWORKS),
    (MAKES, "--ip6", NO_NETWORKS),
    (MAKES, "--ipc", OWN_NAMESPACES),
    (MAKES, "--label-file", "-l takes one label"),
    (MAKES, "--log-driver", OWN_LOGS),
    (MAKES, "--mac-address", NO_NETWORKS),
    ("", "--memory-swappiness", V1_ONLY),
    (MAKES, "--network-alias", NO_NETWORKS),
    (MAKES, "--no-healthcheck", NO_HEALTH),
    (MAKES, "--no-hosts", "a hosts file of the image stays; a file that you bind at /etc/hosts counts more"),
    (MAKES, "--oom-kill-disable", V1_ONLY),
    (MAKES, "--os", NO_PLATFORM),
    (MAKES, "--passwd", "contd changes no passwd file; -u takes numbers, too"),
    (MAKES, "--passwd-entry", "contd changes no passwd file; -u takes numbers, too"),
    (MAKES, "--personality", "flists are of this machine's own kind"),
    (MAKES, "--pid", OWN_NAMESPACES),
    (MAKES, "--platform", NO_PLATFORM),
    (MAKES, "--pod", NO_PODS),
    (MAKES, "--pod-id-file", NO_PODS),
    (
        "",
        "--preserve-fds",
        "a container outlives its caller, whose descriptors do not travel into it; -i passes standard input",
    ),
    (MAKES, "--publish", NO_NETWORKS),
    (MAKES, "--publish-all", NO_NETWORKS),
    (MAKES, "--pull", NO_REGISTRY),
    (MAKES, "--quiet", "progress is shown on a terminal only"),
    (MAKES, "--read-only-tmpfs", "--read-only --tmpfs /tmp --tmpfs /run mounts what the program needs"),
    (MAKES, "--replace", "remove the other one first: contd rm -f NAME"),
    (MAKES, "--requires", "contd starts containers side by side; a program waits for what it needs"),
    (MAKES, "--rmi", NO_IMAGES),
    (MAKES, "--rootfs", "a plain directory is named dir:PATH, in the place of the flist"),
    (MAKES, "--sdnotify", "a service manager is told by contd daemon, of all containers"),
    (MAKES, "--seccomp-policy", "--security-opt seccomp=FILE"),
    (MAKES, "--secret", NO_SECRETS),
    ("run", "--sig-proxy", "an attached run passes signals on; contd attach --sig-proxy=false does not"),
    (MAKES, "--subgidname", NO_USERNS),
    (MAKES, "--subuidname", NO_USERNS),
    (MAKES, "--systemd", "a systemd in a container takes --tmpfs /run and --tmpfs /run/lock"),
    (MAKES, "--timeout", "timeout(1) of the image ends a program, contd stop a container"),
    (MAKES, "--tls-verify", NO_REGISTRY),
    (MAKES, "--tz", "-e TZ=ZONE"),
    (MAKES, "--uidmap", NO_USERNS),
    (MAKES, "--umask", "a program sets its own: sh -c 'umask 077; exec ...'"),
    (MAKES, "--unsetenv", "a variable of the image is set to nothing by -e NAME="),
    (MAKES, "--unsetenv-all", "a variable of the image is set to nothing by -e NAME="),
    (MAKES, "--userns", NO_USERNS),
    (MAKES, "--uts", OWN_NAMESPACES),
    (MAKES, "--variant", NO_PLATFORM),
    (MAKES, "--volumes-from", NO_VOLUMES),
    ("logs", "--color", "several containers are told apart by their names"),
    ("ps", "--external", "contd lists its own containers only"),
    ("ps", "--noheading", "contd ps -q, or --format json"),
    ("ps", "--ns", "contd inspect tells the pid; lsns(8) tells its namespaces"),
    ("ps", "--pod", NO_PODS),
    ("ps", "--size", "not built yet"),
    ("ps", "--sort", "the newest stand first; sort(1) sorts --format json"),
    ("ps", "--sync", "what is shown is always so"),
    ("ps", "--watch", "watch contd ps"),
    ("inspect", "--size", "not built yet"),
    ("inspect", "--type", "contd inspects containers; contd flist inspect, flists"),
    ("wait", "--interval", "contd waits for events, and looks at nothing again and again"),
    ("stats", "--no-trunc", "--format json has the whole ids"),
    ("rm", "--depend", "no container depends on another"),
    ("rm", "--volumes", NO_VOLUMES),
    ("restart", "--running", LIST_THEM),
    ("events", "--no-trunc", "--format json has the whole ids"),
    ("", "--ignore", "contd prune -f removes what has ended; a missing container is an error"),
    ("", "--cidfile", BY_CIDFILE),
    ("", "--latest", NAME_IT),
    ("", "--all", LIST_THEM),
    ("", "--filter", LIST_THEM),
];

/// The flags that are otherwise than with podman: the verb, the flag, how.
#[cfg(test)]
const DIFFERENT: &[(&str, &str, &str)] = &[
    (MAKES, "--hostname", "without -h, which is the help"),
    (MAKES, "--network", "`none`, or the name of a network namespace"),
    (MAKES, "--pidfile", "of its first run; written by this command, which has to wait for it"),
    (MAKES, "--restart", "the daemon's restart is no reason to start anything: containers run on"),
    (MAKES, "--security-opt", "seccomp and no-new-privileges; labels and AppArmor profiles are refused"),
    (MAKES, "--sysctl", "those of its own namespaces only"),
    (MAKES, "--volume", "no named volumes; `ro` reaches all that is mounted below"),
    ("exec", "--privileged", "is refused: a process has no more rights than its container"),
    ("logs", "--names", "with several containers, each line has the name of its own; -n is --tail, as for docker"),
    ("inspect", "--format", "fields of the JSON by their paths, no templates"),
    ("ps", "--format", "`table` or `json`, no templates"),
    ("stats", "--format", "`table` or `json`, no templates"),
    ("events", "--format", "`table` or `json`, no templates"),
    ("version", "--format", "`table` or `json`, no templates"),
    ("wait", "--condition", "states of contd, and `removed`"),
];

/// Returns the reason why a verb has not a flag.
pub(crate) fn why_no_flag(verb: &str, flag: &str) -> Option<&'static str> {
    let is_of = |verbs: &str| verbs.is_empty() || verbs.split(", ").any(|one| one == verb);
    REFUSED_FLAGS.iter().find(|(verbs, name, _)| *name == flag && is_of(verbs)).map(|(_, _, why)| *why)
}

/// Returns the reason why there is not a verb.
pub(crate) fn why_no_verb(verb: &str) -> Option<&'static str> {
    REFUSED_VERBS.iter().find(|(name, _)| *name == verb).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;
    use std::fmt::Write as _;

    /// A flag and its short form.
    type Flag = (&'static str, Option<&'static str>);

    /// podman's verbs, and their flags.
    fn podman() -> Vec<(&'static str, Option<Flag>)> {
        let lines = include_str!("../../tests/data/podman.txt").lines().filter(|line| !line.starts_with('#'));
        let parse = |line: &'static str| {
            let mut words = line.split(' ');
            let verb = words.next().expect("a verb");
            (verb, words.next().map(|flag| (flag, words.next())))
        };
        lines.map(parse).collect()
    }

    fn different(verb: &str, flag: &str) -> Option<&'static str> {
        let is_it = |(verbs, name, _): &&(&str, &str, &str)| *name == flag && verbs.split(", ").any(|one| one == verb);
        DIFFERENT.iter().find(is_it).map(|(_, _, how)| *how)
    }

    /// Returns contd's answer to one of podman's flags.
    fn answer(root: &clap::Command, verb: &str, flag: &str, short: Option<&str>) -> String {
        let ours = root.find_subcommand(verb).expect("a verb");
        let found = ours.get_arguments().find(|arg| {
            let names = arg.get_long_and_visible_aliases().unwrap_or_default();
            names.iter().any(|name| flag.strip_prefix("--") == Some(name))
        });
        let how = different(verb, flag);
        let Some(arg) = found.filter(|arg| !arg.is_hide_set()) else {
            assert!(!(why_no_flag(verb, flag).is_some() && how.is_some()), "{verb} {flag} is refused and different");
            let why = why_no_flag(verb, flag).or(how);
            return format!("no: {}", why.unwrap_or_else(|| panic!("nothing says why {verb} has no {flag}")));
        };
        let shorts = arg.get_short_and_visible_aliases().unwrap_or_default();
        let has_short = short.is_none_or(|short| shorts.iter().any(|one| short.ends_with(*one)));
        match how {
            Some(how) => format!("yes; {how}"),
            None if has_short => "yes".to_owned(),
            None => format!("yes, without {}", short.unwrap_or_default()),
        }
    }

    /// The content of `docs/cli.md`.
    fn page() -> String {
        let mut root = Cli::grammar();
        root.build();
        let mut text = String::from(
            "# contd beside podman\n\n\
             Every verb of podman 4.3 (Debian 12), and every flag of those that contd has, too. Made by `cli::others` from the grammar and the\n\
             reasons in `src/cli/others.rs`, which wrong usage says as well; `UPDATE=1 cargo test -p contd --bin contd others` writes it anew.\n\
             `contd VERB --help` has all of contd's own.\n\n## Verbs\n\n| verb | |\n|---|---|\n",
        );
        let all = podman();
        let verbs: Vec<&str> = all.iter().filter(|(_, flag)| flag.is_none()).map(|(verb, _)| *verb).collect();
        for verb in &verbs {
            let said = match root.find_subcommand(verb) {
                Some(_) => "yes".to_owned(),
                None => format!(
                    "no: {}",
                    why_no_verb(verb).unwrap_or_else(|| panic!("nothing says why there is no {verb}"))
                ),
            };
            writeln!(text, "| `{verb}` | {said} |").expect("a string");
        }
        for verb in verbs.iter().filter(|verb| root.find_subcommand(verb).is_some()) {
            writeln!(text, "\n## {verb}\n\n| flag | |\n|---|---|").expect("a string");
            for (flag, short) in all.iter().filter(|(of, _)| of == verb).filter_map(|(_, flag)| *flag) {
                let name = short.map_or_else(|| flag.to_owned(), |short| format!("{short}, {flag}"));
                writeln!(text, "| `{name}` | {} |", answer(&root, verb, flag, short)).expect("a string");
            }
        }
        text
    }

    #[test]
    fn the_table_of_docs_is_what_the_grammar_and_the_reasons_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
        let page = page();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &page).expect("written");
        }
        assert_eq!(std::fs::read_to_string(path).expect("docs/cli.md"), page);
    }

    #[test]
    fn what_is_refused_is_not_there() {
        let mut root = Cli::grammar();
        root.build();
        for (verb, _) in REFUSED_VERBS {
            assert!(root.find_subcommand(verb).is_none(), "{verb}");
        }
        for (verbs, flag, _) in REFUSED_FLAGS.iter().filter(|(verbs, ..)| !verbs.is_empty()) {
            for verb in verbs.split(", ") {
                let ours = root.find_subcommand(verb).expect("a verb");
                assert!(!ours.get_arguments().any(|arg| arg.get_long() == flag.strip_prefix("--")), "{verb} {flag}");
            }
        }
    }
}
