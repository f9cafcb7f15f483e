//! Processes that are executed in a container: asked for at the node, made by the shim.

use contd_shim_client::fake::{Outcome, ShimCall, Verb};
use contd_types::{ErrorKind, ExecSpec, ExitCause, Signal, WindowSize};

use super::*;
use crate::messages::{ExecContainer, KillExec, ListExecs, WaitExec};

fn exec(args: &[&str]) -> ExecContainer {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    ExecContainer { target: target("web"), exec: ExecSpec { args, ..ExecSpec::default() }, stdio: None }
}

#[actix::test]
async fn a_process_is_executed_listed_signalled_and_its_end_told() {
    let world = World::new();
    let node = world.start();
    let id = run(&node, spec("web")).await.unwrap();
    let first = ask_api(&node, exec(&["sh", "-c", "exit"]), LONG).await.unwrap();
    assert_eq!((&first.container, first.terminal.is_none()), (&id, true));
    let mut with_terminal = exec(&["sh"]);
    with_terminal.exec.terminal = Some(WindowSize { rows: 3, columns: 4 });
    let second = ask_api(&node, with_terminal, LONG).await.unwrap();
    assert!(second.terminal.is_some() && second.exec != first.exec);
    let listed = ask_api(&node, ListExecs { target: target("web") }, LONG).await.unwrap();
    let mut execs: Vec<_> = listed.into_iter().map(|info| (info.exec, info.pid, info.has_terminal)).collect();
    execs.sort();
    let mut wanted = vec![(first.exec, first.pid, false), (second.exec, second.pid, true)];
    wanted.sort();
    assert_eq!(execs, wanted);
    world.shims.end_exec(&id, first.exec, 7).unwrap();
    let exit = ask_api(&node, WaitExec { target: target("web"), exec: first.exec }, LONG).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Code(7));
    let kill = KillExec { target: target("web"), exec: second.exec, signal: Signal::KILL };
    ask_api(&node, kill, LONG).await.unwrap();
    let exit = ask_api(&node, WaitExec { target: target("web"), exec: second.exec }, LONG).await.unwrap();
    assert_eq!(exit.cause, ExitCause::Signal(Signal::KILL));
    assert!(ask_api(&node, ListExecs { target: target("web") }, LONG).await.unwrap().is_empty());
}

#[actix::test]
async fn a_wait_for_a_process_ends_with_the_container() {
    let world = World::new();
    let node = world.start();
    run(&node, spec("web")).await.unwrap();
    let executed = ask_api(&node, exec(&["sh"]), LONG).await.unwrap();
    let wait = WaitExec { target: target("web"), exec: executed.exec };
    let (ended, stopped) = futures_util::join!(ask_api(&node, wait, LONG), stop(&node, "web"));
    stopped.unwrap();
    assert_eq!(ended.unwrap().cause, ExitCause::Signal(Signal::KILL));
}

#[actix::test]
async fn what_cannot_be_executed_is_refused_before_the_shim_is_asked() {
    let world = World::new();
    let node = world.start();
    let error = ask_api(&node, exec(&["sh"]), LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    run(&node, spec("web")).await.unwrap();
    let error = ask_api(&node, exec(&[]), LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
    stop(&node, "web").await.unwrap();
    let error = ask_api(&node, exec(&["sh"]), LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    let asked = world.shims.calls().into_iter().any(|call| matches!(call, ShimCall::Exec { .. }));
    assert!(!asked, "the shim was asked");
}

#[actix::test]
async fn a_shim_that_is_lost_meanwhile_is_not_asked_again() {
    let world = World::new();
    let node = world.start();
    run(&node, spec("web")).await.unwrap();
    world.shims.script(Verb::Exec, [Outcome::lost()]);
    let error = ask_api(&node, exec(&["sh"]), LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(world.shims.count(Verb::Exec), 1, "it may run already");
}
