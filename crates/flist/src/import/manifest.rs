//! From an opened image to the one that is meant: its configuration and its layers.
//!
//! ```text
//! oci-layout, index.json ──> (nested indexes) ──> name, platform ──> manifest ──┬─> config, layers: digest and size
//! manifest.json (docker save) ───────────────────> name ────────────────────────┘   config, layers: paths
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ImportError;
use super::config::ImageConfig;
use super::digest::{Digest, Hashed, shortened};
use super::layout::{Layout, MAX_DOCUMENT_BYTES};
use super::platform::Platform;

/// Indexes in indexes: two are real, of a registry export of multi-platform images.
const MAX_NESTING: usize = 4;

/// The most manifests that are chosen from.
const MAX_MANIFESTS: usize = 1024;

/// The most layers of an image; overlay file systems take 500, and `docker` 127.
const MAX_LAYERS: usize = 1024;

/// The annotations by which an image has a name.
const NAME_ANNOTATIONS: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// Says of a manifest that it is no image, but about one.
const ABOUT_ANNOTATION: &str = "vnd.docker.reference.type";

/// What is wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) platform: Option<&'a Platform>,
}

/// The image that is meant.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) name: Option<String>,
    /// The digest of its manifest; an archive of `docker save` has none.
    pub(super) digest: Option<Digest>,
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Stored>,
}

/// A layer as it is stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) path: String,
    /// What it must be as it is stored, where the image says that.
    pub(super) digest: Option<Digest>,
    /// What its tar must be.
    pub(super) diff_id: Digest,
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    fn names(&self) -> impl Iterator<Item = &str> {
        let annotations = self.annotations.as_ref();
        NAME_ANNOTATIONS.iter().filter_map(move |key| annotations?.get(*key).map(String::as_str))
    }

    fn is_about_another(&self) -> bool {
        self.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(ABOUT_ANNOTATION))
            || self.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    }

    fn is_index(&self) -> bool {
        self.media_type.ends_with("image.index.v1+json") || self.media_type.ends_with("manifest.list.v2+json")
    }
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// One manifest that may be the one.
#[derive(Debug)]
struct Candidate {
    names: Vec<String>,
    descriptor: Descriptor,
    platform: Option<Platform>,
}

/// Finds the image that is meant. Everything it gives was verified, but for the layers.
pub(super) fn find(layout: &Layout, source: &Path, wanted: &Wanted<'_>) -> Result<Image, ImportError> {
    if let (Some(_), Some(index)) = (layout.document("oci-layout")?, layout.document("index.json")?) {
        return find_in_layout(layout, &decode("index.json", &index)?, wanted);
    }
    match layout.document("manifest.json")? {
        Some(saved) => find_saved(layout, &decode::<Vec<SavedImage>>("manifest.json", &saved)?, wanted),
        None => Err(ImportError::NotAnImage { path: source.to_owned() }),
    }
}

fn find_in_layout(layout: &Layout, index: &Index, wanted: &Wanted<'_>) -> Result<Image, ImportError> {
    let mut candidates = Vec::new();
    collect(layout, index, &[], 0, &mut candidates)?;
    let candidate = choose(layout, candidates, wanted)?;
    let (digest, manifest) = manifest(layout, &candidate.descriptor)?;
    let config = config(layout, &manifest)?;
    check_platform(&config, wanted)?;
    if manifest.layers.len() > MAX_LAYERS {
        return Err(ImportError::TooLarge { what: digest.path(), limit: MAX_LAYERS as u64, unit: "layers" });
    }
    let diff_ids = diff_ids(&config, &digest.path(), manifest.layers.len())?;
    let layers = manifest.layers.iter().zip(diff_ids).map(|(layer, diff_id)| stored(layer, diff_id));
    Ok(Image {
        name: candidate.names.first().cloned(),
        layers: layers.collect::<Result<_, _>>()?,
        digest: Some(digest),
        config,
    })
}

/// Collects all manifests of an index and of those in it. A name holds for all below it.
fn collect(
    layout: &Layout,
    index: &Index,
    names: &[String],
    nesting: usize,
    candidates: &mut Vec<Candidate>,
) -> Result<(), ImportError> {
    for descriptor in &index.manifests {
        if descriptor.is_about_another() {
            continue;
        }
        let mut names = names.to_vec();
        names.extend(descriptor.names().map(str::to_owned));
        if descriptor.is_index() {
            let (digest, bytes) = document(layout, descriptor)?;
            if nesting >= MAX_NESTING {
                let (limit, unit) = (MAX_NESTING as u64, "indexes in one another");
                return Err(ImportError::TooLarge { what: digest.path(), limit, unit });
            }
            collect(layout, &decode(&digest.path(), &bytes)?, &names, nesting + 1, candidates)?;
            continue;
        }
        if candidates.len() >= MAX_MANIFESTS {
            let (limit, unit) = (MAX_MANIFESTS as u64, "manifests");
            return Err(ImportError::TooLarge { what: "index.json".to_owned(), limit, unit });
        }
        let platform = descriptor.platform.clone();
        candidates.push(Candidate { names, descriptor: descriptor.clone(), platform });
    }
    Ok(())
}

/// Chooses by name, then by platform; a single one is it, unless another platform was asked for.
fn choose(layout: &Layout, mut candidates: Vec<Candidate>, wanted: &Wanted<'_>) -> Result<Candidate, ImportError> {
    let all_names = candidates.iter().flat_map(|candidate| candidate.names.clone()).collect::<BTreeSet<_>>();
    let no_such = |asked: Option<&str>| ImportError::NoSuchImage {
        asked: asked.map(str::to_owned),
        there: all_names.iter().map(|name| shortened(name)).collect(),
    };
    match wanted.name {
        Some(name) => {
            candidates.retain(|candidate| candidate.names.iter().any(|of_it| of_it == name));
            if candidates.is_empty() {
                return Err(no_such(Some(name)));
            }
        }
        None if candidates.is_empty() => return Err(no_such(None)),
        None => {
            let first = candidates.first().map(|candidate| candidate.names.clone()).unwrap_or_default();
            if candidates.iter().any(|candidate| candidate.names != first) {
                return Err(no_such(None));
            }
        }
    }
    if candidates.len() == 1 && wanted.platform.is_none() {
        return candidates.pop().ok_or_else(|| no_such(None));
    }
    let own = Platform::of_this_machine();
    let platform = wanted.platform.unwrap_or(&own);
    let mut there = Vec::new();
    for candidate in candidates {
        let of_it = match &candidate.platform {
            Some(platform) => platform.clone(),
            None => config(layout, &manifest(layout, &candidate.descriptor)?.1)?.platform(),
        };
        if of_it.serves(platform) {
            return Ok(candidate);
        }
        there.push(shortened(&of_it.to_string()));
    }
    Err(ImportError::NoSuchPlatform { asked: platform.to_string(), there })
}

/// Checks the configuration itself, where a platform was asked for: an index may say anything.
fn check_platform(config: &ImageConfig, wanted: &Wanted<'_>) -> Result<(), ImportError> {
    match wanted.platform {
        Some(asked) if !config.platform().serves(asked) => Err(ImportError::NoSuchPlatform {
            asked: asked.to_string(),
            there: vec![shortened(&config.platform().to_string())],
        }),
        _ => Ok(()),
    }
}

fn manifest(layout: &Layout, descriptor: &Descriptor) -> Result<(Digest, Manifest), ImportError> {
    let (digest, bytes) = document(layout, descriptor)?;
    let manifest = decode(&digest.path(), &bytes)?;
    Ok((digest, manifest))
}

fn config(layout: &Layout, manifest: &Manifest) -> Result<ImageConfig, ImportError> {
    let (digest, bytes) = document(layout, &manifest.config)?;
    decode(&digest.path(), &bytes)
}

/// Reads a small blob and verifies it.
fn document(layout: &Layout, descriptor: &Descriptor) -> Result<(Digest, Vec<u8>), ImportError> {
    let digest = Digest::parse("a descriptor", &descriptor.digest)?;
    let path = digest.path();
    let part = layout.must_have(&path)?;
    check_size(&path, descriptor.size, part.len())?;
    if descriptor.size > MAX_DOCUMENT_BYTES {
        return Err(ImportError::TooLarge { what: path, limit: MAX_DOCUMENT_BYTES, unit: "bytes" });
    }
    let mut bytes = Vec::new();
    let mut reader = Hashed::new(part, Some(digest.hasher()), MAX_DOCUMENT_BYTES);
    reader.read_to_end(&mut bytes).map_err(|source| ImportError::Read { what: path.clone(), source })?;
    if let Some(found) = reader.finish() {
        digest.check(&path, &found)?;
    }
    Ok((digest, bytes))
}

/// Understands the descriptor of a layer.
fn stored(layer: &Descriptor, diff_id: Digest) -> Result<Stored, ImportError> {
    let digest = Digest::parse("the descriptor of a layer", &layer.digest)?;
    // `…layer.v1.tar+gzip`, `…layer.nondistributable.v1.tar+zstd`, `…rootfs.diff.tar.gzip`, `…rootfs.foreign.diff.tar`.
    let (_, form) = layer.media_type.rsplit_once(".tar").unwrap_or(("", &layer.media_type));
    if !matches!(form, "" | "+gzip" | "+zstd" | ".gzip" | ".zstd") {
        return Err(ImportError::Unsupported { what: digest.path(), found: shortened(&layer.media_type) });
    }
    Ok(Stored { path: digest.path(), diff_id, bytes: layer.size, digest: Some(digest) })
}

pub(super) fn check_size(what: &str, expected: u64, found: u64) -> Result<(), ImportError> {
    if expected == found { Ok(()) } else { Err(ImportError::Size { what: what.to_owned(), expected, found }) }
}

fn diff_ids(config: &ImageConfig, what: &str, layers: usize) -> Result<Vec<Digest>, ImportError> {
    let ids = config.diff_ids();
    if ids.len() != layers {
        let reason = "its configuration has another number of layers";
        return Err(ImportError::Malformed { what: what.to_owned(), reason });
    }
    ids.iter().map(|id| Digest::parse("a diff id of the configuration", id)).collect()
}

/// Finds an image in an archive of `docker save` that is no OCI layout.
fn find_saved(layout: &Layout, images: &[SavedImage], wanted: &Wanted<'_>) -> Result<Image, ImportError> {
    let names = |image: &SavedImage| image.repo_tags.clone().unwrap_or_default();
    let there = || images.iter().flat_map(names).map(|name| shortened(&name)).collect::<Vec<_>>();
    let asked = wanted.name.map(str::to_owned);
    let mut fitting =
        images.iter().filter(|image| wanted.name.is_none_or(|name| names(image).iter().any(|of_it| of_it == name)));
    let (Some(image), None) = (fitting.next(), fitting.next()) else {
        return Err(ImportError::NoSuchImage { asked, there: there() });
    };
    if image.layers.len() > MAX_LAYERS {
        let what = "manifest.json".to_owned();
        return Err(ImportError::TooLarge { what, limit: MAX_LAYERS as u64, unit: "layers" });
    }
    let path = shortened(&image.config);
    let bytes = layout.document(&image.config)?.ok_or_else(|| ImportError::Missing { what: path.clone() })?;
    // Its name is its digest, whichever form the archive has.
    let file_name = image.config.rsplit('/').next().unwrap_or_default();
    let digest = Digest::of_file_name(file_name).or_else(|| Digest::of_file_name(&format!("{file_name}.json")));
    if let Some(digest) = digest {
        let mut hasher = digest.hasher();
        hasher.update(&bytes);
        digest.check(&path, &hasher.finish())?;
    }
    let config: ImageConfig = decode(&path, &bytes)?;
    check_platform(&config, wanted)?;
    let diff_ids = diff_ids(&config, &path, image.layers.len())?;
    let mut layers = Vec::with_capacity(image.layers.len());
    for (path, diff_id) in image.layers.iter().zip(diff_ids) {
        let bytes = layout.must_have(path)?.len();
        layers.push(Stored { path: path.clone(), digest: None, diff_id, bytes });
    }
    Ok(Image { name: names(image).first().cloned(), digest: None, config, layers })
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|source| ImportError::Json { what: what.to_owned(), source })
}
