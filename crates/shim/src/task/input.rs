//! The input of the container, and its terminal.

use std::os::fd::{BorrowedFd, OwnedFd};

use contd_protocol::shim::{Response, TaskInput};
use contd_types::WindowSize;
use nix::poll::PollFlags;

use super::{Answer, CallRef, Task};
use crate::console::Console;
use crate::error::TaskError;
use crate::input::{self, Input};
use crate::pump::PumpError;
use crate::runtime::Stdio;

const NO_TERMINAL: &str = "it has no terminal: it must be made with one (`contd run -t`)";

impl Task {
    /// Opens the container's ends of its input and output.
    pub(super) fn open_stdio(&mut self) -> Result<Stdio, TaskError> {
        self.close_input_and_terminal();
        let mut stdio = self.pump.open().map_err(|source| self.no_output(source))?;
        let TaskInput { is_open, has_terminal } = self.spec.input;
        if is_open {
            let (input, reader) = Input::make(&self.dir, has_terminal).map_err(|source| self.no_input(source))?;
            self.input = Some(input);
            stdio.stdin = (!has_terminal).then_some(reader);
        }
        self.open_console()?;
        Ok(stdio)
    }

    fn open_console(&mut self) -> Result<(), TaskError> {
        if self.spec.input.has_terminal {
            let writer = self.pump.open_writer().map_err(|source| self.no_output(source))?;
            let console = Console::new(&self.dir, writer, self.input.is_some());
            self.console = Some(console.map_err(|source| self.no_input(source))?);
        }
        Ok(())
    }

    /// Goes on with the input of a predecessor's container, whose output is open already.
    pub(super) fn adopt_input(&mut self) -> Result<(), TaskError> {
        let TaskInput { is_open, has_terminal } = self.spec.input;
        if is_open {
            self.input = Input::adopt(&self.dir, has_terminal).map_err(|source| self.no_input(source))?;
        }
        self.open_console()
    }

    /// The container is made; this is its terminal.
    pub(super) fn take_terminal(&mut self, master: OwnedFd) -> Result<(), TaskError> {
        let Some(console) = &mut self.console else { return Ok(()) };
        console.give(master).map_err(|source| TaskError::Terminal { id: self.spec.id.clone(), source })
    }

    /// Lets go of all ends, and drops what lies in them.
    pub(super) fn close_stdio(&mut self) {
        self.close_input_and_terminal();
        self.pump.close();
    }

    fn close_input_and_terminal(&mut self) {
        (self.console, self.input) = (None, None);
        if self.spec.input.is_open
            && let Err(error) = input::remove_from(&self.dir)
        {
            self.diagnostics.warn(format_args!("remove the FIFO of the input: {error}"));
        }
    }

    /// Lets the process read the end of its input.
    pub(super) fn close_input(&mut self) -> Result<Option<Response>, TaskError> {
        if !self.spec.input.has_terminal
            && let Some(input) = &mut self.input
        {
            input.close().map_err(|source| TaskError::Input { id: self.spec.id.clone(), source })?;
        }
        Ok(Some(Response::Done))
    }

    pub(super) fn resize(&self, size: WindowSize) -> Result<Option<Response>, TaskError> {
        let console = self.console.as_ref().ok_or_else(|| self.forbidden("resize the terminal of", NO_TERMINAL))?;
        let resized = console.resize(size).map_err(|source| TaskError::Terminal { id: self.spec.id.clone(), source });
        resized.map(|()| Some(Response::Done))
    }

    /// Gives the master to whoever keeps it beside us.
    pub(super) fn show_terminal(&mut self, caller: CallRef) -> Result<Option<Response>, TaskError> {
        let console = self.console.as_ref().ok_or_else(|| self.forbidden("look at the terminal of", NO_TERMINAL))?;
        let master = console.master().map(|master| master.try_clone_to_owned()).transpose();
        let master = master.map_err(|source| TaskError::Terminal { id: self.spec.id.clone(), source })?;
        let result = Ok(Response::Terminal { is_there: master.is_some() });
        self.replies.push(Answer { caller, result, fds: master.into_iter().collect() });
        Ok(None)
    }

    /// Takes the master back that a predecessor has died with.
    pub(super) fn give_terminal(&mut self, fds: Vec<OwnedFd>) -> Result<Option<Response>, TaskError> {
        if self.console.is_none() {
            return Err(self.forbidden("give a terminal to", NO_TERMINAL));
        }
        // The session has counted them.
        fds.into_iter().try_for_each(|master| self.take_terminal(master))?;
        Ok(Some(Response::Done))
    }

    /// Returns what to wait for at the terminal.
    pub(crate) fn console_fd(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.console.as_ref().and_then(|console| console.wanted(self.pump.takes()))
    }

    /// Returns where what is typed comes from, when the terminal takes it.
    pub(crate) fn console_input_fd(&self) -> Option<BorrowedFd<'_>> {
        self.console.as_ref().and_then(Console::wanted_input)
    }

    /// Moves what is there at the terminal.
    pub(crate) fn on_console_ready(&mut self, ready: PollFlags) {
        if let Some(console) = &mut self.console {
            console.on_ready(ready);
        }
    }

    /// Moves what was typed.
    pub(crate) fn on_console_input(&mut self) {
        if let Some(console) = &mut self.console {
            console.on_input();
        }
    }

    fn no_input(&self, source: std::io::Error) -> TaskError {
        TaskError::Input { id: self.spec.id.clone(), source }
    }

    fn no_output(&self, source: PumpError) -> TaskError {
        TaskError::Output { id: self.spec.id.clone(), source }
    }
}
