//! Builds container images for tests: OCI layouts, tars of them, archives of `docker save`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// The form in which a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Tar,
    /// Compressed by gzip.
    Gzip,
    /// Compressed by zstd.
    Zstd,
}

/// SHA-256 in hex.
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of a blob: `sha256:HEX`.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

/// Builds a tar.
pub fn layer(fill: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    fill(&mut tar);
    tar.into_inner().unwrap()
}

/// A header of a member that root owns.
pub fn header(kind: EntryType, mode: u32, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header.set_size(0);
    header
}

/// Adds a file.
pub fn file(tar: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = header(EntryType::Regular, 0o644, 1_650_000_000);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).unwrap();
}

/// Adds a directory.
pub fn directory(tar: &mut Builder<Vec<u8>>, path: &str) {
    let mut header = header(EntryType::Directory, 0o755, 1_650_000_000);
    tar.append_data(&mut header, path, std::io::empty()).unwrap();
}

/// Adds a link.
pub fn link(tar: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, target: &str) {
    tar.append_link(&mut header(kind, 0o777, 1_650_000_000), path, target).unwrap();
}

/// A layer as it is stored.
pub fn stored(tar: &[u8], form: Form) -> Vec<u8> {
    match form {
        Form::Tar => tar.to_vec(),
        Form::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).unwrap();
            encoder.finish().unwrap()
        }
        Form::Zstd => ruzstd::encoding::compress_to_vec(tar, ruzstd::encoding::CompressionLevel::Fastest),
    }
}

/// The files of a layout; a test may damage them before it writes them.
pub struct Layout {
    /// Contents by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The descriptors that its index lists.
    pub manifests: Vec<Value>,
}

impl Default for Layout {
    fn default() -> Self {
        let mark = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
        Self { files: BTreeMap::from([("oci-layout".to_owned(), mark)]), manifests: Vec::new() }
    }
}

impl Layout {
    /// Adds a blob; returns its digest and its size.
    pub fn blob(&mut self, bytes: Vec<u8>) -> (String, usize) {
        let (digest, len) = (digest(&bytes), bytes.len());
        self.files.insert(format!("blobs/sha256/{}", hex(&bytes)), bytes);
        (digest, len)
    }

    /// Adds an image and gives the descriptor of its manifest.
    pub fn image(&mut self, layers: &[(Vec<u8>, Form)], platform: (&str, &str), run: &Value) -> Value {
        let config = json!({
            "architecture": platform.1, "os": platform.0, "config": run,
            "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|(tar, _)| digest(tar)).collect::<Vec<_>>() },
        });
        let config = self.blob(config.to_string().into_bytes());
        let layers = layers.iter().map(|(tar, form)| {
            let (digest, size) = self.blob(stored(tar, *form));
            let form = match form {
                Form::Tar => "",
                Form::Gzip => "+gzip",
                Form::Zstd => "+zstd",
            };
            json!({ "mediaType": format!("application/vnd.oci.image.layer.v1.tar{form}"), "digest": digest, "size": size })
        });
        let layers = layers.collect::<Vec<_>>();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1 },
            "layers": layers,
        });
        let (digest, size) = self.blob(manifest.to_string().into_bytes());
        json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "platform": { "os": platform.0, "architecture": platform.1 } })
    }

    /// Adds an index of manifests and gives its descriptor.
    pub fn index(&mut self, manifests: &[Value]) -> Value {
        let kind = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests });
        let (digest, size) = self.blob(index.to_string().into_bytes());
        json!({ "mediaType": kind, "digest": digest, "size": size })
    }

    /// Returns all files, with the index `index.json`.
    pub fn all(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.files.clone();
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests });
        files.insert("index.json".to_owned(), index.to_string().into_bytes());
        files
    }

    /// Writes the layout as a folder.
    pub fn write_folder(&self, folder: &Path) -> PathBuf {
        let root = folder.join("layout");
        for (path, bytes) in self.all() {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        root
    }

    /// Writes the layout as one tar.
    pub fn write_tar(&self, folder: &Path) -> PathBuf {
        write_tar(folder, &self.all())
    }
}

/// Writes files as one tar.
pub fn write_tar(folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> PathBuf {
    let path = folder.join("image.tar");
    let bytes = layer(|tar| {
        for (path, bytes) in files {
            file(tar, path, bytes);
        }
    });
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The output of `docker save` before it wrote layouts: a directory per layer, and a link for a layer that occurs twice.
pub fn write_saved(folder: &Path, layers: &[Vec<u8>], run: &Value, names: &[&str]) -> PathBuf {
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": run,
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|tar| digest(tar)).collect::<Vec<_>>() },
    });
    let config = config.to_string().into_bytes();
    let (config_path, path) = (format!("{}.json", hex(&config)), folder.join("saved.tar"));
    let bytes = layer(|tar| {
        file(tar, &config_path, &config);
        let mut paths: Vec<String> = Vec::new();
        for (number, bytes) in layers.iter().enumerate() {
            let path = format!("{number:064}/layer.tar");
            directory(tar, &format!("{number:064}/"));
            file(tar, &format!("{number:064}/VERSION"), b"1.0");
            match layers.iter().position(|other| other == bytes) {
                Some(first) if first < number => {
                    link(tar, EntryType::Symlink, &path, &format!("../{first:064}/layer.tar"));
                }
                _ => file(tar, &path, bytes),
            }
            paths.push(path);
        }
        let manifest = json!([{ "Config": config_path, "RepoTags": names, "Layers": paths }]);
        file(tar, "manifest.json", manifest.to_string().as_bytes());
    });
    std::fs::write(&path, bytes).unwrap();
    path
}
