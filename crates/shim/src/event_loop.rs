//! The one loop: waits for whatever the state of things asks for, and hands what is ready to who owns it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use contd_logs::Stream;
use contd_protocol::Refusal;
use contd_protocol::shim::{AGENT, MAX_CONNECTIONS, ShimSocket};
use contd_session::{ConnectionEnd, Polled, Received, refuse};
use contd_types::ExecId;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::clock;
use crate::diagnostics::Diagnostics;
use crate::task::{Answer, CallRef, HandOver, Task};

/// How long the last answers may take on their way before we end all the same.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long no caller is accepted after the kernel has refused us a descriptor; without it the loop would spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
enum Token {
    Listener,
    Signals,
    Operation,
    Init,
    Output(Stream),
    Console,
    ConsoleInput,
    Exec(ExecId),
    Connection(u64),
}

/// Why the loop has come to an end.
#[derive(Debug)]
pub(crate) enum Ending {
    /// There is nothing left to do.
    Done,
    /// Another program is to go on.
    HandOver(HandOver),
}

/// Everything that can become ready.
#[derive(Debug)]
pub(crate) struct EventLoop {
    listener: UnixListener,
    signals: SignalFd,
    task: Task,
    connections: BTreeMap<u64, Polled<ShimSocket>>,
    next_connection: u64,
    accept_after: Option<Instant>,
    /// Until when somebody must have called, or we are not needed.
    unclaimed_until: Option<Instant>,
    is_reaping_due: bool,
    /// Whether SIGTERM has come: then we end as soon as there is nothing left to guard.
    is_told_to_end: bool,
    diagnostics: Rc<Diagnostics>,
}

impl EventLoop {
    /// Puts the parts together; the listener is non-blocking.
    pub(crate) fn new(
        listener: UnixListener,
        signals: SignalFd,
        task: Task,
        unclaimed_timeout: Duration,
        diagnostics: Rc<Diagnostics>,
    ) -> Self {
        // The shim of a container needs no caller.
        let unclaimed_until = (!task.has_container()).then(|| clock::monotonic() + unclaimed_timeout);
        Self {
            listener,
            signals,
            task,
            connections: BTreeMap::new(),
            next_connection: 0,
            accept_after: None,
            unclaimed_until,
            is_reaping_due: false,
            is_told_to_end: false,
            diagnostics,
        }
    }

    /// Runs until the shim is told to end or to hand over, or nobody has ever called. SIGTERM counts once the container has
    /// ended and nobody is connected who would ask how: until then it is remembered.
    pub(crate) fn run(&mut self) -> io::Result<Ending> {
        let mut farewell_until = None;
        loop {
            let now = clock::monotonic();
            self.task.advance(now);
            if self.task.wants_reaping() || self.is_reaping_due {
                self.is_reaping_due = self.task.reap();
            }
            self.deliver();
            self.drop_ended(now);
            if let Some(hand_over) = self.task.take_hand_over() {
                return Ok(Ending::HandOver(hand_over));
            }
            if self.task.is_shut_down() {
                let until = *farewell_until.get_or_insert(now + FAREWELL);
                if until <= now || !self.connections.values().any(Polled::has_output) {
                    return Ok(Ending::Done);
                }
            }
            if self.is_told_to_end && self.connections.is_empty() && self.task.leave_behind() {
                self.diagnostics.info("told to end by SIGTERM, and nothing is left to guard");
                return Ok(Ending::Done);
            }
            if self.unclaimed_until.is_some_and(|until| until <= now) {
                self.diagnostics.warn("nobody has called: the daemon that started us has ended half-way");
                return Ok(Ending::Done);
            }
            for (token, ready) in self.wait(now, farewell_until)? {
                self.dispatch(token, ready);
            }
        }
    }

    /// The other program could not be executed: this one goes on.
    pub(crate) fn refuse_hand_over(&mut self, caller: CallRef, binary: PathBuf, source: io::Error) {
        self.task.refuse_hand_over(caller, binary, source);
    }

    /// Waits until something is ready, or due.
    fn wait(&self, now: Instant, farewell_until: Option<Instant>) -> io::Result<Vec<(Token, PollFlags)>> {
        let (tokens, mut descriptors): (Vec<Token>, Vec<PollFd<'_>>) =
            self.wanted().map(|(token, fd, flags)| (token, PollFd::new(fd, flags))).unzip();
        let deadlines = [self.task.deadline(), self.accept_after, self.unclaimed_until, farewell_until];
        let hellos = self.connections.values().filter_map(Polled::deadline);
        let timeout = if self.is_reaping_due {
            PollTimeout::ZERO
        } else {
            timeout(deadlines.into_iter().flatten().chain(hellos).min(), now)
        };
        match poll(&mut descriptors, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = descriptors.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        Ok(tokens.into_iter().zip(ready).filter(|(_, ready)| !ready.is_empty()).collect())
    }

    fn wanted(&self) -> impl Iterator<Item = (Token, BorrowedFd<'_>, PollFlags)> {
        let input = PollFlags::POLLIN;
        let listener = self.accept_after.is_none().then(|| (Token::Listener, self.listener.as_fd(), input));
        let signals = (Token::Signals, self.signals.as_fd(), input);
        let operation = self.task.operation_fd().map(|fd| (Token::Operation, fd, input));
        let init = self.task.init_fd().map(|(fd, flags)| (Token::Init, fd, flags));
        let output = self.task.pump.wanted().map(move |(stream, fd)| (Token::Output(stream), fd, input));
        let console = self.task.console_fd().map(|(fd, flags)| (Token::Console, fd, flags));
        let typed = self.task.console_input_fd().map(|fd| (Token::ConsoleInput, fd, input));
        let execs = self.task.exec_fds().map(|(exec, fd, flags)| (Token::Exec(exec), fd, flags));
        let connections = self
            .connections
            .iter()
            .map(|(number, connection)| (Token::Connection(*number), connection.fd(), connection.wanted()));
        let own = listener
            .into_iter()
            .chain([signals])
            .chain(operation)
            .chain(init)
            .chain(output)
            .chain(console)
            .chain(typed);
        own.chain(execs).chain(connections)
    }

    fn dispatch(&mut self, token: Token, ready: PollFlags) {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => self.take_signals(),
            Token::Operation => self.task.on_operation_done(),
            Token::Init => self.task.on_init_ended(),
            Token::Output(stream) => self.task.pump.on_readable(stream),
            Token::Console => self.task.on_console_ready(ready),
            Token::ConsoleInput => self.task.on_console_input(),
            Token::Exec(exec) => self.task.on_exec_ready(exec),
            Token::Connection(number) => self.serve(number, ready),
        }
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            Ok((stream, _)) => self.welcome(stream),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                self.diagnostics.warn(format_args!("accept a connection: {error}"));
                self.accept_after = Some(clock::monotonic() + ACCEPT_AGAIN);
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream) {
        let uid = match getsockopt(&stream, PeerCredentials) {
            Ok(credentials) => credentials.uid(),
            Err(errno) => return self.diagnostics.warn(format_args!("look who is calling: {errno}")),
        };
        if let Err(error) = stream.set_nonblocking(true) {
            return self.diagnostics.warn(format_args!("make a connection non-blocking: {error}"));
        }
        if uid != 0 && uid != nix::unistd::getuid().as_raw() {
            return refuse::<ShimSocket>(&stream, &Refusal::Forbidden { uid });
        }
        if self.connections.len() >= MAX_CONNECTIONS {
            let limit = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
            return refuse::<ShimSocket>(&stream, &Refusal::TooManyConnections { limit });
        }
        self.unclaimed_until = None;
        let connection = Polled::new(stream, AGENT, clock::monotonic());
        self.connections.insert(self.next_connection, connection);
        self.next_connection += 1;
    }

    fn serve(&mut self, number: u64, ready: PollFlags) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        match connection.on_ready(ready) {
            Ok(calls) => {
                for Received { call, fds } in calls {
                    self.task.call(CallRef { connection: number, call: call.id }, &call.request, fds);
                }
            }
            Err(end) => self.end(number, &end),
        }
    }

    fn end(&mut self, number: u64, end: &ConnectionEnd) {
        if !matches!(end, ConnectionEnd::Gone) {
            self.diagnostics.error(end);
        }
        self.connections.remove(&number);
        self.task.forget(number);
    }

    /// Brings answers to their connections; those of a connection that is gone are dropped.
    fn deliver(&mut self) {
        for Answer { caller, result, fds } in self.task.take_replies() {
            let Some(connection) = self.connections.get_mut(&caller.connection) else { continue };
            if let Err(end) = connection.answer(caller.call, result, fds) {
                self.end(caller.connection, &end);
            }
        }
    }

    fn drop_ended(&mut self, now: Instant) {
        if self.accept_after.is_some_and(|after| after <= now) {
            self.accept_after = None;
        }
        let ended: Vec<_> = self
            .connections
            .iter()
            .filter_map(|(number, connection)| Some((*number, connection.check(now).err()?)))
            .collect();
        for (number, end) in ended {
            self.end(number, &end);
        }
    }

    /// Empties the signal descriptor. SIGCHLD and SIGTERM mean something; the others are taken so that they do nothing.
    fn take_signals(&mut self) {
        loop {
            match self.signals.read_signal() {
                Ok(Some(info)) => match Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or_default()) {
                    Ok(Signal::SIGCHLD) => self.is_reaping_due = true,
                    Ok(Signal::SIGTERM) => {
                        if !self.is_told_to_end {
                            self.diagnostics.info(format_args!("told to end by process {}", info.ssi_pid));
                        }
                        self.is_told_to_end = true;
                    }
                    _ => {
                        let (signal, pid) = (info.ssi_signo, info.ssi_pid);
                        self.diagnostics.warn(format_args!("signal {signal} from {pid} is ignored"));
                    }
                },
                Ok(None) => return,
                Err(errno) => return self.diagnostics.warn(format_args!("read signals: {errno}")),
            }
        }
    }
}

/// Rounded up to a millisecond, so that what is due is due when we wake.
fn timeout(deadline: Option<Instant>, now: Instant) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let left = deadline.saturating_duration_since(now) + Duration::from_micros(999);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
