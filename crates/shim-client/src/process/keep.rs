//! Descriptors that this process holds open for each running container, so that nothing is lost when its shim dies: init's
//! pidfd, by which the kernel tells the exit after init was reaped, and readers of the FIFOs, without which output that
//! was not taken yet would go with the last writer. Of a container whose standard input is open, a writer of that, or it would read
//! the end; of one with a terminal, its master, or all its processes would be hung up on.
//!
//! A reader that nobody reads from changes nothing for the shim: the end of the file depends on writers only.
//!
//! All of it has names, `contd-<16 hex>-init|stdout|stderr|stdin|terminal`, under which a [`Vault`] keeps it beyond this process and a
//! predecessor hands it to its successor.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contd_protocol::shim::{TaskSpec, files};
use contd_types::ContainerId;

use super::{DIR_DIGITS, Place, dir_name};
use crate::vault::{NoVault, Vault};

/// The prefix of every name.
const PREFIX: &str = "contd-";

/// One of the descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Init,
    Stdout,
    Stderr,
    Stdin,
    Terminal,
}

impl Part {
    const ALL: [Self; 5] = [Self::Init, Self::Stdout, Self::Stderr, Self::Stdin, Self::Terminal];

    fn word(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Stdin => "stdin",
            Self::Terminal => "terminal",
        }
    }

    fn name(self, digits: &str) -> String {
        format!("{PREFIX}{digits}-{}", self.word())
    }

    /// Takes a name apart; `None` when it is none of ours.
    fn parse(name: &str) -> Option<(&str, Self)> {
        let (digits, word) = name.strip_prefix(PREFIX)?.split_once('-')?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_ours = digits.len() == DIR_DIGITS && digits.bytes().all(is_digit);
        let part = Self::ALL.into_iter().find(|part| part.word() == word)?;
        is_ours.then_some((digits, part))
    }
}

/// Tells whether a descriptor of this name is one that [`ProcessShimClient`](super::ProcessShimClient) keeps.
pub fn is_kept_name(name: &str) -> bool {
    Part::parse(name).is_some()
}

/// The descriptors of one container; some may be missing that a predecessor could not keep.
#[derive(Debug, Default)]
struct Kept {
    init: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    /// Whether there is a terminal to hold; not known of what was taken back.
    has_terminal: Option<bool>,
}

impl Kept {
    fn part(&mut self, part: Part) -> &mut Option<OwnedFd> {
        match part {
            Part::Init => &mut self.init,
            Part::Stdout => &mut self.stdout,
            Part::Stderr => &mut self.stderr,
            Part::Stdin => &mut self.stdin,
            Part::Terminal => &mut self.terminal,
        }
    }

    /// Tells whether nothing is missing and init still runs: it is not that of an earlier start.
    fn is_current(&self) -> bool {
        let is_dead = |init| contd_lease::wait_dead(init, Duration::ZERO).unwrap_or(true);
        self.stdout.is_some() && self.stderr.is_some() && self.init.as_ref().is_some_and(|init| !is_dead(init))
    }
}

/// All that is held, by the digits that name a container's directory.
#[derive(Debug)]
pub(super) struct Keep {
    held: Mutex<HashMap<String, Kept>>,
    vault: Arc<dyn Vault>,
}

impl Default for Keep {
    fn default() -> Self {
        Self::new(Arc::new(NoVault))
    }
}

impl Keep {
    pub(super) fn new(vault: Arc<dyn Vault>) -> Self {
        Self { held: Mutex::default(), vault }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        // No code under the lock can panic half-way through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back what an earlier process held; `is_there` tells whether the directory of these digits still exists.
    pub(super) fn take_back(
        &self,
        named: impl IntoIterator<Item = (String, OwnedFd)>,
        is_there: impl Fn(&str) -> bool,
    ) {
        for (name, fd) in named {
            match Part::parse(&name) {
                Some((digits, part)) if is_there(digits) => {
                    *self.map().entry(digits.to_owned()).or_default().part(part) = Some(fd);
                }
                // Its container was removed while nobody could let go of it.
                _ => self.vault.remove(name),
            }
        }
    }

    /// Gives all away, with the names; nothing is held from here on, and the vault keeps what it has.
    pub(super) fn release(&self) -> Vec<(String, OwnedFd)> {
        let held = std::mem::take(&mut *self.map());
        let mut all = Vec::new();
        for (digits, mut kept) in held {
            let parts = Part::ALL.into_iter().filter_map(|part| Some((part.name(&digits), kept.part(part).take()?)));
            all.extend(parts);
        }
        all
    }

    /// Holds what there is of a container that was made; it is fine when it has ended. Returns whether it has a terminal, whose master
    /// is got otherwise. Blocks for a few local opens.
    pub(super) fn hold(&self, place: &Place) -> bool {
        let digits = dir_name(&place.id);
        if let Some(kept) = self.map().get_mut(digits).filter(|kept| kept.is_current()) {
            return *kept.has_terminal.get_or_insert_with(|| has_terminal(place));
        }
        let open = || -> io::Result<Option<Kept>> {
            let Some(init) = place.living_init()? else { return Ok(None) };
            let (stdout, stderr) = (open_fifo(place, files::STDOUT)?, open_fifo(place, files::STDERR)?);
            let has_terminal = has_terminal(place);
            // The reader of what is typed at a terminal is the shim: without another one, callers who type while it is dead would be told
            // that nobody reads any more.
            let stdin = open_stdin(place, OpenOptions::new().read(has_terminal).write(true))?;
            let has_terminal = Some(has_terminal);
            Ok(Some(Kept {
                init: Some(init),
                stdout: Some(stdout),
                stderr: Some(stderr),
                stdin,
                terminal: None,
                has_terminal,
            }))
        };
        match open() {
            Ok(Some(mut kept)) => {
                for part in Part::ALL {
                    if let Some(fd) = kept.part(part) {
                        self.keep_in_vault(part, digits, fd);
                    }
                }
                let has_terminal = kept.has_terminal == Some(true);
                let former = self.map().insert(digits.to_owned(), kept);
                drop(former);
                // A removal takes the lease directory before it lets go: if the directory is gone, no later step would let go of this.
                if !place.lease.path().exists() {
                    self.let_go(&place.id);
                }
                has_terminal
            }
            Ok(None) => false,
            // It runs all the same; only the death of its shim would cost something now.
            Err(error) => {
                tracing::warn!(container = %place.id, %error, "no second holder of its descriptors");
                false
            }
        }
    }

    fn keep_in_vault(&self, part: Part, digits: &str, fd: &OwnedFd) {
        // Best effort, as the vault itself.
        if let Ok(fd) = fd.try_clone() {
            self.vault.store(part.name(digits), fd);
        }
    }

    /// Holds the master of the terminal of a container that is held.
    pub(super) fn hold_terminal(&self, place: &Place, terminal: OwnedFd) {
        let digits = dir_name(&place.id);
        let mut map = self.map();
        let Some(kept) = map.get_mut(digits) else { return };
        self.keep_in_vault(Part::Terminal, digits, &terminal);
        kept.terminal = Some(terminal);
    }

    /// Returns the master of a container's terminal, for a successor of its shim.
    pub(super) fn terminal(&self, id: &ContainerId) -> Option<OwnedFd> {
        self.map().get(dir_name(id)).and_then(|kept| kept.terminal.as_ref()?.try_clone().ok())
    }

    /// Lets go of a container's standard input, which was closed.
    pub(super) fn close_input(&self, id: &ContainerId) {
        let digits = dir_name(id);
        let stdin = self.map().get_mut(digits).and_then(|kept| kept.stdin.take());
        if stdin.is_some() {
            self.vault.remove(Part::Stdin.name(digits));
        }
    }

    /// Lets go: its end is written down, or nothing of it is left.
    pub(super) fn let_go(&self, id: &ContainerId) {
        let digits = dir_name(id);
        let kept = self.map().remove(digits);
        if kept.is_some() {
            Part::ALL.into_iter().for_each(|part| self.vault.remove(part.name(digits)));
        }
    }

    /// Returns a pidfd of init for a successor of the shim.
    pub(super) fn init(&self, id: &ContainerId) -> Option<OwnedFd> {
        self.map().get(dir_name(id)).and_then(|kept| kept.init.as_ref()?.try_clone().ok())
    }
}

/// Reads whether a container has a terminal.
fn has_terminal(place: &Place) -> bool {
    place.read::<TaskSpec>(files::TASK).is_some_and(|task| task.input.has_terminal)
}

/// Opens a writing end of a container's standard input; `None` when it is not open, or nobody reads it. It does not block.
pub(super) fn open_input(place: &Place) -> io::Result<Option<OwnedFd>> {
    open_stdin(place, OpenOptions::new().write(true))
}

fn open_stdin(place: &Place, options: &mut OpenOptions) -> io::Result<Option<OwnedFd>> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOFOLLOW;
    match options.custom_flags(flags.bits()).open(place.file(files::STDIN)) {
        Ok(file) => Ok(Some(file.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_fifo(place: &Place, name: &str) -> io::Result<OwnedFd> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(place.file(name));
    file.map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers the names.
    #[derive(Debug, Default)]
    struct Log(Mutex<Vec<String>>);

    impl Vault for Log {
        fn store(&self, name: String, _fd: OwnedFd) {
            self.0.lock().unwrap().push(format!("+{name}"));
        }

        fn remove(&self, name: String) {
            self.0.lock().unwrap().push(format!("-{name}"));
        }
    }

    fn any() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn named(names: &[&str]) -> Vec<(String, OwnedFd)> {
        names.iter().map(|name| ((*name).to_owned(), any())).collect()
    }

    #[test]
    fn names_are_taken_apart_or_refused() {
        assert_eq!(Part::parse("contd-0123456789abcdef-stderr"), Some(("0123456789abcdef", Part::Stderr)));
        for foreign in [
            "contd.socket",
            "contd-listener",
            "contd-0123456789abcdeg-init",
            "contd-0123-init",
            "contd-0123456789abcdef-x",
        ] {
            assert!(!is_kept_name(foreign), "{foreign}");
        }
    }

    #[test]
    fn what_is_taken_back_is_given_away_again_under_the_same_names() {
        let keep = Keep::default();
        let names = Part::ALL.map(|part| part.name("0123456789abcdef"));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        keep.take_back(named(&names), |_| true);
        let id = ContainerId::new("0123456789abcdef0123456789abcdef").unwrap();
        assert!(keep.init(&id).is_some());
        let given: Vec<String> = keep.release().into_iter().map(|(name, _)| name).collect();
        assert_eq!(given, names);
        assert!(keep.init(&id).is_none());
    }

    #[test]
    fn what_belongs_to_no_container_any_more_leaves_the_vault() {
        let log = Arc::new(Log::default());
        let keep = Keep::new(Arc::clone(&log) as Arc<dyn Vault>);
        keep.take_back(named(&["contd-0123456789abcdef-init", "contd-ffffffffffffffff-init"]), |digits| {
            digits.starts_with('0')
        });
        assert_eq!(*log.0.lock().unwrap(), ["-contd-ffffffffffffffff-init"]);
        keep.let_go(&ContainerId::new("0123456789abcdef0123456789abcdef").unwrap());
        assert_eq!(log.0.lock().unwrap().len(), 1 + Part::ALL.len());
    }
}
