//! Passes what is typed on to a process in a container: to the master of its terminal, or to a FIFO of its standard input.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};

use contd_client::{Attached, ClientError, Deadline, Follower};
use contd_protocol::api::Target;
use contd_types::{ContainerRef, ErrorKind, Explain as _, WindowSize};
use rustix::fs::{OFlags, fcntl_setfl};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cli::error::CliError;
use crate::cli::terminal::{self, DetachKeys, KeyFilter, Raw};

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 16 * 1024;

/// How the typing was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parted {
    /// The user has typed the keys to part.
    Detached,
    /// There is no more input.
    Ended,
}

/// A thread that passes standard input on.
#[derive(Debug)]
pub(crate) struct Typing(Option<oneshot::Receiver<()>>);

impl Typing {
    /// Begins, in a thread of its own: what is read and written there waits.
    pub(crate) fn begin(into: std::fs::File, keys: DetachKeys) -> Self {
        let (part, parted) = oneshot::channel();
        std::thread::spawn(move || type_into(into, keys, part));
        Self(Some(parted))
    }

    /// Is not typing, and never parts.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Waits until it is over; tells it once. Cancellation-safe.
    pub(crate) async fn parted(&mut self) -> Parted {
        let Some(parted) = &mut self.0 else { return std::future::pending().await };
        // The thread lets go of its end without a word when the input is over.
        let how = parted.await.map_or(Parted::Ended, |()| Parted::Detached);
        self.0 = None;
        how
    }
}

/// Passes what is typed on, until the input ends or the keys come.
fn type_into(mut into: std::fs::File, keys: DetachKeys, part: oneshot::Sender<()>) {
    let (mut filter, mut piece) = (KeyFilter::new(keys), [0; PIECE_BYTES]);
    while let Ok(count @ 1..) = io::stdin().lock().read(&mut piece) {
        let (passed, is_detached) = filter.take(piece.get(..count).unwrap_or_default());
        if into.write_all(&passed).is_err() {
            return;
        }
        if is_detached {
            let _ends_already = part.send(());
            return;
        }
    }
}

/// Returns standard input, which is never closed here.
pub(crate) fn stdin() -> BorrowedFd<'static> {
    rustix::stdio::stdin()
}

/// Returns the size of the user's terminal.
pub(crate) fn window_size() -> Option<WindowSize> {
    terminal::size_of(io::stdout()).or_else(|| terminal::size_of(io::stdin()))
}

/// Does something with each new size of the user's terminal, until the task is aborted.
pub(crate) fn on_resize<F: Future<Output = ()> + Send>(
    act: impl Fn(WindowSize) -> F + Send + 'static,
) -> Result<JoinHandle<()>, CliError> {
    let mut changes = signal(SignalKind::window_change()).map_err(|source| CliError::Runtime { source })?;
    Ok(tokio::spawn(async move {
        while changes.recv().await.is_some() {
            if let Some(size) = window_size() {
                act(size).await;
            }
        }
    }))
}

/// This command, attached to the input of a container.
#[derive(Debug)]
pub(crate) struct Session {
    follower: Follower,
    target: Target,
    typing: Typing,
    has_terminal: bool,
    /// As it was when this is dropped.
    _raw: Option<Raw<'static>>,
    resizing: Option<JoinHandle<()>>,
    closing: Option<JoinHandle<Result<(), ClientError>>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(resizing) = &self.resizing {
            resizing.abort();
        }
    }
}

impl Session {
    /// Ties standard input to a container's, and its terminal's size to that of the user's; without `wants_input` only the latter.
    pub(crate) async fn begin(
        follower: &Follower,
        target: Target,
        wants_input: bool,
        keys: DetachKeys,
    ) -> Result<Self, CliError> {
        let attached = follower.client().await.attach(target.clone(), Deadline::Usual).await?;
        let Attached { container, has_terminal, input } = attached;
        // By id: the name may be another container's later.
        let target = Target { container: ContainerRef::from(&container), ..target };
        let failed = |source| CliError::Runtime { source };
        let input = input.filter(|_| wants_input);
        let is_raw = has_terminal && input.is_some() && terminal::size_of(io::stdin()).is_some();
        let resizing = if has_terminal { Some(follow_size(follower, &target).await?) } else { None };
        let raw = if is_raw { Some(Raw::make(stdin()).map_err(failed)?) } else { None };
        let typing = match input {
            Some(input) => Typing::begin(blocking(input).map_err(failed)?, keys),
            None => Typing::none(),
        };
        let follower = follower.clone();
        Ok(Self { follower, target, typing, has_terminal, _raw: raw, resizing, closing: None })
    }

    /// Waits until the user parts; an input that ends is closed, and waited on. Cancellation-safe.
    pub(crate) async fn detached(&mut self) -> Result<(), CliError> {
        loop {
            if let Some(closing) = &mut self.closing {
                let closed = closing.await;
                self.closing = None;
                match closed {
                    Ok(Err(error)) if !is_over(&error) => return Err(error.into()),
                    // It was closed, it has ended, or this command ends.
                    Ok(_) | Err(_) => {}
                }
            }
            match self.typing.parted().await {
                Parted::Detached => return Ok(()),
                Parted::Ended if self.has_terminal => {}
                Parted::Ended => {
                    let (follower, target) = (self.follower.clone(), self.target.clone());
                    self.closing = Some(tokio::spawn(async move { follower.close_input(target).await }));
                }
            }
        }
    }
}

/// Tells whether a container is not there any more, or has ended.
pub(crate) fn is_over(error: &ClientError) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict)
}

/// Gives a container's terminal the size of the user's, now and whenever that changes.
async fn follow_size(follower: &Follower, target: &Target) -> Result<JoinHandle<()>, CliError> {
    let (follower, target) = (follower.clone(), target.clone());
    let resize = move |size| {
        let (follower, target) = (follower.clone(), target.clone());
        async move {
            // One that has ended has no size; a daemon that is away hears of the next one.
            let _over = follower.client().await.resize(target, size, Deadline::Usual).await;
        }
    };
    if let Some(size) = window_size() {
        resize(size).await;
    }
    on_resize(resize)
}

/// Has writes wait for room: the thread has nothing else to do.
fn blocking(input: OwnedFd) -> io::Result<std::fs::File> {
    fcntl_setfl(&input, OFlags::empty())?;
    Ok(input.into())
}
