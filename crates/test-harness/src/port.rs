//! A port of this machine that nobody else gets.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

/// A port of 127.0.0.1 that is taken as long as this lives, and where nobody listens: a connection to it is refused, until a server that
/// is told this very port (and sets `SO_REUSEADDR`, as they all do) listens there.
#[derive(Debug)]
pub struct Port {
    /// Its number.
    pub number: u16,
    _held: OwnedFd,
}

impl Port {
    /// Takes a free one.
    #[track_caller]
    pub fn take() -> Self {
        let held = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
        sockopt::set_socket_reuseaddr(&held, true).expect("share the port with the server");
        bind(&held, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = SocketAddr::try_from(getsockname(&held).expect("its address")).expect("an internet address");
        Self { number: address.port(), _held: held }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_taken_port_refuses_connections_until_a_server_that_is_told_it_listens() {
        let port = Port::take();
        let address = (Ipv4Addr::LOCALHOST, port.number);
        let refused = TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let server = TcpListener::bind(address).expect("the server gets it");
        TcpStream::connect(address).expect("now somebody listens");
        drop(server);
    }
}
