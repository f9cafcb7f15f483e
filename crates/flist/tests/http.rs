//! Stores on web servers: credentials, redirects, and timeouts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "measures real sockets and waits for real processes")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::packed::Tree;
use contd_flist::store::HttpStore;
use contd_flist::{BlockId, BlockStore, FlistErrorKind, StoreError};
use contd_test_harness::flist::{Answer, Server, chain};

const ID: BlockId = BlockId::new([0xab; 32]);

/// A web server that records whole requests, and answers each with `answer`.
struct Recorder {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (requests, answer) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(answer));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut request = String::new();
                    while reader.read_line(&mut request).unwrap_or(0) > 0 {
                        if request.ends_with("\r\n\r\n") {
                            seen.lock().unwrap().push(request.to_ascii_lowercase());
                            if stream.write_all(answer(&request).as_bytes()).is_err() {
                                return;
                            }
                            request.clear();
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    fn seen(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn full(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn credentials_of_the_url_are_sent_as_a_header_and_not_in_the_path() {
    let server = Recorder::start(|_| full("stored"));
    // Encoded by coreutils: printf 'me:p@ss/word' | base64
    let expected = "authorization: basic bwu6cebzcy93b3jk";
    for (userinfo, header) in [("me:p%40ss%2Fword@", Some(expected)), ("", None)] {
        let store = HttpStore::new(&format!("http://{userinfo}{}/deep//", server.address)).unwrap();
        assert_eq!(store.get(&ID).unwrap(), b"stored");
        let request = server.seen().pop().unwrap();
        assert!(request.starts_with(&format!("get /deep/ab/{} http/1.1", ID.to_hex())), "{request}");
        match header {
            Some(header) => assert!(request.contains(header), "{request}"),
            None => assert!(!request.contains("authorization"), "{request}"),
        }
        assert!(!request.contains("p%40ss") && !request.contains("p@ss"), "{request}");
    }
}

#[test]
fn a_redirect_to_another_host_takes_no_credentials_along() {
    let target = Recorder::start(|_| full("stored"));
    let there = format!("http://localhost:{}/elsewhere", target.address.rsplit(':').next().unwrap());
    let server = Recorder::start(move |_| moved(&there));
    let store = HttpStore::new(&format!("http://me:secret@{}/x", server.address)).unwrap();
    assert_eq!(store.get(&ID).unwrap(), b"stored");
    assert!(server.seen()[0].contains("authorization: basic"), "{:?}", server.seen());
    let followed = target.seen();
    assert!(followed.len() == 1 && !followed[0].contains("authorization"), "{followed:?}");
}

#[test]
fn redirects_that_go_round_end() {
    let server = Recorder::start(|_| moved("/round"));
    let error = HttpStore::new(&format!("http://{}/x", server.address)).unwrap().get(&ID).unwrap_err();
    assert!(matches!(error, StoreError::Exchange { .. }) && !error.is_transient(), "{}", chain(&error));
    assert_eq!(server.seen().len(), 4, "the request and three redirects");
}

#[test]
fn a_server_that_trickles_costs_bounded_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = HttpStore::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n").unwrap();
        // Never silent for five seconds.
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(500));
        }
    });
    let begun = Instant::now();
    let error = store.get(&ID).unwrap_err();
    let took = begun.elapsed();
    assert!(error.is_transient(), "{}", chain(&error));
    // Not before it was silent for five seconds, as it may seem on a busy machine; to its end it would take 40 minutes.
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(300), "{took:?}");
}

#[test]
fn a_dead_server_is_asked_a_few_times_for_a_thousand_reads() {
    let (tree, folder) = (Tree::new(), tempfile::tempdir().unwrap());
    let local = format!("dir://{}", folder.path().display());
    tree.pack(&[&local]).unwrap();
    let server = Server::start(|_, _| Answer::HangUp);
    tree.route(&[&server.url]);
    let content = tree.content();
    for n in 0..1000 {
        let error = tree.read_small(&content, n % 40).unwrap_err();
        assert_eq!(error.kind(), FlistErrorKind::Unreachable, "{}", chain(&error));
    }
    assert!((3..=12).contains(&server.requests()), "asked {} times", server.requests());
    // With another route all reads succeed, and the silent server is not asked more often.
    tree.route(&[&server.url, &local]);
    let asked = server.requests();
    tree.assert_reads_back();
    assert!((3..=8).contains(&(server.requests() - asked)), "asked {} times", server.requests() - asked);
}

#[test]
fn every_block_of_a_tree_comes_over_few_connections() {
    let (tree, folder) = (Tree::new(), tempfile::tempdir().unwrap());
    tree.pack(&[&format!("dir://{}", folder.path().display())]).unwrap();
    let server = Server::folder(folder.path().to_owned());
    tree.route(&[&format!("{}/", server.url)]);
    tree.assert_reads_back();
    assert_eq!(server.requests(), tree.distinct_blocks());
    assert_eq!(server.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}
