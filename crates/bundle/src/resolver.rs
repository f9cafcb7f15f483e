//! Chooses what a container's `/etc/resolv.conf` says: its caller's words, else those for its network, else the host's, of which
//! a container in another network reaches only what is not on the host's own loopback.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::PathBuf;

use contd_types::{ContainerSpec, NameService, Network};

/// The most bytes that are read of a file of the host.
const MAX_BYTES: u64 = 64 * 1024;

/// The places on the host where a resolver is configured.
#[derive(Debug, Clone)]
pub(crate) struct HostResolver {
    /// The host's own, the best first: with systemd's stub in `/etc/resolv.conf` the servers behind it are in another.
    own: Vec<PathBuf>,
    /// The directory with those of named networks, in the form of `ip netns` (ip-netns(8)).
    networks: PathBuf,
}

impl Default for HostResolver {
    fn default() -> Self {
        let own = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"].map(PathBuf::from);
        Self { own: own.to_vec(), networks: "/etc/netns".into() }
    }
}

impl HostResolver {
    /// Returns the text for a container; `None` leaves its image's.
    ///
    /// # Errors
    /// The path of the host's file that cannot be read, and why.
    pub(crate) fn text(&self, spec: &ContainerSpec) -> Result<Option<String>, (PathBuf, io::Error)> {
        let names = &spec.names;
        let found = match &spec.network {
            Network::Named(name) => match read(self.networks.join(name.as_str()).join("resolv.conf"))? {
                Some(text) => Some(text),
                None => self.of_host()?,
            },
            // It reaches nobody whom it could ask.
            Network::Private => None,
        };
        Ok(if names.has_resolver() { Some(merged(names, found.as_deref().unwrap_or_default())) } else { found })
    }

    /// Returns the first of the host's own that has a server which is not on its loopback.
    fn of_host(&self) -> Result<Option<String>, (PathBuf, io::Error)> {
        for path in &self.own {
            let text = read(path.clone())?.map(|text| without_loopback(&text));
            if let Some(text) = text.filter(|text| text.lines().any(|line| server(line).is_some())) {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }
}

/// Reads a file; `None` when there is none.
fn read(path: PathBuf) -> Result<Option<String>, (PathBuf, io::Error)> {
    let read = File::open(&path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map(|_len| bytes)
    });
    match read {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err((path, error)),
    }
}

/// Returns the server of a line, without its zone.
fn server(line: &str) -> Option<&str> {
    line.trim().strip_prefix("nameserver")?.split_whitespace().next()
}

fn without_loopback(text: &str) -> String {
    let is_there = |line: &&str| {
        let address = server(line).and_then(|server| server.split('%').next()?.parse::<IpAddr>().ok());
        !address.is_some_and(|address| address.is_loopback())
    };
    text.lines().filter(is_there).map(|line| format!("{line}\n")).collect()
}

/// Puts the caller's words in the place of those of the same kind.
fn merged(names: &NameService, text: &str) -> String {
    let kept = |line: &&str| match line.split_whitespace().next() {
        Some("nameserver") => names.servers.is_empty(),
        Some("search" | "domain") => names.search.is_empty(),
        Some("options") => names.options.is_empty(),
        _ => false,
    };
    let mut lines: Vec<String> = names.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let domains: Vec<&str> = names.domains().collect();
    if !domains.is_empty() {
        lines.push(format!("search {}\n", domains.join(" ")));
    }
    if !names.options.is_empty() {
        lines.push(format!("options {}\n", names.options.join(" ")));
    }
    lines.extend(text.lines().filter(kept).map(|line| format!("{line}\n")));
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::{ContainerName, NetnsName};
    use std::fs;
    use std::path::Path;

    fn host(dir: &Path) -> HostResolver {
        HostResolver { own: vec![dir.join("first"), dir.join("second")], networks: dir.join("netns") }
    }

    fn spec(network: Option<&str>) -> ContainerSpec {
        let mut spec = ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl");
        spec.network = network.map_or(Network::Private, |name| Network::Named(NetnsName::new(name).expect("valid")));
        spec
    }

    #[test]
    fn a_named_network_has_its_own_or_what_of_the_hosts_can_be_reached_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        let text = |network| host.text(&spec(network)).expect("readable");
        assert_eq!(text(Some("blue")), None, "the host has none");
        fs::write(dir.path().join("first"), "nameserver 127.0.0.53\nnameserver ::1\nsearch a\n").expect("written");
        assert_eq!(text(Some("blue")), None, "nothing of it can be reached");
        fs::write(dir.path().join("second"), "# x\nnameserver 127.0.0.1\nnameserver 192.0.2.1\nsearch a\n")
            .expect("written");
        assert_eq!(text(Some("blue")).as_deref(), Some("# x\nnameserver 192.0.2.1\nsearch a\n"));
        fs::create_dir_all(dir.path().join("netns/blue")).expect("made");
        fs::write(dir.path().join("netns/blue/resolv.conf"), "nameserver 127.0.0.1\n").expect("written");
        assert_eq!(text(Some("blue")).as_deref(), Some("nameserver 127.0.0.1\n"), "it was written for this network");
        assert_eq!(text(None), None);
        fs::create_dir(dir.path().join("netns/red"))
            .and_then(|()| fs::create_dir(dir.path().join("netns/red/resolv.conf")))
            .expect("made");
        let failed = host.text(&spec(Some("red"))).expect_err("a directory");
        assert!(failed.0.ends_with("netns/red/resolv.conf"), "{failed:?}");
    }

    #[test]
    fn the_callers_words_stand_in_the_place_of_those_of_their_kind() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("first"), "nameserver 192.0.2.1\nsearch a\noptions edns0\n").expect("written");
        let mut spec = spec(Some("blue"));
        spec.names.servers = vec!["192.0.2.9".parse().expect("an address")];
        spec.names.search = vec![".".to_owned()];
        let of = |spec: &ContainerSpec| host(dir.path()).text(spec).expect("readable").expect("a text");
        assert_eq!(of(&spec), "nameserver 192.0.2.9\noptions edns0\n");
        (spec.names.search, spec.names.options) = (vec!["x".to_owned(), "y".to_owned()], vec!["ndots:2".to_owned()]);
        assert_eq!(of(&spec), "nameserver 192.0.2.9\nsearch x y\noptions ndots:2\n");
        spec.network = Network::Private;
        spec.names.servers.clear();
        assert_eq!(of(&spec), "search x y\noptions ndots:2\n");
    }
}
