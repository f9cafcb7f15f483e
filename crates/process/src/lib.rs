//! Forks a process, and has it part with the one that started it.
//!
//! Takes in: nothing but the process that it is. Gives out: the two sides of a fork, and the child's word. Never does: start
//! threads, or look after a child. Blocks until the child has told how it came up.
//!
//! ```text
//!  program ── fork_and_wait ──► Parent: waits for the word, ends
//!                 └───────────► Child: detach, come up, ready ──► serves
//! ```
#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "fork, _exit and close_range, which no crate offers safely")]
mod sys;

use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};

use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

pub use sys::{Fork, close_all_but, exit_now, fork, take_passed};

/// The first word of a child that is ready; anything else says why it is not.
const READY: &[u8] = b"ready";

/// The most bytes that are read of why a child is not ready.
const MAX_WORDS_BYTES: u64 = 64 * 1024;

/// Which process goes on here.
#[derive(Debug)]
pub enum Side {
    /// The one that was there before, with what the child has told.
    Parent(io::Result<Word>),
    /// The new one.
    Child(ReadyPipe),
}

/// The word of a child about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It is ready.
    Ready,
    /// It is not, in its own words; they are empty when it ended without any.
    Failed(Vec<u8>),
}

/// How a child tells its parent that it is ready, or why not. Only the first word is heard.
#[derive(Debug)]
pub struct ReadyPipe(PipeWriter);

impl ReadyPipe {
    /// Tells that this process is ready; the parent goes on.
    ///
    /// # Errors
    /// The parent is gone.
    pub fn ready(&self) -> io::Result<()> {
        (&self.0).write_all(READY)
    }

    /// Tells why it is not. A parent that is gone does not hear it.
    pub fn failed(&self, words: &[u8]) {
        let _unheard = (&self.0).write_all(words);
    }
}

/// Forks, and waits in the parent for the word of the child.
///
/// # Errors
/// No process or no pipe can be made, or this process has more than one thread.
pub fn fork_and_wait() -> io::Result<Side> {
    let (reader, writer) = io::pipe()?;
    Ok(match fork()? {
        Fork::Child => Side::Child(ReadyPipe(writer)),
        Fork::Parent(_) => {
            drop(writer);
            Side::Parent(hear(reader))
        }
    })
}

fn hear(reader: PipeReader) -> io::Result<Word> {
    let mut reader = reader.take(MAX_WORDS_BYTES);
    let (mut words, mut chunk) = (Vec::new(), [0; 4096]);
    // Not to the end for one that is ready: it may keep the pipe, and say more.
    while !words.starts_with(READY) {
        match reader.read(&mut chunk)? {
            0 => return Ok(Word::Failed(words)),
            len => words.extend_from_slice(chunk.get(..len).unwrap_or_default()),
        }
    }
    Ok(Word::Ready)
}

/// Leaves the session, the directory and the standard streams of the process that started this one. Files are made with
/// `mask` taken off their mode from now on.
///
/// # Errors
/// The kernel's.
pub fn detach(mask: Mode) -> io::Result<()> {
    setsid()?;
    chdir("/")?;
    umask(mask);
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(say: impl FnOnce(&ReadyPipe) + Send + 'static, keeps: bool) -> Word {
        let (reader, writer) = io::pipe().unwrap();
        let pipe = ReadyPipe(writer);
        say(&pipe);
        let kept = keeps.then_some(pipe);
        let word = hear(reader).unwrap();
        drop(kept);
        word
    }

    #[test]
    fn the_first_word_is_heard_whether_or_not_its_pipe_is_kept() {
        assert_eq!(heard(|pipe| pipe.ready().unwrap(), true), Word::Ready);
        assert_eq!(heard(|pipe| pipe.ready().unwrap(), false), Word::Ready);
        assert_eq!(heard(|pipe| pipe.failed(b"no room"), false), Word::Failed(b"no room".to_vec()));
        assert_eq!(heard(|_| {}, false), Word::Failed(Vec::new()));
    }

    #[test]
    fn a_process_with_threads_does_not_fork() {
        // The test runner has started this thread beside its own.
        let error = fork().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    }
}
