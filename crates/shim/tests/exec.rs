//! Processes that are executed in a running container: their descriptors, their ends, and the deaths around them.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use crate::common::{Client, LIMIT, Scene, TestRuntime, assert_killed, eventually, exited};
use contd_lease::wait_dead;
use contd_protocol::shim::{ExecProcess, ExecUser, MAX_EXECS, Request, Response, files};
use contd_shim::runtime::fake::{Act, Script};
use contd_types::{ApiError, ErrorKind, ExecId, Exit, ExitCause, Pid, Signal, WindowSize};

const ALL: [TestRuntime; 3] = [TestRuntime::Fake, TestRuntime::Runc, TestRuntime::Native];
const REAL: [TestRuntime; 2] = [TestRuntime::Runc, TestRuntime::Native];

fn exec(number: u64) -> ExecId {
    ExecId::from_random(number)
}

/// The caller's ends of a process's descriptors.
struct Ends {
    stdin: PipeWriter,
    stdout: PipeReader,
    stderr: PipeReader,
}

impl Ends {
    fn read(mut self) -> (String, String) {
        drop(self.stdin);
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).unwrap();
        self.stderr.read_to_string(&mut err).unwrap();
        (out, err)
    }
}

fn shell(command: &str) -> ExecProcess {
    ExecProcess { args: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(), ..ExecProcess::default() }
}

/// Asks for a process with pipes for its descriptors.
#[track_caller]
fn ask(client: &mut Client, number: u64, process: ExecProcess) -> (Result<Response, ApiError>, Ends) {
    let (child_in, stdin) = std::io::pipe().unwrap();
    let (stdout, child_out) = std::io::pipe().unwrap();
    let (stderr, child_err) = std::io::pipe().unwrap();
    let request = Request::Exec { exec: exec(number), process: Box::new(process) };
    let call = client.send_with(request, &[child_in.as_fd(), child_out.as_fd(), child_err.as_fd()]);
    (client.answer(call), Ends { stdin, stdout, stderr })
}

/// Executes one; returns its pid and pidfd.
#[track_caller]
fn execute(client: &mut Client, number: u64, process: ExecProcess) -> (Pid, OwnedFd, Ends) {
    let (answer, ends) = ask(client, number, process);
    match answer {
        Ok(Response::Executes { pid, has_terminal: false }) => (pid, client.fds.pop_front().expect("a pidfd"), ends),
        other => panic!("not executed: {other:?}"),
    }
}

#[track_caller]
fn wait(client: &mut Client, number: u64) -> Exit {
    exited(client.call(Request::WaitExec { exec: exec(number) }))
}

#[track_caller]
fn running(client: &mut Client) -> Vec<ExecId> {
    match client.call(Request::Execs) {
        Ok(Response::Execs(execs)) => execs.into_iter().map(|info| info.exec).collect(),
        other => panic!("no list: {other:?}"),
    }
}

#[track_caller]
fn up(scene: &Scene) -> Client {
    let mut client = scene.up();
    client.create();
    client.start();
    client
}

#[test]
fn a_process_has_its_callers_descriptors_and_its_code_is_told() {
    for kind in ALL {
        let scene = Scene::new(kind, "exec sleep 1000");
        let mut client = up(&scene);
        let (pid, pidfd, mut ends) = execute(&mut client, 1, shell("read line; echo got $line; echo err >&2; exit 7"));
        assert_eq!(running(&mut client), [exec(1)], "{kind:?}");
        assert!(scene.processes().contains(&pid.0));
        // Asked again while it runs, it is the same.
        let (again, _) = ask(&mut client, 1, shell("exit 9"));
        assert_eq!(again, Ok(Response::Executes { pid, has_terminal: false }));
        client.fds.pop_front().expect("its pidfd again");
        ends.stdin.write_all(b"in\n").unwrap();
        assert!(wait_dead(&pidfd, LIMIT).unwrap());
        assert_eq!(ends.read(), ("got in\n".to_owned(), "err\n".to_owned()), "{kind:?}");
        assert_eq!(wait(&mut client, 1).cause, ExitCause::Code(7));
        assert_eq!(running(&mut client), []);
        // And also when it has ended.
        let (again, _) = ask(&mut client, 1, shell("exit 9"));
        assert_eq!(exited(again).cause, ExitCause::Code(7));
        assert_eq!(client.call(Request::KillExec { exec: exec(1), signal: Signal::KILL }), Ok(Response::Done));
        let unknown = client.call(Request::WaitExec { exec: exec(2) }).unwrap_err();
        assert_eq!(unknown.kind, ErrorKind::NotFound);
        scene.finish(&mut client);
    }
}

#[test]
fn the_code_of_a_process_that_ends_at_once_is_not_lost() {
    for kind in ALL {
        let scene = Scene::new(kind, "exec sleep 1000");
        let mut client = up(&scene);
        for number in 1..=20 {
            let (_, pidfd, _) = execute(&mut client, number, shell("exit 9"));
            assert!(wait_dead(&pidfd, LIMIT).unwrap());
            assert_eq!(wait(&mut client, number).cause, ExitCause::Code(9), "{kind:?}, {number}");
        }
        scene.finish(&mut client);
    }
}

#[test]
fn several_at_once_are_signalled_and_waited_for_each_by_itself() {
    for kind in ALL {
        let scene = Scene::new(kind, "exec sleep 1000");
        let mut client = up(&scene);
        let kept: Vec<_> = (1..=3).map(|number| execute(&mut client, number, shell("exec sleep 1000"))).collect();
        let waits: Vec<_> = (1..=3).map(|number| client.send(Request::WaitExec { exec: exec(number) })).collect();
        assert_eq!(client.call(Request::KillExec { exec: exec(2), signal: Signal::KILL }), Ok(Response::Done));
        assert_killed(&exited(client.answer(waits[1])));
        let mut left = running(&mut client);
        left.sort();
        assert_eq!(left, [exec(1), exec(3)]);
        // They end with the container, and whoever waits is told.
        client.kill(Signal::KILL);
        client.wait();
        if kind == TestRuntime::Fake {
            // Its container has no namespace of processes.
            for number in [1, 3] {
                client.call(Request::KillExec { exec: exec(number), signal: Signal::KILL }).unwrap();
            }
        }
        for wait in [waits[0], waits[2]] {
            assert_killed(&exited(client.answer(wait)));
        }
        drop(kept);
        scene.finish(&mut client);
    }
}

#[test]
fn a_process_keeps_the_restrictions_of_the_container() {
    for kind in REAL {
        let scene = Scene::new(kind, "exec sleep 1000");
        let mut client = up(&scene);
        let user = Some(ExecUser { uid: 5, gid: 6, additional_gids: vec![7] });
        let script =
            "cat /proc/self/cgroup; grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapEff|CapBnd)' /proc/self/status; echo $A";
        let process = ExecProcess { user, env: vec!["A=b".into()], cwd: Some("/tmp".into()), ..shell(script) };
        let (_, pidfd, ends) = execute(&mut client, 1, process);
        assert!(wait_dead(&pidfd, LIMIT).unwrap());
        let (out, err) = ends.read();
        assert_eq!((wait(&mut client, 1).cause, err.as_str()), (ExitCause::Code(0), ""), "{kind:?}");
        for wanted in [
            "Uid:\t5\t",
            "Gid:\t6\t",
            "Groups:\t7",
            "NoNewPrivs:\t1",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
        ] {
            assert!(out.contains(wanted), "{kind:?}: no {wanted:?} in {out}");
        }
        assert!(out.contains(scene.task.id.as_str()), "{kind:?}: another cgroup: {out}");
        assert!(out.ends_with("b\n"), "{kind:?}: {out}");
        scene.finish(&mut client);
    }
}

#[test]
fn what_cannot_be_executed_is_refused_with_its_kind_and_leaves_nothing() {
    for kind in REAL {
        let scene = Scene::new(kind, "exec sleep 1000");
        let mut client = up(&scene);
        let before = scene.processes().len();
        let process = ExecProcess { args: vec!["/no/such".into()], ..ExecProcess::default() };
        let (answer, ends) = ask(&mut client, 1, process);
        assert_eq!(answer.unwrap_err().kind, ErrorKind::EntrypointNotFound, "{kind:?}");
        ends.read();
        let process = ExecProcess { args: vec!["/proc/version".into()], ..ExecProcess::default() };
        let (answer, _) = ask(&mut client, 2, process);
        assert_eq!(answer.unwrap_err().kind, ErrorKind::EntrypointNotExecutable, "{kind:?}");
        eventually("nothing of them is left", || scene.processes().len() == before);
        assert_eq!(running(&mut client), []);
        assert_eq!(client.call(Request::Pause), Ok(Response::Done));
        let (answer, _) = ask(&mut client, 3, shell("exit 0"));
        assert_eq!(answer.unwrap_err().kind, ErrorKind::Conflict, "it is paused");
        scene.finish(&mut client);
    }
}

#[test]
fn a_terminal_is_the_containers_own_and_its_master_comes_with_the_answer() {
    for kind in REAL {
        let scene = Scene::bare(kind);
        scene.configure(&["/bin/sh", "-c", "exec sleep 1000"], |config| {
            let options = ["newinstance", "ptmxmode=0666", "mode=0620"];
            let devpts = serde_json::json!(
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options});
            config["mounts"].as_array_mut().unwrap().push(devpts);
        });
        let mut client = up(&scene);
        let script = "stty size; tty; read line; echo got $line; kill -INT $$; sleep 1000";
        let terminal = Some(WindowSize { rows: 30, columns: 101 });
        let process = ExecProcess { terminal, ..shell(script) };
        let request = Request::Exec { exec: exec(1), process: Box::new(process) };
        let Ok(Response::Executes { has_terminal: true, .. }) = client.call(request.clone()) else {
            panic!("{kind:?}: no terminal")
        };
        let _pidfd = client.fds.pop_front().expect("a pidfd");
        let mut master = fs::File::from(client.fds.pop_front().expect("a master"));
        assert_eq!(client.call(request).unwrap_err().kind, ErrorKind::Conflict, "its terminal was given away");
        master.write_all(b"hello\n").unwrap();
        let mut said = String::new();
        let mut chunk = [0; 256];
        // At the end of its session a terminal is an error.
        while let Ok(count @ 1..) = master.read(&mut chunk) {
            said.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
        }
        assert_eq!(wait(&mut client, 1).cause, ExitCause::Signal(Signal::new(2).unwrap()), "{kind:?}: {said}");
        for wanted in ["30 101\r\n", "/dev/pts/0\r\n", "got hello\r\n"] {
            assert!(said.contains(wanted), "{kind:?}: no {wanted:?} in {said:?}");
        }
        scene.finish(&mut client);
    }
}

#[test]
fn a_process_lives_through_the_death_of_the_shim_and_its_successor_tells_its_code() {
    for kind in ALL {
        let scene = Scene::new(kind, "exec sleep 1000");
        let mut client = up(&scene);
        let (pid, _pidfd, mut ends) = execute(&mut client, 1, shell("read line; echo got $line; exit 23"));
        let (_, ended, _) = execute(&mut client, 2, shell("exit 5"));
        assert!(wait_dead(&ended, LIMIT).unwrap());
        assert_eq!(wait(&mut client, 2).cause, ExitCause::Code(5));
        let (kept, _fifos) = scene.keep();
        scene.kill_shim();
        let mut client = scene.succeed(Some(kept));
        assert_eq!(running(&mut client), [exec(1)], "{kind:?}");
        assert_eq!(wait(&mut client, 2).cause, ExitCause::Code(5), "it is remembered");
        let waiting = client.send(Request::WaitExec { exec: exec(1) });
        ends.stdin.write_all(b"on\n").unwrap();
        assert_eq!(exited(client.answer(waiting)).cause, ExitCause::Code(23), "{kind:?}");
        assert_eq!(ends.read().0, "got on\n");
        assert!(!scene.processes().contains(&pid.0));
        scene.finish(&mut client);
    }
}

#[test]
fn a_process_that_nobody_was_told_of_is_ended_by_the_successor() {
    for kind in ALL {
        let scene = Scene::new(kind, "exec sleep 1000");
        let mut client = up(&scene);
        let (_, told, _ends) = execute(&mut client, 1, shell("exec sleep 1000"));
        let (_, untold, _ends) = execute(&mut client, 2, shell("exec sleep 1000"));
        let (kept, _fifos) = scene.keep();
        scene.kill_shim();
        // As a shim leaves it that dies after it has let the process go, and before it has written that it runs.
        let path = scene.dir.join(files::EXECS);
        let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record["running"][1]["is_told"] = false.into();
        fs::write(&path, record.to_string()).unwrap();
        let mut client = scene.succeed(Some(kept));
        assert_eq!(running(&mut client), [exec(1)], "{kind:?}");
        assert!(wait_dead(&untold, LIMIT).unwrap(), "{kind:?}: it runs on");
        assert!(!wait_dead(&told, std::time::Duration::ZERO).unwrap());
        client.call(Request::KillExec { exec: exec(1), signal: Signal::KILL }).unwrap();
        assert_killed(&wait(&mut client, 1));
        scene.finish(&mut client);
    }
}

#[test]
fn a_process_lives_through_the_upgrade_of_the_shim_and_none_begins_in_the_middle() {
    for kind in ALL {
        let scene = Scene::new(kind, "exec sleep 1000");
        let mut client = up(&scene);
        let (_, _pidfd, mut ends) = execute(&mut client, 1, shell("read line; echo got $line; exit 23"));
        client.send(Request::HandOver { binary: scene.binary() });
        assert!(client.frame().is_none(), "it is another program");
        let mut client = scene.reconnect();
        let waiting = client.send(Request::WaitExec { exec: exec(1) });
        ends.stdin.write_all(b"on\n").unwrap();
        assert_eq!(exited(client.answer(waiting)).cause, ExitCause::Code(23), "{kind:?}");
        assert_eq!(ends.read().0, "got on\n");
        scene.finish(&mut client);
    }
    let scene = Scene::bare(TestRuntime::Fake);
    scene.script(&Script { command: "sleep 1000".into(), exec: Act::Delay(300), ..Script::default() });
    let mut client = up(&scene);
    let request = Request::Exec { exec: exec(1), process: Box::new(shell("sleep 1000")) };
    let null = fs::File::open("/dev/null").unwrap();
    let executing = client.send_with(request, &[null.as_fd(), null.as_fd(), null.as_fd()]);
    let refused = client.call(Request::HandOver { binary: scene.binary() }).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Busy);
    assert!(matches!(client.answer(executing), Ok(Response::Executes { .. })));
    client.call(Request::KillExec { exec: exec(1), signal: Signal::KILL }).unwrap();
    wait(&mut client, 1);
    scene.finish(&mut client);
}

#[test]
fn more_than_the_limit_are_refused_and_the_place_of_one_that_has_ended_is_free() {
    let scene = Scene::new(TestRuntime::Fake, "exec sleep 1000");
    let mut client = up(&scene);
    let count = u64::try_from(MAX_EXECS).unwrap();
    let mut kept: Vec<_> = (0..count).map(|number| execute(&mut client, number, shell("read line"))).collect();
    let (answer, _) = ask(&mut client, count, shell("exit 0"));
    assert_eq!(answer.unwrap_err().kind, ErrorKind::Busy);
    let (_, pidfd, ends) = kept.pop().unwrap();
    drop(ends);
    assert!(wait_dead(&pidfd, LIMIT).unwrap());
    wait(&mut client, count - 1);
    let (_, pidfd, _) = execute(&mut client, count, shell("exit 0"));
    assert!(wait_dead(&pidfd, LIMIT).unwrap());
    drop(kept);
    eventually("all have ended", || running(&mut client).is_empty());
    scene.finish(&mut client);
}

#[test]
fn a_process_that_does_not_come_up_in_time_is_given_up() {
    let mut scene = Scene::bare(TestRuntime::Fake);
    scene.script(&Script { command: "sleep 1000".into(), exec: Act::Hang, ..Script::default() });
    scene.task.runtime_timeout = std::time::Duration::from_millis(200);
    scene.write_task();
    let mut client = up(&scene);
    let (answer, ends) = ask(&mut client, 1, shell("read line"));
    assert_eq!(answer.unwrap_err().kind, ErrorKind::Timeout);
    drop(ends);
    scene.finish(&mut client);
}
