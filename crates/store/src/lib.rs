//! The daemon's durable knowledge: one record per container, and the event journal.
//!
//! Takes in: [`ContainerRecord`]s and events. Gives out: the same, whole or absent after any crash, and a report of the
//! damaged ones. Never does: decide what a record means, touch the files of other crates in a container's directory,
//! wait on anything but the disk. All calls block; the actors make them on a blocking pool.
//!
//! ```text
//! <root>/<namespace>/<id>/record.json              0600, replaced atomically, durable when the call returns
//! <root>/<namespace>/<id>/intent.json              the same before anybody was told of the container, not synced
//! <root>/<namespace>/<id>/record.json.damaged-<n>  what could not be understood, kept for a person
//! <journal>, <journal>.1                           one JSON line per event, two generations, not synced
//! ```
#![forbid(unsafe_code)]

mod dir;
mod error;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod journal;
mod reader;
mod record;
mod sequencer;
mod store;
#[cfg(test)]
mod tests;

pub use contd_durable;
pub use dir::DirStore;
pub use error::StoreError;
#[cfg(any(test, feature = "testing"))]
pub use fake::{FakeStore, Outcome, StoreCall};
pub use journal::{EventJournal, JournalEntry, JournalError, JournalItem};
pub use reader::{JournalFiles, JournalReader};
pub use record::{ContainerRecord, Desired, MadeWith, RECORD_VERSION};
pub use store::{Damaged, Loaded, Store};
