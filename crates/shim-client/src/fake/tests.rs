use std::path::Path;
use std::time::Duration;

use contd_protocol::shim::{RuntimeSpec, TASK_SPEC_VERSION};
use contd_types::{ApiError, ErrorKind};

use super::*;
use crate::deadline;

fn id(number: u8) -> ContainerId {
    ContainerId::from_random([number; 16])
}

fn task(number: u8) -> TaskSpec {
    TaskSpec {
        version: TASK_SPEC_VERSION,
        namespace: NamespaceId::new("t").expect("valid"),
        id: id(number),
        bundle: Path::new("/bundle").to_owned(),
        runtime: RuntimeSpec::Oci { binary: "/runc".into(), root: "/root".into() },
        log_path: "/log".into(),
        log_max_bytes: 1,
        log_max_files: 1,
        log_notes: None,
        log_start: None,
        drain_timeout: Duration::from_secs(1),
        runtime_timeout: Duration::from_secs(1),
        input: contd_protocol::shim::TaskInput::default(),
    }
}

async fn running(fake: &FakeShimClient, number: u8) -> Arc<dyn Shim> {
    let shim = fake.spawn(task(number)).await.expect("spawn");
    shim.create().await.expect("create");
    shim.start().await.expect("start");
    shim
}

#[tokio::test(start_paused = true)]
async fn scripts_are_used_up_in_order_and_a_containers_own_come_first() {
    let fake = FakeShimClient::new();
    let shim = fake.spawn(task(1)).await.expect("spawn");
    let refusal = ApiError::new(ErrorKind::NotFound, "no such file");
    fake.script(Verb::Create, [Outcome::lost()]);
    fake.script_for(&id(1), Verb::Create, [Outcome::fail(refusal.clone()), Outcome::Hang]);
    let first = shim.create().await;
    assert!(matches!(&first, Err(ShimError::Refused { source, .. }) if *source == refusal), "{first:?}");
    let begun = tokio::time::Instant::now();
    assert!(matches!(shim.create().await, Err(ShimError::Silent { waited: deadline::CREATE, .. })));
    assert_eq!(begun.elapsed(), deadline::CREATE);
    assert!(matches!(shim.create().await, Err(ShimError::Lost { .. })));
    assert_eq!(fake.state_of(&id(1)), Some(TaskState::Empty), "a failed call has done nothing");
    shim.create().await.expect("the script is over");
    let calls = [ShimCall::Spawn(id(1))].into_iter().chain(std::iter::repeat_n(ShimCall::Create(id(1)), 4));
    assert_eq!(fake.calls(), calls.collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_has_done_its_work() {
    let fake = FakeShimClient::new();
    let lost = Failure::new(|id, verb| ShimError::Lost { id: id.clone(), verb: verb.as_str() });
    fake.script(Verb::Spawn, [Outcome::DoneThenFail(lost)]);
    assert!(fake.spawn(task(1)).await.is_err());
    assert_eq!(fake.live_shims(), [id(1)]);
    fake.spawn(task(1)).await.expect("connects to the one that is there");
    assert_eq!((fake.starts_of(&id(1)), fake.duplicate_spawns()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_call_takes_its_time_and_a_program_ends_by_itself() {
    let fake = FakeShimClient::new();
    fake.script(Verb::Start, [Outcome::Delay(Duration::from_secs(3))]);
    fake.set_program(None, Program::Ends { after: Duration::from_secs(7), code: 9 });
    let begun = tokio::time::Instant::now();
    let shim = running(&fake, 1).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    assert_eq!(shim.wait().await.expect("exit").cause, ExitCause::Code(9));
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_lost_shim_loses_every_call_and_gets_a_successor_when_its_container_lives() {
    for is_init_left in [true, false] {
        let fake = FakeShimClient::new();
        let shim = running(&fake, 1).await;
        let waiter = Arc::clone(&shim);
        let waiting = tokio::spawn(async move { waiter.wait().await });
        fake.until_called(Verb::Wait, 1).await;
        assert!(fake.lose_shim(&id(1), is_init_left));
        let waited = waiting.await.expect("no panic");
        assert!(matches!(waited, Err(ShimError::Lost { .. })), "{waited:?}");
        assert!(matches!(shim.state().await, Err(ShimError::Lost { .. })));
        let found = fake.attach(&task(1).namespace, &id(1)).await.expect("attach");
        assert_eq!(fake.live_containers().is_empty(), !is_init_left);
        assert_eq!(fake.starts_of(&id(1)), 1 + usize::from(is_init_left));
        if is_init_left {
            let Attached::Alive { shim, state: TaskState::Running { .. } } = found else { panic!("{found:?}") };
            shim.delete(true).await.expect("delete");
            shim.shutdown().await.expect("shutdown");
        } else {
            assert!(matches!(found, Attached::Dead { exit: None }), "{found:?}");
        }
        fake.clean_up(&task(1).namespace, &id(1)).await.expect("clean up");
        assert!(fake.leases().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_loses_the_pending_call_and_not_the_next() {
    let fake = FakeShimClient::new();
    let shim = running(&fake, 1).await;
    let waiter = Arc::clone(&shim);
    let waiting = tokio::spawn(async move { waiter.wait().await });
    fake.until_called(Verb::Wait, 1).await;
    fake.disconnect(&id(1));
    assert!(matches!(waiting.await.expect("no panic"), Err(ShimError::Lost { .. })));
    assert!(matches!(shim.state().await, Ok(TaskState::Running { .. })));
}

#[tokio::test(start_paused = true)]
async fn signals_do_what_the_script_says() {
    let fake = FakeShimClient::new();
    let shim = running(&fake, 1).await;
    fake.on_signal(&id(1), Signal::TERM, Reaction::Ignore);
    shim.kill(Signal::TERM, false).await.expect("kill");
    assert!(matches!(fake.state_of(&id(1)), Some(TaskState::Running { .. })));
    shim.kill(Signal::KILL, false).await.expect("kill");
    assert_eq!(shim.wait().await.expect("exit").cause, ExitCause::Signal(Signal::KILL));
    fake.reboot();
    assert!(matches!(fake.attach(&task(1).namespace, &id(1)).await, Ok(Attached::Absent)));
}
