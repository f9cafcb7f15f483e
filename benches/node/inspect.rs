//! Calls that are answered from memory: inspect and list, beside the floor, a bare echo over a Unix socket.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use contd_client::{Client, Deadline, ListFilter};

use crate::calls::{namespace, request, runtime, target};
use crate::harness::Node;

/// How long each contender is called.
const SPELL: Duration = Duration::from_secs(2);
/// The bytes of one echo: about those of an inspect's request; its reply is larger, which is part of the measurement.
const ECHO_BYTES: usize = 200;
/// The number of containers for the list.
const LISTED: usize = 50;

pub(crate) fn measure() {
    let node = Node::start();
    let flist = node.flist();
    let runtime_ = runtime();
    let long = Deadline::Usual;
    let client = runtime_.block_on(Client::connect(&node.socket(), Deadline::Usual)).expect("connect");
    for number in 0..LISTED {
        let run = client.run(request(&format!("c{number}"), flist.arg(), &["/bin/sleep", "1000"]), long, |_| ());
        runtime_.block_on(run).expect("run");
    }
    // Not below the node's root: the socket exists as long as this process, and the node's census would find it.
    let place = tempfile::tempdir().expect("make a directory");
    let socket = place.path().join("echo.sock");
    let listener = UnixListener::bind(&socket).expect("bind");
    std::thread::spawn(move || echo_server(&listener));
    for clients in [1, 16] {
        let echo = rate(clients, |until| echo_client(&socket, until));
        let inspect = rate(clients, |until| inspect_client(&node.socket(), until));
        println!(
            "{clients} clients: echo {echo:.0}/s, inspect {inspect:.0}/s, ratio {:.2}x (goal: at least 0.8x)",
            inspect / echo
        );
    }
    let list = rate(1, |until| list_client(&node.socket(), until));
    println!("list of {LISTED}: {list:.0}/s");
    for number in 0..LISTED {
        let delete = client.delete(target(&format!("c{number}")), true, Some(Duration::ZERO), long);
        runtime_.block_on(delete).expect("delete");
    }
    // The client's connection is a descriptor of the daemon.
    drop(client);
    drop(runtime_);
    node.finish();
}

/// Runs `client` on this many threads and returns the requests per second of all together.
fn rate(clients: usize, client: impl Fn(Instant) -> u64 + Sync) -> f64 {
    let begin = Instant::now();
    let until = begin + SPELL;
    let total: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(|| client(until))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a client")).sum()
    });
    total as f64 / begin.elapsed().as_secs_f64()
}

/// Echoes on one thread, as the daemon has one for its sockets.
fn echo_server(listener: &UnixListener) {
    let runtime = runtime();
    listener.set_nonblocking(true).expect("non-blocking");
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener.try_clone().expect("clone")).expect("listen");
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut buffer = [0; ECHO_BYTES];
                while stream.read_exact(&mut buffer).await.is_ok() {
                    if stream.write_all(&buffer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn echo_client(socket: &Path, until: Instant) -> u64 {
    let mut stream = UnixStream::connect(socket).expect("connect");
    let mut buffer = [7; ECHO_BYTES];
    let mut count = 0;
    while Instant::now() < until {
        stream.write_all(&buffer).expect("send");
        stream.read_exact(&mut buffer).expect("receive");
        count += 1;
    }
    count
}

fn inspect_client(socket: &Path, until: Instant) -> u64 {
    let runtime = runtime();
    let client = runtime.block_on(Client::connect(socket, Deadline::Usual)).expect("connect");
    let mut count = 0;
    runtime.block_on(async {
        while Instant::now() < until {
            client.inspect(target("c7"), Deadline::Usual).await.expect("inspect");
            count += 1;
        }
    });
    count
}

fn list_client(socket: &Path, until: Instant) -> u64 {
    let runtime = runtime();
    let client = runtime.block_on(Client::connect(socket, Deadline::Usual)).expect("connect");
    let mut count = 0;
    runtime.block_on(async {
        while Instant::now() < until {
            let all = client.list(ListFilter::Namespace(namespace()), Deadline::Usual).await.expect("list");
            assert_eq!(all.len(), LISTED);
            count += 1;
        }
    });
    count
}
