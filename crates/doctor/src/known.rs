//! The containers that have records, so that their things are told apart from leaks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_durable::RealFs;
use contd_store::{DirStore, Store};
use contd_types::{ContainerId, ContainerName, ContainerSummary, NamespaceId};

use crate::error::{LookError, entries};

/// The file of a record, and the beginning of the name of one that was set aside.
pub(crate) const RECORD: &str = "record.json";
const ASIDE: &str = "record.json.damaged-";

/// A record that cannot be read, or that the daemon does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// Its container, by its path.
    pub(crate) id: ContainerId,
    /// Why; empty for one that was set aside.
    pub(crate) why: String,
}

/// The containers that are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    names: BTreeMap<ContainerId, (NamespaceId, ContainerName)>,
    /// Records that a daemon or we could not read. Their containers may run, so all that is theirs is spared.
    pub(crate) unread: Vec<Unread>,
    /// Records that were set aside; spared as well.
    pub(crate) aside: Vec<Unread>,
}

impl Known {
    /// Takes what a daemon lists, and looks for records that it does not know.
    pub(crate) fn by_daemon(state: &Path, listed: &[ContainerSummary]) -> Result<Self, LookError> {
        let name = |one: &ContainerSummary| (one.id.clone(), (one.namespace.clone(), one.name.clone()));
        let mut known = Self { names: listed.iter().map(name).collect(), ..Self::default() };
        for (_, id, dir) in container_dirs(state)? {
            known.find_aside(&dir, &id)?;
            let path = dir.join(RECORD);
            if path.exists() && !known.names.contains_key(&id) {
                known.unread.push(Unread { path, id, why: "the daemon does not know it".to_owned() });
            }
        }
        Ok(known)
    }

    /// Reads the records, without a daemon. Changes nothing, unlike the daemon's own start.
    pub(crate) fn by_store(state: &Path) -> Result<Self, LookError> {
        let mut known = Self::default();
        if !state.exists() {
            return Ok(known);
        }
        let failed = |source: contd_store::StoreError| {
            LookError::path("open the records in", state, std::io::Error::other(source.to_string()))
        };
        let store = DirStore::open(Arc::new(RealFs), state).map_err(failed)?;
        for (namespace, id, dir) in container_dirs(state)? {
            known.find_aside(&dir, &id)?;
            match store.get(&namespace, &id) {
                Ok(Some(record)) => drop(known.names.insert(id, (namespace, record.spec.name))),
                Ok(None) => {}
                Err(error) => {
                    let why = contd_types::ApiError::from_error(&error).chain();
                    known.unread.push(Unread { path: dir.join(RECORD), id, why });
                }
            }
        }
        Ok(known)
    }

    fn find_aside(&mut self, dir: &Path, id: &ContainerId) -> Result<(), LookError> {
        let is_aside = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(ASIDE));
        let found = entries(dir)?.into_iter().filter(is_aside);
        self.aside.extend(found.map(|path| Unread { path, id: id.clone(), why: String::new() }));
        Ok(())
    }

    /// Tells whether a container has a record that can be read.
    pub(crate) fn is_listed(&self, id: &ContainerId) -> bool {
        self.names.contains_key(id)
    }

    /// Tells whether a container has a record, readable or not.
    pub(crate) fn has(&self, id: &ContainerId) -> bool {
        self.names.contains_key(id) || self.unread.iter().chain(&self.aside).any(|unread| unread.id == *id)
    }

    /// Tells whether a name of a lease directory can be that of a container with a record.
    pub(crate) fn has_beginning(&self, digits: &str) -> bool {
        let spared = self.unread.iter().chain(&self.aside).map(|unread| &unread.id);
        self.names.keys().chain(spared).any(|id| id.as_str().starts_with(digits))
    }

    /// Tells whether a log's name is that of a container with a record.
    pub(crate) fn has_name(&self, namespace: &str, name: &str) -> bool {
        self.names.values().any(|(its, own)| its.as_str() == namespace && own.as_str() == name)
    }

    /// Returns how many containers have a readable record.
    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }
}

/// Lists the directories of containers below the state directory, with what their paths say.
pub(crate) fn container_dirs(state: &Path) -> Result<Vec<(NamespaceId, ContainerId, PathBuf)>, LookError> {
    let mut found = Vec::new();
    for dir in entries(state)? {
        let Some(namespace) = named(&dir).and_then(|name| NamespaceId::new(name).ok()) else { continue };
        for dir in entries(&dir)? {
            if let Some(id) = named(&dir).and_then(|name| ContainerId::new(name).ok()) {
                found.push((namespace.clone(), id, dir));
            }
        }
    }
    Ok(found)
}

fn named(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_read_spares_its_container_and_nothing_is_changed() {
        let state = tempfile::tempdir().expect("a directory");
        let (id, aside, other) = ("a".repeat(32), "b".repeat(32), "c".repeat(32));
        for dir in [&id, &aside, &other] {
            std::fs::create_dir_all(state.path().join("default").join(dir)).expect("made");
        }
        let record = state.path().join("default").join(&id).join(RECORD);
        std::fs::write(&record, "{").expect("written");
        std::fs::write(state.path().join("default").join(&aside).join("record.json.damaged-1"), "{").expect("written");
        let known = Known::by_store(state.path()).expect("looked");
        let id = |text: &str| ContainerId::new(text).expect("an id");
        assert_eq!(known.unread.iter().map(|unread| &unread.path).collect::<Vec<_>>(), [&record]);
        assert!(known.has(&id(&"a".repeat(32))) && known.has(&id(&aside)) && !known.has(&id(&other)));
        assert!(known.has_beginning("aaaaaaaaaaaaaaaa") && !known.has_beginning("cccccccccccccccc"));
        assert!(record.exists());
    }

    #[test]
    fn a_record_that_the_daemon_does_not_list_is_told_and_spared() {
        let state = tempfile::tempdir().expect("a directory");
        let dir = state.path().join("default").join("a".repeat(32));
        std::fs::create_dir_all(&dir).expect("made");
        std::fs::write(dir.join(RECORD), "{}").expect("written");
        let known = Known::by_daemon(state.path(), &[]).expect("looked");
        assert_eq!((known.count(), known.unread.len()), (0, 1));
        assert!(known.has(&ContainerId::new("a".repeat(32)).expect("an id")));
    }

    #[test]
    fn a_node_without_a_state_directory_has_no_records_and_gets_none() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Known::by_store(&dir.path().join("none")).expect("looked").count(), 0);
        assert!(!dir.path().join("none").exists());
    }
}
