//! A hang is one namespace's own: roots that do not answer, as many as the limits allow, keep nobody else from anything.
//!
//! The clock of these tests stands still while anything hangs, so nothing here can be put down to a time-out.

use super::*;
use crate::admission::OWN_PLACES;
use crate::messages::{DryRunContainer, NodeStatus, Reconfigure};
use contd_rootfs::fake::Outcome as RootOutcome;
use contd_types::ErrorKind;

/// Threads of one namespace for each kind of work.
const THREADS: usize = 16;
const RELEASE_THREADS: usize = 32;

/// Lets everything go when a test ends, however it does: a runtime waits for its threads.
struct LetGo<'a>(&'a World);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.bundles.let_go();
        self.0.rootfs.let_go();
    }
}

async fn run_in(node: Addr<Supervisor>, namespace: &'static str, name: String) -> Result<ContainerId, ApiError> {
    ask_api(&node, RunContainer { namespace: ns(namespace), ..run_message(spec(&name)) }, LONG).await
}

async fn delete_in(node: &Addr<Supervisor>, namespace: &str, name: &str) -> Result<(), ApiError> {
    let target = Target { namespace: ns(namespace), ..target(name) };
    ask_api(node, DeleteContainer { target, force: true, timeout: Some(Duration::ZERO) }, LONG).await
}

async fn runs_in_flight(node: &Addr<Supervisor>) -> usize {
    usize::try_from(ask_api(node, NodeStatus, LONG).await.unwrap().runs_in_flight).unwrap()
}

/// Awaits something while threads hang. No time passes.
async fn at_once<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    for _ in 0..LOOKS {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::task::yield_now() => {}
        }
        tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
    }
    panic!("waited in vain while threads hang");
}

async fn at_once_until(mut holds: impl AsyncFnMut() -> bool) {
    at_once(async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Demands that everything works in a namespace whose roots are well.
async fn assert_works(node: &Addr<Supervisor>, name: &str) {
    at_once(async {
        run_in(node.clone(), "well", name.to_owned()).await.unwrap();
        // It comes as far as the fake root, in which there is nothing to be looked up.
        let dry = ask_api(node, DryRunContainer { namespace: ns("well"), spec: spec("dry"), caller: None }, LONG)
            .await
            .unwrap_err();
        assert_eq!(dry.kind, ErrorKind::Internal, "{dry}");
        delete_in(node, "well", name).await.unwrap();
    })
    .await;
}

#[actix::test]
async fn as_many_hung_roots_as_the_limits_allow_hold_up_no_other_namespace_and_no_removal() {
    let world = World::new();
    let mut config = world.config();
    (config.settings.limits.runs_in_flight_per_namespace, config.settings.limits.runs_in_flight) = (24, 32);
    let node = world.start_with(config);
    let _at_the_end = LetGo(&world);
    run_in(node.clone(), "hung", "old".to_owned()).await.unwrap();
    for namespace in ["hung", "also"] {
        world.bundles.hang(ns(namespace));
    }
    let names = (0..30).flat_map(|number| [("hung", format!("c{number}")), ("also", format!("c{number}"))]);
    let asked: Vec<_> = names.map(|(namespace, name)| actix_rt::spawn(run_in(node.clone(), namespace, name))).collect();
    // All shared places of the node, and the two namespaces' own.
    let most = 32 + 2 * OWN_PLACES;
    at_once_until(async || runs_in_flight(&node).await == most && world.bundles.hanging() == 2 * THREADS).await;
    for number in 0..OWN_PLACES {
        assert_works(&node, &format!("c{number}")).await;
    }
    // Its own roots hang, and what is over all the same goes.
    at_once(delete_in(&node, "hung", "old")).await.unwrap();
    assert_eq!(world.bundles.hanging(), 2 * THREADS, "they do not hang any more");
    world.bundles.let_go();
    let (mut made, mut refused) = (0, 0);
    for answer in futures_util::future::join_all(asked).await {
        match answer.unwrap() {
            Ok(_) => made += 1,
            Err(busy) => {
                assert_eq!(busy.kind, ErrorKind::Busy, "{busy}");
                assert!(busy.message.contains("limits.runs"), "its key is not named: {busy}");
                refused += 1;
            }
        }
    }
    assert_eq!((made, refused), (most, 60 - most));
    assert_eq!(runs_in_flight(&node).await, 0);
}

#[actix::test]
async fn hung_preparations_and_releases_hold_up_no_other_namespace() {
    let world = World::new();
    let node = world.start();
    let _at_the_end = LetGo(&world);
    for number in 0..RELEASE_THREADS {
        run_in(node.clone(), "hung", format!("old{number}")).await.unwrap();
    }
    world.rootfs.script_release(std::iter::repeat_n(RootOutcome::Hang, RELEASE_THREADS));
    let removals: Vec<_> = (0..RELEASE_THREADS)
        .map(|number| {
            let node = node.clone();
            actix_rt::spawn(async move { delete_in(&node, "hung", &format!("old{number}")).await })
        })
        .collect();
    at_once_until(async || world.rootfs.hanging() == RELEASE_THREADS).await;
    world.rootfs.script_prepare(std::iter::repeat_n(RootOutcome::Hang, THREADS));
    let runs: Vec<_> =
        (0..20).map(|number| actix_rt::spawn(run_in(node.clone(), "hung", format!("c{number}")))).collect();
    at_once_until(async || world.rootfs.hanging() == RELEASE_THREADS + THREADS).await;
    assert_works(&node, "web").await;
    assert_eq!(world.rootfs.hanging(), RELEASE_THREADS + THREADS, "they do not hang any more");
    world.rootfs.let_go();
    for removal in removals {
        removal.await.unwrap().unwrap();
    }
    for run in runs {
        run.await.unwrap().unwrap();
    }
}

#[actix::test]
async fn calls_that_were_given_up_do_not_wait_for_a_thread_for_ever() {
    let world = World::new();
    let node = world.start();
    let _at_the_end = LetGo(&world);
    world.bundles.hang(ns("hung"));
    let mut asked = Vec::new();
    for number in 0..THREADS + 4 {
        asked.push(actix_rt::spawn(run_in(node.clone(), "hung", format!("c{number}"))));
    }
    at_once_until(async || world.bundles.hanging() == THREADS).await;
    let failed = while_hanging(futures_util::future::join_all(asked)).await;
    assert!(failed.iter().all(|answer| answer.as_ref().unwrap().is_err()), "{failed:?}");
    let begun = world.bundles.calls().len();
    world.bundles.let_go();
    until("the threads are back", async || world.bundles.hanging() == 0).await;
    run_in(node.clone(), "hung", "after".to_owned()).await.unwrap();
    let writes = world.bundles.calls().into_iter().skip(begun);
    let writes = writes.filter(|call| matches!(call, contd_bundle::Call::Write(_))).count();
    assert_eq!(writes, THREADS + 1, "the four that never had a thread were written all the same");
}

#[actix::test]
async fn other_settings_count_from_the_next_request_on() {
    let world = World::new();
    let mut config = world.config();
    config.settings.limits.containers_per_namespace = 1;
    let mut settings = config.settings;
    let node = world.start_with(config);
    run(&node, spec("one")).await.unwrap();
    let full = run(&node, spec("two")).await.unwrap_err();
    assert!(full.message.contains("limits.containers_per_namespace"), "{full}");
    settings.limits.containers_per_namespace = 2;
    settings.log_rotation.max_bytes = 4711;
    crate::tell(&node, Reconfigure(settings));
    let two = run(&node, spec("two")).await.unwrap();
    assert_eq!(world.shims.task_of(&two).unwrap().log_max_bytes, 4711);
    assert!(run(&node, spec("three")).await.is_err());
}
