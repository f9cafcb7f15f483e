//! The API side of the daemon on real sockets and fake boundaries: who is let in, how much each may have, and what that costs.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use contd_actors::{NodeConfig, NodeRuntime, Parts, Runtimes};
use contd_bundle::FakeBundles;
use contd_durable::RealFs;
use contd_protocol::api::{Call, Cancel, MakeKind, MakeRequest, Reply, Request, Response, RunRequest, Text, VERSIONS};
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::{Frame, FrameReader, Hello, HelloReply, Kind, MAX_API_BODY_BYTES};
use contd_rootfs::fake::{FakeRootfs, Outcome};
use contd_shim_client::fake::FakeShimClient;
use contd_store::{EventJournal, FakeStore};
use contd_types::{ApiError, ContainerName, ContainerSpec, Entrypoint, ErrorKind, NamespaceId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::daemon::access::Peer;
use crate::daemon::calls::{ApiSettings, Backend};
use crate::daemon::connection;
use crate::daemon::places::Kind as PlaceKind;
use contd_node::{Access, Config, FlistPlaces, Gate, Limits, Rules};

/// A user who is not us.
const USER: u32 = 64_001;
/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(300);

struct World {
    backend: Arc<Backend>,
    config: Config,
    rootfs: FakeRootfs,
    _dir: tempfile::TempDir,
}

impl World {
    fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        let flists = vec!["/".to_owned().try_into().expect("a rule")];
        let rule = Access { uid: Some(USER), flists, ..Access::default() };
        let mut config = Config::default();
        (config.limits, config.access) = (limits, vec![rule]);
        let gate = Arc::new(Gate::new(Rules::of(&config)));
        let settings = watch::channel(ApiSettings::of(gate.rules(), &config)).0;
        let runtime = Runtimes::new(NodeRuntime::Oci { binary: "/runc".into(), root: "/run/runc".into() });
        let mut node = NodeConfig::new("/nonexistent".into(), dir.path().join("log"), "boot".into(), runtime);
        node.arbiters = 0;
        let rootfs = FakeRootfs::new();
        let journal = EventJournal::open(Arc::new(RealFs), dir.path().join("events"), 1 << 20).expect("a journal");
        let (store, shims, bundles) = (FakeStore::new(), FakeShimClient::new(), FakeBundles::new());
        let (store, shims, bundles) = (Arc::new(store), Arc::new(shims), Arc::new(bundles));
        let mut parts = Parts::new(store, shims, Arc::new(rootfs.clone()), bundles, journal);
        parts.judge = gate;
        let backend = Arc::new(Backend {
            supervisor: contd_actors::start(node, parts),
            flists: FlistPlaces::of(&config),
            settings,
            own_uid: 0,
            places: Arc::default(),
            agent: "test".to_owned(),
            started_at: contd_types::Timestamp(0),
            runtime: "fake".to_owned(),
            inputs: crate::daemon::exec_stream::Inputs::default(),
            leaving: watch::channel(None).0,
        });
        Self { backend, config, rootfs, _dir: dir }
    }

    /// Connects as a user; what the kernel would say of the peer is said here.
    fn connect_as(&self, uid: u32) -> Result<Caller, HelloReply> {
        let (ours, theirs) = StdStream::pair().expect("a pair of sockets");
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).expect("non-blocking");
        }
        let stream = interprocess::local_socket::tokio::Stream::from(
            interprocess::os::unix::uds_local_socket::tokio::Stream::try_from(OwnedFd::from(theirs)).expect("a stream"),
        );
        let served =
            connection::admit_as(stream, &self.backend, Peer { uid, gid: uid, groups: Arc::default(), pid: 1 });
        let mut caller = Caller::new(UnixStream::from_std(ours).expect("a stream"));
        match served {
            Some(connection) => {
                drop(tokio::task::spawn_local(connection));
                Ok(caller)
            }
            None => Err(caller.refusal()),
        }
    }

    async fn greet_as(&self, uid: u32) -> Caller {
        let mut caller = self.connect_as(uid).expect("let in");
        let hello = Hello { versions: VERSIONS, agent: "test".into() };
        caller.send(&Frame::new(HELLO_VERSION, Kind::Hello, &hello).expect("small")).await;
        let frame = caller.frame().await.expect("an answer");
        let reply: HelloReply = contd_protocol::decode(&frame.body).expect("a hello");
        assert!(matches!(reply, HelloReply::Welcome { .. }), "{reply:?}");
        caller
    }
}

struct Caller {
    stream: UnixStream,
    frames: FrameReader,
}

impl Caller {
    fn new(stream: UnixStream) -> Self {
        Self { stream, frames: FrameReader::new(MAX_API_BODY_BYTES) }
    }

    async fn send(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.to_bytes()).await.expect("written");
    }

    async fn call(&mut self, id: u64, request: Request) {
        let call = Call { id, request: request.for_version(VERSIONS.max).expect("JSON") };
        self.send(&Frame::new(VERSIONS.max, Kind::Call, &call).expect("small")).await;
    }

    /// Reads the next frame; `None` at the end.
    async fn frame(&mut self) -> Option<Frame> {
        let mut buffer = [0u8; 8192];
        loop {
            if let Some(frame) = self.frames.next_frame().expect("a frame") {
                return Some(frame);
            }
            let read = tokio::time::timeout(SOON, self.stream.read(&mut buffer)).await.expect("something in time");
            match read.expect("read") {
                0 => return None,
                count => self.frames.push(&buffer[..count]),
            }
        }
    }

    async fn reply(&mut self) -> (u64, Result<Response, ApiError>) {
        loop {
            let frame = self.frame().await.expect("a reply");
            if frame.kind == Kind::Reply {
                let Reply { id, result } = contd_protocol::decode::<Reply>(&frame.body).expect("a reply");
                return (id, result.map(|response| response.plain().expect("its own")));
            }
        }
    }

    /// Reads what was said without waiting.
    fn refusal(&mut self) -> HelloReply {
        let mut buffer = [0u8; 8192];
        let stream = std::mem::replace(&mut self.stream, UnixStream::pair().expect("a pair").0);
        let mut stream = stream.into_std().expect("a stream");
        let count = std::io::Read::read(&mut stream, &mut buffer).expect("the refusal is there");
        self.frames.push(&buffer[..count]);
        let frame = self.frames.next_frame().expect("a frame").expect("a whole one");
        assert_eq!(std::io::Read::read(&mut stream, &mut buffer).expect("read"), 0, "not hung up on");
        contd_protocol::decode(&frame.body).expect("a hello")
    }
}

fn in_system(test: impl AsyncFnOnce()) {
    let runtime = contd_actors::runtime().expect("a runtime");
    actix::System::with_tokio_rt(|| runtime).block_on(test());
}

fn events() -> Request {
    Request::Events { from: None, namespace: None }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    tokio::time::timeout(SOON, async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_elapsed| panic!("waited in vain until {what}"));
}

#[test]
fn whatever_a_user_sends_its_calls_and_connections_stay_within_its_limits() {
    in_system(async || {
        let limits = Limits {
            connections: 64,
            connections_for_root: 8,
            connections_per_user: 16,
            calls_per_user: 8,
            followers_per_user: 24,
            ..Limits::default()
        };
        let world = World::with(limits.clone());
        let places = Arc::clone(&world.backend.places);
        let mut callers = Vec::new();
        loop {
            match world.connect_as(USER) {
                Ok(_) if callers.len() > limits.connections_per_user => panic!("too many are let in"),
                Ok(caller) => callers.push(caller),
                Err(refusal) => {
                    let HelloReply::Refused(refusal) = refusal else { panic!("{refusal:?}") };
                    assert!(refusal.to_string().contains("limits.connections_per_user"), "{refusal}");
                    break;
                }
            }
        }
        assert_eq!(callers.len(), limits.connections_per_user);
        drop(callers);
        until("they are gone", || places.of(USER, PlaceKind::Connection) == 0).await;
        // Each floods with as many calls as a connection may have, and does not read.
        let mut callers = Vec::new();
        for _ in 0..limits.connections_per_user {
            let mut caller = world.greet_as(USER).await;
            for id in 0..256 {
                caller.call(id, events()).await;
            }
            callers.push(caller);
            assert!(places.of(USER, PlaceKind::Follower) <= limits.followers_per_user);
        }
        until("as many follow as may", || places.of(USER, PlaceKind::Follower) == limits.followers_per_user).await;
        // Root is not touched by any of it.
        let mut root = world.greet_as(0).await;
        for id in 0..200 {
            root.call(id, events()).await;
        }
        root.call(1000, Request::Version).await;
        assert!(root.reply().await.1.is_ok());
        // A caller that reads is told the limit by its name.
        let busy = callers[15].reply().await.1.expect_err("beyond the limit");
        assert_eq!(busy.kind, ErrorKind::Busy);
        assert!(busy.message.contains("limits.followers_per_user"), "{busy}");
        drop(callers);
        until("all are free again", || places.of(USER, PlaceKind::Follower) == 0).await;
    });
}

#[test]
fn a_reply_that_is_not_read_counts_as_a_call_until_it_is_written() {
    in_system(async || {
        let world = World::with(Limits { calls_per_user: 3, ..Limits::default() });
        let places = Arc::clone(&world.backend.places);
        let mut caller = world.greet_as(USER).await;
        // It asks and does not read: the socket is full of replies in the end, and then the queue.
        let flood = tokio::task::spawn_local(async move {
            for id in 0.. {
                caller.call(id, Request::Version).await;
            }
        });
        let mut other = world.greet_as(USER).await;
        let mut asked = 0;
        let busy = loop {
            asked += 1;
            other.call(asked, Request::Version).await;
            assert!(places.of(USER, PlaceKind::Call) <= 3);
            if let Err(busy) = other.reply().await.1 {
                break busy;
            }
        };
        assert!(busy.message.contains("limits.calls_per_user"), "{busy}");
        flood.abort();
        until("its calls are over", || places.of(USER, PlaceKind::Call) == 0).await;
        other.call(0, Request::Version).await;
        assert!(other.reply().await.1.is_ok());
    });
}

#[test]
fn dry_runs_of_a_user_are_counted_apart() {
    in_system(async || {
        let world = World::with(Limits { dry_runs_per_user: 2, ..Limits::default() });
        let mut caller = world.greet_as(USER).await;
        world.rootfs.script_prepare([Outcome::Hang, Outcome::Hang]);
        for id in 1..=3 {
            let spec = ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl");
            let namespace = NamespaceId::new("one").expect("valid");
            let request = RunRequest { namespace, spec, idempotency_key: None, is_attached: false };
            caller.call(id, Request::DryRun(Box::new(request))).await;
        }
        let (id, answer) = caller.reply().await;
        let busy = answer.expect_err("beyond the limit");
        assert_eq!((id, busy.kind), (3, ErrorKind::Busy));
        assert!(busy.message.contains("limits.dry_runs_per_user"), "{busy}");
        caller.call(4, Request::ListNamespaces).await;
        assert!(caller.reply().await.1.is_ok());
        until("both hang", || world.rootfs.hanging() == 2).await;
        world.rootfs.let_go();
        let ends = [caller.reply().await.0, caller.reply().await.0];
        assert!(ends.contains(&1) && ends.contains(&2), "{ends:?}");
    });
}

#[test]
fn a_caller_of_a_later_release_is_told_what_of_its_spec_is_not_known_here() {
    in_system(async || {
        let world = World::with(Limits::default());
        let mut caller = world.greet_as(0).await;
        let spec = ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl");
        let mut value = serde_json::to_value(spec).expect("JSON");
        value["later"] = serde_json::json!({ "deep": true });
        let text = contd_protocol::encode(&Text::new(&value).expect("JSON")).expect("small");
        let spec = contd_protocol::decode(&text).expect("the same text");
        let namespace = NamespaceId::new("one").expect("valid");
        let make = MakeRequest { kind: MakeKind::Run, namespace, spec, idempotency_key: None, is_attached: false };
        caller.call(1, Request::Make(Box::new(make))).await;
        let error = caller.reply().await.1.expect_err("not known");
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
        assert!(error.message.ends_with("not known here: later") && error.hint.is_some(), "{error:?}");
        // Only this call was refused.
        caller.call(2, Request::Version).await;
        assert!(caller.reply().await.1.is_ok());
    });
}

#[test]
fn other_rules_count_from_the_next_call_of_an_open_connection_on() {
    in_system(async || {
        let world = World::with(Limits::default());
        let mut caller = world.greet_as(USER).await;
        caller.call(1, Request::ListNamespaces).await;
        assert!(caller.reply().await.1.is_ok());
        let set = |access| {
            let mut config = world.config.clone();
            config.access = access;
            world.backend.settings.send_replace(ApiSettings::of(Arc::new(Rules::of(&config)), &config));
        };
        set(Vec::new());
        caller.call(2, Request::ListNamespaces).await;
        let refused = caller.reply().await.1.expect_err("no rule any more");
        assert_eq!(refused.kind, ErrorKind::PermissionDenied);
        assert!(refused.hint.is_some());
        set(vec![Access { uid: Some(USER), max_followers: Some(0), ..Access::default() }]);
        caller.call(3, Request::ListNamespaces).await;
        assert!(caller.reply().await.1.is_ok());
        caller.call(4, events()).await;
        assert_eq!(caller.reply().await.1.expect_err("no followers").kind, ErrorKind::Busy);
    });
}

#[test]
fn who_is_idle_is_hung_up_on_and_who_follows_is_not() {
    in_system(async || {
        let world = World::with(Limits { idle_timeout_s: 1, ..Limits::default() });
        let (mut idle, mut follower) = (world.greet_as(USER).await, world.greet_as(USER).await);
        follower.call(1, events()).await;
        idle.call(1, Request::Version).await;
        assert!(idle.reply().await.1.is_ok());
        assert!(idle.frame().await.is_none(), "something is said to who is idle");
        follower.call(2, Request::Version).await;
        assert_eq!(follower.reply().await.0, 2);
        until("its place is free", || world.backend.places.of(USER, PlaceKind::Connection) == 1).await;
    });
}

#[test]
fn who_says_no_hello_is_counted_and_who_may_not_come_in_at_all_too() {
    in_system(async || {
        let world = World::with(Limits { connections_per_user: 2, ..Limits::default() });
        let stranger = USER + 1;
        let silent = [world.connect_as(stranger), world.connect_as(stranger)];
        assert!(silent.iter().all(Result::is_ok));
        assert!(world.connect_as(stranger).is_err());
        assert!(world.connect_as(USER).is_ok());
    });
}

/// A run that its caller gives up while its root is being prepared, with a key or without one, and what is left of it.
async fn give_up_a_run(world: &World, key: Option<&str>) -> (Result<Response, ApiError>, usize) {
    world.rootfs.script_prepare([Outcome::Hang]);
    let mut caller = world.greet_as(0).await;
    let mut spec = ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl");
    spec.entrypoint = Some(Entrypoint::Args(vec!["/bin/true".into()]));
    let namespace = NamespaceId::new("a").expect("valid");
    let key = key.map(str::to_owned);
    let run = RunRequest { namespace: namespace.clone(), spec, idempotency_key: key, is_attached: true };
    caller.call(1, Request::Run(Box::new(run))).await;
    until("its root is being prepared", || world.rootfs.hanging() == 1).await;
    caller.send(&Frame::new(VERSIONS.max, Kind::Cancel, &Cancel { id: 1 }).expect("small")).await;
    // Frames are taken in their order: once this is answered, the other was heard.
    caller.call(2, Request::Version).await;
    assert_eq!(caller.reply().await.0, 2);
    world.rootfs.let_go();
    let (id, result) = caller.reply().await;
    assert_eq!(id, 1);
    caller.call(3, Request::List { namespace: Some(namespace), after: None, limit: 9 }).await;
    let Ok(Response::Page { containers, .. }) = caller.reply().await.1 else { panic!("no page") };
    (result, containers.len())
}

#[test]
fn a_run_that_is_given_up_before_its_caller_knew_of_a_container_leaves_none() {
    in_system(async || {
        let world = World::with(Limits::default());
        let (result, left) = give_up_a_run(&world, None).await;
        let error = result.expect_err("it was given up");
        assert!(error.kind == ErrorKind::Conflict && error.message.contains("given up by its caller"), "{error:?}");
        assert_eq!(left, 0);
        // Where others may have joined the run, it goes on.
        let (result, left) = give_up_a_run(&world, Some("k")).await;
        assert!(matches!(result, Ok(Response::Created { .. })), "{result:?}");
        assert_eq!(left, 1);
    });
}
