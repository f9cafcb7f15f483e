//! Reads images from the list `manifest.json` that `docker save` and `podman save` write.

use serde::Deserialize;

use crate::ImportError;
use crate::config::ImageConfig;
use crate::digest::{Digest, shortened};
use crate::manifest::{Image, MAX_LAYERS, Parts, Stored, decode, diff_ids};

/// One image of the list.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SavedImage {
    pub(super) config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl SavedImage {
    pub(super) fn names(&self) -> Vec<String> {
        self.repo_tags.clone().unwrap_or_default()
    }

    /// Returns the digest of the configuration if its path contains one, as `docker images` shows it; otherwise the path.
    pub(super) fn id(&self) -> String {
        self.config_digest().map_or_else(|| self.config.clone(), |digest| digest.to_string())
    }

    /// Reads the digest of the configuration from its file name, which is the same in both forms of the archive.
    fn config_digest(&self) -> Option<Digest> {
        let name = self.config.rsplit('/').next().unwrap_or_default();
        Digest::of_file_name(name).or_else(|| Digest::of_file_name(&format!("{name}.json")))
    }
}

/// Finds the configuration and the layers by their paths, and verifies the configuration.
pub(super) fn image_of(parts: &Parts<'_>, image: &SavedImage, name: Option<String>) -> Result<Image, ImportError> {
    let paths = image.layers.as_deref().unwrap_or_default();
    if paths.len() > MAX_LAYERS {
        let what = "manifest.json".to_owned();
        return Err(ImportError::TooLarge { what, limit: MAX_LAYERS as u64, unit: "layers" });
    }
    let path = shortened(&image.config);
    let bytes = parts.layout().document(&image.config)?.ok_or_else(|| ImportError::Missing { what: path.clone() })?;
    if let Some(digest) = image.config_digest() {
        let mut hasher = digest.hasher();
        hasher.update(&bytes);
        digest.check(&path, &hasher.finish())?;
    }
    let config: ImageConfig = decode(&path, &bytes)?;
    let diff_ids = diff_ids(&config, &path, paths.len())?;
    let mut layers = Vec::with_capacity(paths.len());
    for (path, diff_id) in paths.iter().zip(diff_ids) {
        let bytes = parts.layout().must_have(path)?.len();
        layers.push(Stored { path: path.clone(), digest: None, diff_id, bytes });
    }
    Ok(Image { name, digest: None, config, layers })
}
