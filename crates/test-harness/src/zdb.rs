//! A server that behaves as a 0-db (`SELECT` by name and password), with faults on request.
#![allow(unreachable_pub, dead_code, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The behavior of the server on a GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers.
    None,
    /// Sends half of the value and closes.
    DiesMidReply,
    /// Sends bytes that are not the protocol.
    Garbage,
    /// Announces a terabyte, and sends without end.
    Huge,
    /// Announces a terabyte of values, and sends without end.
    HugeArray,
    /// Sends a byte now and then.
    Trickles,
    /// Sends no answer.
    Silent,
    /// Answers, and then closes the connection.
    ClosesAfterwards,
    /// Answers with this error.
    Says(&'static str),
    /// Waits a little before it answers.
    Slow,
}

/// A namespace of the server.
#[derive(Default)]
pub struct Namespace {
    /// Needed to write and, unless it is public, to read.
    pub password: Option<&'static str>,
    /// Whether anyone may read.
    pub public: bool,
    /// Values by key.
    pub blocks: HashMap<Vec<u8>, Vec<u8>>,
}

/// The server's content, and what it has seen.
pub struct State {
    /// By name.
    pub namespaces: Mutex<HashMap<String, Namespace>>,
    /// The commands received in words, keys in hex, without values.
    pub commands: Mutex<Vec<String>>,
    /// How many connections were made.
    pub connections: AtomicUsize,
    /// How many were open at once, at most.
    pub most_at_once: AtomicUsize,
    at_once: AtomicUsize,
    gets: AtomicUsize,
    fault: Box<dyn Fn(usize) -> Fault + Send + Sync>,
}

/// A server for one test; it ends with the process.
pub struct ZdbServer {
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// Shared with its threads.
    pub state: Arc<State>,
}

impl ZdbServer {
    /// Starts a server with the namespaces `default`, `open`, `public` and `private`; the last two have password `p@ss/word`.
    pub fn start() -> Self {
        Self::faulty(|_| Fault::None)
    }

    /// Starts a server that gets the fault of the n-th GET (from 0) from `fault`.
    pub fn faulty(fault: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Self {
        Self::bind("127.0.0.1:0", fault).unwrap()
    }

    /// Listens at an address; each GET, by its number, may have a fault.
    pub fn bind(address: &str, fault: impl Fn(usize) -> Fault + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let protected = |public| Namespace { password: Some("p@ss/word"), public, ..Namespace::default() };
        let namespaces = HashMap::from([
            ("default".to_owned(), Namespace::default()),
            ("open".to_owned(), Namespace::default()),
            ("public".to_owned(), protected(true)),
            ("private".to_owned(), protected(false)),
        ]);
        let state = Arc::new(State {
            namespaces: Mutex::new(namespaces),
            commands: Mutex::default(),
            connections: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            fault: Box::new(fault),
        });
        let address = listener.local_addr()?.to_string();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let now = shared.at_once.fetch_add(1, Ordering::SeqCst) + 1;
                shared.most_at_once.fetch_max(now, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    // A client may disconnect at any time.
                    let _gone = serve(&stream, &shared);
                    shared.at_once.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { address, state })
    }

    /// The URL of a namespace.
    pub fn url(&self, userinfo: &str, namespace: &str) -> String {
        format!("zdb://{userinfo}{}{namespace}", self.address)
    }

    /// Returns the number of GETs received.
    pub fn gets(&self) -> usize {
        self.state.gets.load(Ordering::SeqCst)
    }

    /// How many blocks a namespace has.
    pub fn blocks(&self, namespace: &str) -> usize {
        self.state.namespaces.lock().unwrap()[namespace].blocks.len()
    }
}

fn read_command(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Vec<Vec<u8>>>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let count = line.trim().strip_prefix('*').unwrap().parse::<usize>().unwrap();
    let mut words = Vec::new();
    for _ in 0..count {
        line.clear();
        reader.read_line(&mut line)?;
        let len = line.trim().strip_prefix('$').unwrap().parse::<usize>().unwrap();
        let mut word = vec![0; len + 2];
        reader.read_exact(&mut word)?;
        assert_eq!(word.split_off(len), b"\r\n");
        words.push(word);
    }
    Ok(Some(words))
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn serve(mut stream: &TcpStream, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut selected, mut writable) = ("default".to_owned(), true);
    while let Some(words) = read_command(&mut reader)? {
        let text = |word: &Vec<u8>| String::from_utf8_lossy(word).into_owned();
        let name = text(&words[0]);
        let shown = match name.as_str() {
            "SELECT" => words.iter().map(text).collect::<Vec<_>>().join(" "),
            _ => name.clone(),
        };
        state.commands.lock().unwrap().push(shown);
        let mut namespaces = state.namespaces.lock().unwrap();
        let reply = match (name.as_str(), words.len()) {
            ("PING", 1) => b"+PONG\r\n".to_vec(),
            ("SELECT", 2 | 3) => match namespaces.get(&text(&words[1])) {
                None => b"-Namespace not found\r\n".to_vec(),
                Some(namespace) => {
                    let given = words.get(2).map(text);
                    let open = given.as_deref() == namespace.password || namespace.password.is_none();
                    if open || (given.is_none() && namespace.public) {
                        (selected, writable) = (text(&words[1]), open);
                        b"+OK\r\n".to_vec()
                    } else if given.is_some() {
                        b"-Access denied\r\n".to_vec()
                    } else {
                        b"-Namespace protected and private\r\n".to_vec()
                    }
                }
            },
            ("EXISTS", 2) => {
                let there = namespaces[&selected].blocks.contains_key(&words[1]);
                format!(":{}\r\n", u8::from(there)).into_bytes()
            }
            ("SET", 3) if !writable => b"-Namespace is in read-only mode\r\n".to_vec(),
            ("SET", 3) => {
                assert_eq!(words[1].len(), 32, "the key is the raw id");
                namespaces.get_mut(&selected).unwrap().blocks.insert(words[1].clone(), words[2].clone());
                bulk(&words[1])
            }
            ("GET", 2) => {
                let value = namespaces[&selected].blocks.get(&words[1]).map(|value| bulk(value));
                drop(namespaces);
                let value = value.unwrap_or_else(|| b"$-1\r\n".to_vec());
                let number = state.gets.fetch_add(1, Ordering::SeqCst);
                if !get(stream, &value, (state.fault)(number))? {
                    return Ok(());
                }
                continue;
            }
            _ => b"-Command not supported\r\n".to_vec(),
        };
        drop(namespaces);
        stream.write_all(&reply)?;
    }
    Ok(())
}

/// Sends until the client closes the connection.
fn endless(mut stream: &TcpStream, head: &[u8], piece: &[u8]) {
    let mut sent = stream.write_all(head);
    while sent.is_ok() {
        sent = stream.write_all(piece);
    }
}

/// Answers a GET. Returns whether the connection stays open.
fn get(mut stream: &TcpStream, value: &[u8], fault: Fault) -> std::io::Result<bool> {
    match fault {
        Fault::None => stream.write_all(value)?,
        Fault::Slow => {
            thread::sleep(Duration::from_millis(30));
            stream.write_all(value)?;
        }
        Fault::ClosesAfterwards => {
            stream.write_all(value)?;
            return Ok(false);
        }
        Fault::DiesMidReply => {
            stream.write_all(&value[..value.len() / 2])?;
            return Ok(false);
        }
        Fault::Garbage => stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?,
        Fault::Huge => endless(stream, b"$1099511627776\r\n", &[b'x'; 65536]),
        Fault::HugeArray => endless(stream, b"*1099511627776\r\n", &b"$1\r\nx\r\n".repeat(8192)),
        Fault::Trickles => {
            for byte in value {
                stream.write_all(&[*byte])?;
                thread::sleep(Duration::from_millis(500));
            }
        }
        Fault::Silent => {
            // Sends until the client closes the connection.
            let _gone = stream.read(&mut [0]);
            return Ok(false);
        }
        Fault::Says(text) => stream.write_all(format!("-{text}\r\n").as_bytes())?,
    }
    Ok(true)
}
