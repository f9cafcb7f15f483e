//! Bundle directories on disk: `<state>/<namespace>/<id>/bundle/config.json`.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_durable::Fs;
use contd_types::{ContainerId, NamespaceId};

use crate::config::preview;
use crate::error::BundleError;
use crate::own_names;
use crate::request::BundleRequest;
use crate::resolver::HostResolver;

/// The name of the bundle's directory in its container's directory.
const BUNDLE_DIR: &str = "bundle";
/// The file that the runtime reads.
const CONFIG_FILE: &str = "config.json";
/// A configuration holds the environment, which may hold secrets: only the owner may read it.
const DIR_MODE: u32 = 0o700;
/// As [`DIR_MODE`].
const FILE_MODE: u32 = 0o600;

/// The container that a bundle belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleKey {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The container.
    pub id: ContainerId,
}

/// Stores bundles. All calls block, and each may be repeated after any failure.
pub trait Bundles: Send + Sync + Debug {
    /// Makes or replaces a container's bundle and returns its directory.
    ///
    /// # Errors
    /// A [`BundleError`]; an earlier bundle of this container is unchanged.
    fn write(&self, request: &BundleRequest<'_>) -> Result<PathBuf, BundleError>;

    /// Returns where the bundle of a container is, or will be.
    fn dir(&self, namespace: &NamespaceId, id: &ContainerId) -> PathBuf;

    /// Removes a bundle; an absent one is no error. Only legal while no runtime uses it.
    ///
    /// # Errors
    /// [`BundleError::Remove`].
    fn remove(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), BundleError>;

    /// Lists the containers that have a bundle, sorted. Directories with other names are ignored.
    ///
    /// # Errors
    /// [`BundleError::List`].
    fn list(&self) -> Result<Vec<BundleKey>, BundleError>;
}

/// Stores bundles in the state directory.
#[derive(Debug, Clone)]
pub struct DirBundles {
    fs: Arc<dyn Fs>,
    state_dir: PathBuf,
    resolver: HostResolver,
}

impl DirBundles {
    /// Keeps bundles below `state_dir`, which must exist (0700, the daemon's own).
    pub fn new(fs: Arc<dyn Fs>, state_dir: impl Into<PathBuf>) -> Self {
        Self { fs, state_dir: state_dir.into(), resolver: HostResolver::default() }
    }

    fn list_names(&self, dir: &Path) -> Result<Vec<String>, BundleError> {
        match self.fs.list(dir) {
            Ok(names) => Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect()),
            // The directory was removed meanwhile, or it is a file that the store keeps beside the directories.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(Vec::new())
            }
            Err(source) => Err(BundleError::List { path: dir.to_owned(), source }),
        }
    }
}

impl Bundles for DirBundles {
    fn write(&self, request: &BundleRequest<'_>) -> Result<PathBuf, BundleError> {
        let text = preview(request)?;
        let relative = container_dir(request.namespace, request.id).join(BUNDLE_DIR);
        let bundle = self.dir(request.namespace, request.id);
        // Not synced: a bundle is written again before each start, so after a power loss no container uses an old one.
        contd_durable::create_dirs_volatile(self.fs.as_ref(), &self.state_dir, &relative, DIR_MODE)
            .map_err(|source| BundleError::CreateDir { path: bundle.clone(), source })?;
        let own_names = |(path, source)| BundleError::OwnNames { path, source };
        let resolver = self.resolver.text(request.spec).map_err(own_names)?;
        own_names::write(request.root, request.spec, resolver).map_err(own_names)?;
        let file = bundle.join(CONFIG_FILE);
        contd_durable::replace_volatile(self.fs.as_ref(), &file, text.as_bytes(), FILE_MODE)
            .map_err(|source| BundleError::Store { path: file, source })?;
        Ok(bundle)
    }

    fn dir(&self, namespace: &NamespaceId, id: &ContainerId) -> PathBuf {
        self.state_dir.join(container_dir(namespace, id)).join(BUNDLE_DIR)
    }

    fn remove(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), BundleError> {
        let container = self.state_dir.join(container_dir(namespace, id));
        let bundle = self.dir(namespace, id);
        let failed = |source| BundleError::Remove { path: bundle.clone(), source };
        absent_is_fine(self.fs.remove_dir_all(&bundle)).map_err(failed)?;
        // Several crates keep files in this directory; the last one to remove its files removes the directory.
        match absent_is_fine(self.fs.remove_dir(&container)) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(failed(error)),
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<BundleKey>, BundleError> {
        let mut found = Vec::new();
        for namespace in self.list_names(&self.state_dir)?.into_iter().filter_map(|name| NamespaceId::new(name).ok()) {
            let dir = self.state_dir.join(&namespace);
            for id in self.list_names(&dir)?.into_iter().filter_map(|name| ContainerId::new(name).ok()) {
                let bundle = dir.join(id.as_str()).join(BUNDLE_DIR);
                let is_there = self.fs.exists(&bundle);
                if is_there.map_err(|source| BundleError::List { path: bundle.clone(), source })? {
                    found.push(BundleKey { namespace: namespace.clone(), id });
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Returns a container's directory, relative to the state directory. The types guarantee that both parts are names.
fn container_dir(namespace: &NamespaceId, id: &ContainerId) -> PathBuf {
    Path::new(namespace.as_str()).join(id.as_str())
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
