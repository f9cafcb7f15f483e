//! The signals that an attached run passes on to its container.

use std::io;

use contd_types::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How many signals may wait; more of them would add no information.
const WAITING: usize = 8;

/// Catches SIGHUP, SIGINT, SIGQUIT and SIGTERM from now on. Needs a tokio runtime.
///
/// # Errors
/// The system refuses a signal handler.
pub(crate) fn catch() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    for number in [1u8, 2, 3, 15] {
        let caught = Signal::new(number).map_err(io::Error::other)?;
        let mut arriving = signal(SignalKind::from_raw(i32::from(number)))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while arriving.recv().await.is_some() {
                if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(caught) {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}
