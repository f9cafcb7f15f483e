//! Finds the wanted image in an opened layout: its configuration and its layers.
//!
//! ```text
//! index.json ──> (nested indexes) ──┐
//! manifest.json, an object (skopeo) ┼─> candidates ──name, platform──> manifest ──> config, layers: digest and size
//! manifest.json, a list (docker) ───┘                                     └───────> config, layers: paths
//! ```
//!
//! `docker save` of version 25 and later writes both `index.json` and a list; images of either count.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::ImportError;
use crate::choose::{Candidate, Form, Wanted, choose};
use crate::config::ImageConfig;
use crate::digest::{Digest, Hashed, shortened};
use crate::layout::{Layout, MAX_DOCUMENT_BYTES};
use crate::platform::Platform;
use crate::saved::{self, SavedImage};
use crate::unsupported;

/// The deepest nesting of indexes: registry exports of multi-platform images nest two.
const MAX_NESTING: usize = 4;

/// The most manifests to choose from.
const MAX_MANIFESTS: usize = 1024;

/// The most layers of an image; overlay file systems accept 500, and `docker` 127.
pub(super) const MAX_LAYERS: usize = 1024;

/// The annotations with an image's name; the full name comes before the one that may be only a tag.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// The annotation of a manifest that is not an image, but describes one (an attestation).
const ABOUT_ANNOTATION: &str = "vnd.docker.reference.type";

/// The path of the list of `docker save`, and of the manifest of `skopeo copy … dir:`.
const MANIFEST: &str = "manifest.json";

/// The chosen image.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) name: Option<String>,
    /// The digest of its manifest; an image from an archive of `docker save` may have none.
    pub(super) digest: Option<Digest>,
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Stored>,
}

/// A layer as it is stored in the image.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) path: String,
    /// The expected digest of the stored, maybe compressed, layer; old archives do not say it.
    pub(super) digest: Option<Digest>,
    /// The expected digest of the uncompressed tar.
    pub(super) diff_id: Digest,
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: Option<String>,
    pub(super) digest: String,
    size: u64,
    pub(super) platform: Option<Platform>,
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

    fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or_default()
    }

    fn is_index(&self) -> bool {
        is_index(self.media_type())
    }
}

fn is_index(media_type: &str) -> bool {
    media_type.ends_with("image.index.v1+json") || media_type.ends_with("manifest.list.v2+json")
}

/// An index. Tools write `null` for an empty list.
#[derive(Debug, Deserialize)]
struct Index {
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Option<Vec<Descriptor>>,
}

/// The fields that distinguish the kinds of documents called manifest.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Kind {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

impl Kind {
    fn is_index(&self) -> bool {
        self.media_type.as_deref().is_some_and(is_index) || (self.manifests.is_some() && self.config.is_none())
    }
}

/// The scheme for the paths of an image's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// `blobs/sha256/HEX`.
    Layout,
    /// `HEX`, and `HEX.manifest.json`: the transport `dir:` of skopeo and podman.
    Plain,
}

/// Finds the parts of an image by their digests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    layout: &'a Layout,
    naming: Naming,
}

/// Finds the wanted image. Its documents are verified, its layers not yet.
pub(super) fn find(layout: &Layout, source: &Path, wanted: &Wanted<'_>) -> Result<Image, ImportError> {
    let list = layout.document(MANIFEST)?;
    let is_list = |bytes: &Vec<u8>| bytes.trim_ascii_start().first() != Some(&b'{');
    let index = if layout.has("oci-layout") { layout.document("index.json")? } else { None };
    if index.is_none() {
        if let Some(manifest) = list.as_ref().filter(|list| !is_list(list)) {
            return find_plain(layout, manifest, wanted);
        }
        if list.is_none() {
            return Err(unsupported::named(layout, source));
        }
    }
    let parts = Parts { layout, naming: Naming::Layout };
    let mut candidates = Vec::new();
    if let Some(index) = &index {
        parts.collect(&decode("index.json", index)?, &[], 0, &mut candidates)?;
    }
    let mut candidates = merged(candidates);
    if let Some(list) = list.filter(is_list) {
        match decode::<Option<Vec<SavedImage>>>(MANIFEST, &list) {
            Ok(images) => parts.add_saved(images.unwrap_or_default(), &mut candidates),
            Err(error) if candidates.is_empty() => return Err(error),
            Err(_of_no_use) => {}
        }
    }
    parts.chosen(candidates, wanted)
}

/// Finds the image in a directory of the transport `dir:`, which holds one manifest or an index of several.
fn find_plain(layout: &Layout, bytes: &[u8], wanted: &Wanted<'_>) -> Result<Image, ImportError> {
    let parts = Parts { layout, naming: Naming::Plain };
    let mut candidates = Vec::new();
    if decode::<Kind>(MANIFEST, bytes)?.is_index() {
        parts.collect(&decode(MANIFEST, bytes)?, &[], 0, &mut candidates)?;
        return parts.chosen(merged(candidates), wanted);
    }
    let digest = Digest::of(bytes);
    let image = parts.image_of(&digest, manifest(MANIFEST, bytes)?, None)?;
    check_platform(&image.config, wanted)?;
    match wanted.name {
        None => Ok(image),
        Some(name) => Err(ImportError::NoSuchImage { asked: Some(name.to_owned()), there: Vec::new() }),
    }
}

/// Merges the entries of an index that name one image, such as one entry for each of its tags.
fn merged(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut merged: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        let place = *places.entry(candidate.id.clone()).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(first) => first.add_names(candidate.names),
            None => merged.push(candidate),
        }
    }
    merged
}

impl<'a> Parts<'a> {
    pub(super) fn layout(&self) -> &'a Layout {
        self.layout
    }

    fn blob(&self, digest: &Digest) -> String {
        if self.naming == Naming::Layout { digest.path() } else { digest.hex().to_owned() }
    }

    fn manifest_path(&self, digest: &Digest) -> String {
        if self.naming == Naming::Layout { digest.path() } else { format!("{}.manifest.json", digest.hex()) }
    }

    /// Collects the manifests of an index and of nested indexes. The name of an index holds for everything in it.
    fn collect(
        &self,
        index: &Index,
        names: &[String],
        nesting: usize,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), ImportError> {
        for descriptor in index.manifests.iter().flatten() {
            if descriptor.is_about_another() {
                continue;
            }
            let mut names = names.to_vec();
            names.extend(descriptor.names().map(str::to_owned));
            if descriptor.is_index() {
                let (digest, bytes) = self.manifest_document(descriptor)?;
                if nesting >= MAX_NESTING {
                    let (limit, unit) = (MAX_NESTING as u64, "indexes in one another");
                    return Err(ImportError::TooLarge { what: digest.path(), limit, unit });
                }
                self.collect(&decode(&digest.path(), &bytes)?, &names, nesting + 1, candidates)?;
                continue;
            }
            if candidates.len() >= MAX_MANIFESTS {
                let (limit, unit) = (MAX_MANIFESTS as u64, "manifests");
                return Err(ImportError::TooLarge { what: "index.json".to_owned(), limit, unit });
            }
            let mut candidate = Candidate {
                names: Vec::new(),
                id: descriptor.digest.clone(),
                platform: descriptor.platform.clone(),
                is_there: self.has(descriptor)?,
                form: Form::Manifest(descriptor.clone()),
            };
            candidate.add_names(names);
            candidates.push(candidate);
        }
        Ok(())
    }

    /// Adds the images that only the list of `docker save` has; of those that the index has too, adds the names.
    fn add_saved(&self, images: Vec<SavedImage>, candidates: &mut Vec<Candidate>) {
        let config_of = |candidate: &Candidate| match &candidate.form {
            Form::Manifest(descriptor) => {
                let (_, manifest) = self.manifest(descriptor).ok()?;
                Some(Digest::parse("a descriptor", &manifest.config.digest).ok()?.path())
            }
            Form::Saved(_) => None,
        };
        let mut places = BTreeMap::new();
        for (place, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| candidate.is_there) {
            places.extend(config_of(candidate).map(|config| (config, place)));
        }
        for image in images {
            let known = places.get(&image.config).copied();
            if let Some(known) = known.and_then(|place| candidates.get_mut(place)) {
                known.add_names(image.names());
            } else if candidates.len() < MAX_MANIFESTS {
                let (names, id, form) = (image.names(), image.id(), Form::Saved(image));
                candidates.push(Candidate { names, id, platform: None, is_there: true, form });
            }
        }
    }

    fn chosen(&self, candidates: Vec<Candidate>, wanted: &Wanted<'_>) -> Result<Image, ImportError> {
        let candidate = choose(self, candidates, wanted)?;
        let name = candidate.names.into_iter().next();
        let image = match candidate.form {
            Form::Manifest(descriptor) => {
                let (digest, manifest) = self.manifest(&descriptor)?;
                self.image_of(&digest, manifest, name)?
            }
            Form::Saved(image) => saved::image_of(self, &image, name)?,
        };
        check_platform(&image.config, wanted)?;
        Ok(image)
    }

    fn image_of(&self, digest: &Digest, manifest: Manifest, name: Option<String>) -> Result<Image, ImportError> {
        let config = self.config(&manifest)?;
        let layers = manifest.layers.unwrap_or_default();
        if layers.len() > MAX_LAYERS {
            return Err(ImportError::TooLarge { what: digest.path(), limit: MAX_LAYERS as u64, unit: "layers" });
        }
        let diff_ids = diff_ids(&config, &digest.path(), layers.len())?;
        let layers = layers.iter().zip(diff_ids).map(|(layer, diff_id)| self.stored(layer, diff_id));
        Ok(Image { name, layers: layers.collect::<Result<_, _>>()?, digest: Some(digest.clone()), config })
    }

    /// Reads the platform of an image from its configuration, for a descriptor without one.
    pub(super) fn platform_of(&self, descriptor: &Descriptor) -> Result<Platform, ImportError> {
        Ok(self.config(&self.manifest(descriptor)?.1)?.platform())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<(Digest, Manifest), ImportError> {
        let (digest, bytes) = self.manifest_document(descriptor)?;
        let manifest = manifest(&digest.path(), &bytes)?;
        Ok((digest, manifest))
    }

    fn config(&self, manifest: &Manifest) -> Result<ImageConfig, ImportError> {
        let digest = Digest::parse("a descriptor", &manifest.config.digest)?;
        let bytes = self.document(&digest, &self.blob(&digest), manifest.config.size)?;
        decode(&digest.path(), &bytes)
    }

    fn has(&self, descriptor: &Descriptor) -> Result<bool, ImportError> {
        match Digest::parse("a descriptor", &descriptor.digest) {
            Ok(digest) => Ok(self.layout.part(&self.manifest_path(&digest))?.is_some()),
            // An unreadable digest is reported if this image is chosen.
            Err(_unreadable) => Ok(true),
        }
    }

    fn manifest_document(&self, descriptor: &Descriptor) -> Result<(Digest, Vec<u8>), ImportError> {
        let digest = Digest::parse("a descriptor", &descriptor.digest)?;
        let bytes = self.document(&digest, &self.manifest_path(&digest), descriptor.size)?;
        Ok((digest, bytes))
    }

    /// Reads a small blob and verifies its size and digest.
    fn document(&self, digest: &Digest, path: &str, size: u64) -> Result<Vec<u8>, ImportError> {
        let part = self.layout.must_have(path)?;
        check_size(path, size, part.len())?;
        if size > MAX_DOCUMENT_BYTES {
            return Err(ImportError::TooLarge { what: path.to_owned(), limit: MAX_DOCUMENT_BYTES, unit: "bytes" });
        }
        let mut bytes = Vec::new();
        let mut reader = Hashed::new(part, Some(digest.hasher()), MAX_DOCUMENT_BYTES);
        reader.read_to_end(&mut bytes).map_err(|source| ImportError::Read { what: path.to_owned(), source })?;
        if let Some(found) = reader.finish() {
            digest.check(path, &found)?;
        }
        Ok(bytes)
    }

    /// Checks the descriptor of a layer.
    fn stored(&self, layer: &Descriptor, diff_id: Digest) -> Result<Stored, ImportError> {
        let digest = Digest::parse("the descriptor of a layer", &layer.digest)?;
        // `…layer.v1.tar+gzip`, `…layer.nondistributable.v1.tar+zstd`, `…rootfs.diff.tar.gzip`, `…rootfs.foreign.diff.tar`.
        let (_, form) = layer.media_type().rsplit_once(".tar").unwrap_or(("", layer.media_type()));
        if !matches!(form, "" | "+gzip" | "+zstd" | ".gzip" | ".zstd") {
            return Err(ImportError::Unsupported { what: digest.path(), found: shortened(layer.media_type()) });
        }
        Ok(Stored { path: self.blob(&digest), diff_id, bytes: layer.size, digest: Some(digest) })
    }
}

/// Decodes a manifest; a manifest of schema 1 is refused by name.
fn manifest(what: &str, bytes: &[u8]) -> Result<Manifest, ImportError> {
    let kind = decode::<Kind>(what, bytes)?;
    if kind.schema_version == Some(1) {
        return Err(ImportError::OldManifest { what: what.to_owned() });
    }
    decode(what, bytes)
}

/// Checks the platform in the configuration, if one was asked for: the index may be wrong. A missing variant is accepted.
fn check_platform(config: &ImageConfig, wanted: &Wanted<'_>) -> Result<(), ImportError> {
    let of_it = |asked: &Platform| {
        let platform = config.platform();
        Platform { variant: platform.variant.or_else(|| asked.variant.clone()), ..platform }
    };
    match wanted.platform {
        Some(asked) if !of_it(asked).serves(asked) => Err(ImportError::NoSuchPlatform {
            asked: asked.to_string(),
            there: vec![shortened(&config.platform().to_string())],
        }),
        _ => Ok(()),
    }
}

pub(super) fn check_size(what: &str, expected: u64, found: u64) -> Result<(), ImportError> {
    if expected == found { Ok(()) } else { Err(ImportError::Size { what: what.to_owned(), expected, found }) }
}

pub(super) fn diff_ids(config: &ImageConfig, what: &str, layers: usize) -> Result<Vec<Digest>, ImportError> {
    let ids = config.diff_ids();
    if ids.len() != layers {
        let reason = "its configuration has another number of layers";
        return Err(ImportError::Malformed { what: what.to_owned(), reason });
    }
    ids.iter().map(|id| Digest::parse("a diff id of the configuration", id)).collect()
}

pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|source| ImportError::Json { what: what.to_owned(), source })
}
