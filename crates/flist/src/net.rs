//! Resolves names within a deadline, and restricts the addresses that a flist from the network may use.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::clock::Deadline;
use crate::url::ServerUrl;

/// The most addresses tried for one name: a hostile name server must not delay a connection for ever.
const MAX_ADDRESSES: usize = 8;

/// The hosts that may be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NetRoutes {
    /// Any host: for a flist that the operator made or named by a local path.
    #[default]
    Any,
    /// Any host but this machine and link-local addresses: for flists from the network, which could otherwise make the node
    /// call services on loopback, or the metadata service of a cloud. Private networks stay allowed, for local hubs.
    NotThisMachine,
    /// Public addresses and these servers (`host:port`, an IPv6 host in brackets): for a limited user. A server given by name
    /// may be on a private network. A server on this machine must be given by its address, or as `localhost`.
    PublicAnd(Arc<[String]>),
}

impl NetRoutes {
    /// Returns the policy for the routes of a flist from this URL: this machine is allowed only if the flist came from it.
    pub(crate) fn for_flist(url: &str) -> Self {
        let host = ServerUrl::parse(url).map(|parts| parts.host.to_ascii_lowercase()).unwrap_or_default();
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if here { Self::Any } else { Self::NotThisMachine }
    }

    /// Tells whether an address of the server `host:port` may be connected to.
    pub(crate) fn allow(&self, server: &str, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::NotThisMachine => is_beyond(address),
            Self::PublicAnd(servers) => {
                let server = server.to_ascii_lowercase();
                if !servers.contains(&server) {
                    return is_beyond(address) && !is_private(address);
                }
                let (host, _port) = server.rsplit_once(':').unwrap_or((&server, ""));
                let host = host.trim_start_matches('[').trim_end_matches(']');
                is_beyond(address) || host == "localhost" || host.parse::<IpAddr>().is_ok()
            }
        }
    }
}

fn is_beyond(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_beyond_v4(address),
        IpAddr::V6(address) => embedded_v4(address).map_or_else(|| is_beyond_v6(address), is_beyond_v4),
    }
}

fn is_private(address: IpAddr) -> bool {
    let is_private_v4 = |address: Ipv4Addr| {
        // Besides RFC 1918: 100.64.0.0/10 between providers and customers, 198.18.0.0/15 for network tests.
        let [first, second, ..] = address.octets();
        let is_shared = first == 100 && second & 0xc0 == 64;
        address.is_private() || is_shared || (first == 198 && second & 0xfe == 18)
    };
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => embedded_v4(address).map_or_else(|| address.is_unique_local(), is_private_v4),
    }
}

/// Returns the IPv4 address in a mapped, compatible, NAT64 or 6to4 address. `::` and `::1` contain none.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Some(Ipv4Addr::new(a, b, c, d))
        }
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        _ => address.to_ipv4(),
    }
}

fn is_beyond_v4(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    // 0.0.0.0/8 is "this host" on Linux.
    let here = address.is_loopback() || first == 0 || address.is_link_local();
    !(here || address.is_broadcast() || address.is_multicast())
}

fn is_beyond_v6(address: Ipv6Addr) -> bool {
    // fd00:ec2::254 is the metadata service of a cloud, in an otherwise private range.
    let metadata = address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let here = address.is_loopback() || address.is_unspecified() || address.is_unicast_link_local();
    !(here || metadata || address.is_multicast())
}

/// Connects to `host:port` before the deadline. The remaining time is divided among the addresses.
pub(crate) fn dial(target: &str, policy: &NetRoutes, deadline: Deadline) -> io::Result<TcpStream> {
    let all = resolve(target, deadline)?;
    let addresses =
        all.iter().filter(|address| policy.allow(target, address.ip())).take(MAX_ADDRESSES).collect::<Vec<_>>();
    if addresses.is_empty() && !all.is_empty() {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for (position, address) in addresses.iter().enumerate() {
        let others = u32::try_from(addresses.len() - position).unwrap_or(u32::MAX);
        let share = deadline.remaining() / others;
        if share.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Resolves a name. The system's call has no timeout, so it runs on a thread that may be left behind.
fn resolve(target: &str, deadline: Deadline) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = target.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    let (sender, answer) = mpsc::sync_channel(1);
    let name = target.to_owned();
    let look_up = move || {
        let addresses = name.to_socket_addrs().map(|found| found.take(2 * MAX_ADDRESSES).collect::<Vec<_>>());
        // The receiver is gone after the deadline.
        let _late = sender.send(addresses);
    };
    thread::Builder::new().name("contd-resolve".to_owned()).spawn(look_up)?;
    match answer.recv_timeout(deadline.remaining().max(Duration::from_millis(1))) {
        Ok(Ok(addresses)) if addresses.is_empty() => Err(io::Error::from(io::ErrorKind::NotFound)),
        // The error of the resolver has no kind that distinguishes it.
        Ok(Err(_unknown)) => Err(io::Error::from(io::ErrorKind::NotFound)),
        Ok(addresses) => addresses,
        Err(_late) => Err(io::Error::from(io::ErrorKind::TimedOut)),
    }
}

/// Resolves names for the HTTP client, redirects included, and drops addresses that the policy forbids.
#[derive(Debug)]
pub(crate) struct PolicyResolver(pub(crate) NetRoutes);

impl Resolver for PolicyResolver {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        // The operator's proxy may be on this machine; it applies its own policy to its connections.
        if config.proxy().is_some() {
            return Ok(found);
        }
        let mut allowed = self.empty();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let server = format!("{}:{port}", uri.host().unwrap_or_default());
        found.iter().filter(|address| self.0.allow(&server, address.ip())).for_each(|address| allowed.push(*address));
        if allowed.is_empty() { Err(ureq::Error::Io(io::ErrorKind::PermissionDenied.into())) } else { Ok(allowed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flist_from_the_network_reaches_private_networks_but_not_this_machine() {
        let allowed = |text: &str| NetRoutes::NotThisMachine.allow("h:80", text.parse().unwrap());
        for text in ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2a01::1", "200:1::1"]
        {
            assert!(allowed(text), "{text}");
        }
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            assert!(!allowed(text), "{text}");
            assert!(NetRoutes::Any.allow("h:80", text.parse().unwrap()));
        }
    }

    #[test]
    fn a_limited_caller_reaches_public_addresses_and_the_servers_that_are_named() {
        let servers = ["hub.example:443", "10.0.0.5:80", "localhost:8080", "127.0.0.1:81", "[::1]:82"];
        let policy = NetRoutes::PublicAnd(servers.iter().map(|server| (*server).to_owned()).collect());
        let allowed = |server: &str, text: &str| policy.allow(server, text.parse().unwrap());
        for (server, address) in [
            ("any.example:80", "8.8.8.8"),
            ("any.example:80", "2a01::1"),
            ("HUB.example:443", "10.1.2.3"),
            ("10.0.0.5:80", "10.0.0.5"),
            ("localhost:8080", "127.0.0.1"),
            ("127.0.0.1:81", "127.0.0.1"),
            ("[::1]:82", "::1"),
        ] {
            assert!(allowed(server, address), "{server} {address}");
        }
        for (server, address) in [
            ("any.example:80", "10.1.2.3"),
            ("any.example:80", "192.168.0.1"),
            ("any.example:80", "100.64.0.1"),
            ("any.example:80", "fd00::1"),
            ("any.example:80", "::ffff:10.0.0.1"),
            ("any.example:80", "127.0.0.1"),
            ("any.example:80", "169.254.169.254"),
            // The owner of the name may point it anywhere; the name does not give access to this machine.
            ("hub.example:443", "127.0.0.1"),
            ("hub.example:443", "169.254.169.254"),
            ("hub.example:444", "10.1.2.3"),
            ("10.0.0.5:81", "10.0.0.5"),
            ("localhost:9", "127.0.0.1"),
            ("127.0.0.1:80", "127.0.0.1"),
        ] {
            assert!(!allowed(server, address), "{server} {address}");
        }
    }

    #[test]
    fn a_name_without_an_address_is_an_error_in_time() {
        let error =
            dial("no-such-host.invalid:1", &NetRoutes::Any, Deadline::after(Duration::from_secs(5))).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::TimedOut), "{error:?}");
        let error =
            dial("127.0.0.1:1", &NetRoutes::NotThisMachine, Deadline::after(Duration::from_secs(5))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
