//! Executed processes through the whole line: descriptors, codes, terminals, and the deaths around them.

use std::io::Write as _;
use std::process::{Child, Stdio};

use contd_client::{Client, Deadline, ExecItem, ExecStream};
use contd_protocol::api::{ExecRequest, LogStream, MAX_LOG_ITEM_BYTES, Target};
use contd_types::{ContainerRef, ExecId, ExecSpec, NamespaceId, WindowSize};
use nix::sys::signal::Signal;

use crate::harness::{Flist, Node, eventually};
use crate::screen::{Screen, read_line};

/// A container that runs, and one that must not notice.
struct Stage {
    node: Node,
    _flist: Flist,
    bystander: serde_json::Value,
}

impl Stage {
    fn set() -> Self {
        let node = Node::start();
        let flist = node.flist();
        for name in ["web", "stays"] {
            node.contd(["run", "-d", "--name", name, "-e", "A=1", flist.arg(), "/bin/sleep", "1000"]).ok();
        }
        let bystander = node.inspect("stays")["pid"].clone();
        Self { node, _flist: flist, bystander }
    }

    fn end(self) {
        assert_eq!(self.node.inspect("stays")["pid"], self.bystander);
        self.node.contd(["rm", "-f", "-t", "0", "web", "stays"]).ok();
        self.node.finish();
    }

    /// Runs `contd exec` with pipes.
    fn piped(&self, args: &[&str]) -> Child {
        let mut command = self.node.command();
        command.arg("exec").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("run contd exec")
    }
}

/// The descriptors of a process, as the kernel names them.
fn descriptors(pid: u32) -> Vec<String> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    links
        .filter_map(|link| std::fs::read_link(link.path()).ok())
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_process_is_executed_with_its_callers_descriptors_environment_and_user() {
    let stage = Stage::set();
    let node = &stage.node;
    assert_eq!(node.contd(["exec", "web", "echo", "hello"]).ok(), "hello");
    let output = node.contd(["exec", "web", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (7, "out\n", "err\n"));
    assert_eq!(node.contd(["exec", "web", "sh", "-c", "kill -9 $$"]).code, 137);
    let script = "echo $A $B $HOME; id -u; id -g; id -G; pwd";
    let words = ["exec", "-e", "B=2", "-u", "app", "-w", "/tmp", "web", "sh", "-c", script];
    assert_eq!(node.contd(words).ok(), "1 2 /home/app\n1000\n1000\n1000 2000\n/tmp");
    // Without -i there is nothing to read.
    assert_eq!(node.contd(["exec", "web", "cat"]).ok(), "");
    let mut cat = stage.piped(&["-i", "web", "cat"]);
    cat.stdin.take().expect("piped").write_all(b"through\n").expect("write");
    assert_eq!(cat.wait_with_output().expect("its end").stdout, b"through\n");
    stage.end();
}

#[test]
fn what_cannot_be_executed_has_the_codes_of_a_shell_and_a_hint() {
    let stage = Stage::set();
    let node = &stage.node;
    node.contd(["exec", "web", "nosuch"]).fails_with(127, "nosuch");
    node.contd(["exec", "web", "/etc/not-a-program"]).fails_with(126, "not-a-program");
    node.contd(["exec", "nobody", "true"]).fails_with(125, "nobody");
    node.contd(["exec", "-u", "nobody", "web", "true"]).fails_with(125, "nobody");
    node.contd(["exec", "-w", "tmp", "web", "true"]).fails_with(125, "not absolute");
    node.contd(["exec", "--privileged", "web", "true"]).fails_with(125, "--privileged");
    node.contd(["exec", "-it", "web", "true"]).fails_with(125, "no terminal");
    assert_eq!(node.contd(["exec", "web"]).code, 125, "no command");
    node.contd(["stop", "-t", "0", "web"]).ok();
    node.contd(["exec", "web", "true"]).fails_with(125, "stopped");
    stage.end();
}

#[test]
fn an_open_session_outlives_the_deaths_of_daemon_and_shim_and_its_code_arrives() {
    let mut stage = Stage::set();
    let mut shell = stage.piped(&["-i", "web", "sh"]);
    let (mut stdin, mut stdout) = (shell.stdin.take().expect("piped"), shell.stdout.take().expect("piped"));
    let mut ask = |words: &str| {
        stdin.write_all(words.as_bytes()).expect("write");
        read_line(&mut stdout)
    };
    assert_eq!(ask("echo one\n"), "one");
    // It answers before its caller is told that it runs; a shim that dies in between takes it back.
    eventually("the caller to have a pidfd of it", || {
        descriptors(shell.id()).iter().any(|name| name.contains("[pidfd]")).then_some(())
    });
    let shim = stage.node.shim_pid("web");
    stage.node.kill_daemon();
    stage.node.signal(shim, Signal::SIGKILL);
    assert_eq!(ask("echo two\n"), "two");
    stage.node.announce("shim dead, successor started");
    stage.node.start_daemon();
    eventually("another shim", || (stage.node.inspect("web")["status"] == "running").then_some(()));
    assert_eq!(ask("echo three\n"), "three");
    stdin.write_all(b"exit 23\n").expect("write");
    drop(stdin);
    let status = shell.wait().expect("its end");
    assert_eq!(status.code(), Some(23));
    stage.end();
}

#[test]
fn a_terminal_is_the_users_own_with_its_size_and_its_keys() {
    let stage = Stage::set();
    let mut command = stage.node.command();
    command.args(["exec", "-it", "web", "sh"]).env("TERM", "vt100");
    let (mut screen, mut shell) = Screen::before(&command);
    screen.type_in("echo $TERM; id -u; test -t 0 && echo is a terminal\r");
    screen.shows("vt100\r\n0\r\nis a terminal");
    // A key that is the terminal's own reaches the foreground of the container.
    screen.type_in("sh -c 'echo beg\"\"ins; exec sleep 1000'\r");
    screen.shows("begins\r\n");
    screen.type_in("\x03");
    screen.type_in("echo interrupted $?\r");
    screen.shows("interrupted 130");
    screen.type_in("\x10\x11");
    assert_eq!(shell.wait().expect("its end").code(), Some(0), "{}", screen.seen);
    stage.end();
}

#[test]
fn what_is_left_to_itself_is_listed_and_ends_with_its_container() {
    let stage = Stage::set();
    let id = stage.node.contd(["exec", "-d", "web", "sleep", "1000"]).ok().to_owned();
    let execs = stage.node.inspect("web")["execs"].clone();
    assert_eq!((&execs[0]["id"], &execs[0]["command"]), (&id.as_str().into(), &serde_json::json!(["sleep", "1000"])));
    let pid = execs[0]["pid"].as_i64().expect("a pid");
    assert_eq!(stage.node.contd(["exec", "web", "sh", "-c", "ps | grep -c 'sleep 100[0]'"]).ok(), "2");
    stage.node.contd(["stop", "-t", "0", "web"]).ok();
    eventually("it to have ended with its container", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    assert_eq!(stage.node.inspect("web")["execs"], serde_json::json!([]));
    stage.end();
}

/// Talks to the daemon; the connections are closed behind it.
fn connected(talk: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(talk);
}

/// A caller that has no descriptors to give.
async fn stream(node: &Node, args: &[&str], terminal: Option<WindowSize>) -> (Client, ExecStream, Target, ExecId) {
    let client = Client::connect(&node.socket(), Deadline::Usual).await.expect("connect");
    let container = ContainerRef::new("web").expect("valid");
    let target = Target { namespace: NamespaceId::new("default").expect("valid"), container };
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let spec = ExecSpec { args, terminal, ..ExecSpec::default() };
    let request = ExecRequest { target: target.clone(), spec, has_descriptors: false };
    let mut stream = client.exec_stream(request, Deadline::Usual).await.expect("execute");
    let Some(Ok(ExecItem::Executes { exec, .. })) = stream.next().await else { panic!("it does not run") };
    (client, stream, target, exec)
}

/// Reads to the end; returns what was said on both streams, and the code.
async fn rest(stream: &mut ExecStream) -> (Vec<u8>, Vec<u8>, Option<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match stream.next().await.expect("an end").expect("no error") {
            ExecItem::Output(item) if item.stream == LogStream::Stdout => out.extend(item.content),
            ExecItem::Output(item) => err.extend(item.content),
            ExecItem::Exited(exit) => return (out, err, Some(exit.shell_code())),
            other @ ExecItem::Executes { .. } => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_caller_without_descriptors_talks_in_frames_and_waits_for_a_process_that_does_not_read() {
    let stage = Stage::set();
    // More than pipes and credit hold: without the reader beside it the writer would wait for ever.
    let text: Vec<u8> = (0..4 << 20).map(|number: u32| number.to_le_bytes()[1]).collect();
    connected(async {
        let (client, mut process, target, exec) =
            stream(&stage.node, &["sh", "-c", "cat; echo end >&2; exit 5"], None).await;
        let write = async {
            for (number, piece) in text.chunks(MAX_LOG_ITEM_BYTES).enumerate() {
                let is_last = (number + 1) * MAX_LOG_ITEM_BYTES >= text.len();
                client.write_exec(target.clone(), exec, piece.to_vec(), is_last, Deadline::Never).await.expect("write");
            }
        };
        let ((), (out, err, code)) = tokio::join!(write, rest(&mut process));
        assert!(out == text, "{} bytes of {} came", out.len(), text.len());
        assert_eq!((err.as_slice(), code), (&b"end\n"[..], Some(5)));
        let late = client.write_exec(target, exec, Vec::new(), false, Deadline::Usual).await.expect_err("it has ended");
        assert!(late.to_string().contains(&exec.to_string()), "{late}");
    });
    stage.end();
}

#[test]
fn a_terminal_in_frames_has_its_size_and_the_process_hears_that_its_caller_has_gone() {
    let stage = Stage::set();
    let size = |rows, columns| WindowSize { rows, columns };
    let words =
        "trap 'echo gone > /tmp/gone; exit' HUP; stty size; read x; stty size; echo ready; while :; do sleep 0.1; done";
    connected(async {
        let (client, mut process, target, exec) = stream(&stage.node, &["sh", "-c", words], Some(size(30, 100))).await;
        let mut screen = String::new();
        async fn shows(process: &mut ExecStream, screen: &mut String, words: &str) {
            while !screen.contains(words) {
                let Some(Ok(ExecItem::Output(item))) = process.next().await else { panic!("it has ended: {screen}") };
                screen.push_str(&String::from_utf8_lossy(&item.content));
            }
        }
        shows(&mut process, &mut screen, "30 100\r\n").await;
        client.resize_exec(target.clone(), exec, size(50, 132), Deadline::Usual).await.expect("resize");
        client.write_exec(target, exec, b"\r".to_vec(), false, Deadline::Usual).await.expect("type");
        shows(&mut process, &mut screen, "50 132\r\nready\r\n").await;
    });
    eventually("it to have heard", || {
        (stage.node.contd(["exec", "web", "cat", "/tmp/gone"]).stdout == "gone\n").then_some(())
    });
    eventually("it to have ended", || (stage.node.inspect("web")["execs"] == serde_json::json!([])).then_some(()));
    stage.end();
}
