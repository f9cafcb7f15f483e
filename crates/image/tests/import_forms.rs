//! Images in the forms that real tools write: which image is chosen, and how other files are refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use contd_flist::{Flist, PackOptions};
use contd_image::{ImportError, ImportOptions, ImportReport, import};
use contd_test_harness::flist::{chain, content, read_all};
use contd_test_harness::image::{Form, Layout, digest, file, header, hex, layer, write_tar};
use serde_json::{Value, json};
use tar::EntryType;
use tempfile::TempDir;

struct Scratch {
    folder: TempDir,
    fl: PathBuf,
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    Scratch { fl: folder.path().join("out.fl"), folder }
}

impl Scratch {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Imports over an existing output.
    fn import(&self, source: &Path, name: Option<&str>, platform: Option<&str>) -> Result<ImportReport, ImportError> {
        let options = ImportOptions {
            pack: PackOptions { force: true, ..PackOptions::default() },
            name: name.map(str::to_owned),
            platform: platform.map(|text| text.parse().unwrap()),
            ..ImportOptions::default()
        };
        import(source, &self.fl, &[format!("dir://{}", self.path().join("store").display())], &options, &|_| {})
    }

    /// Reads a file of the imported flist.
    #[track_caller]
    fn read(&self, path: &[u8]) -> Vec<u8> {
        let cache = tempfile::tempdir().unwrap();
        let content = content(&self.fl, cache.path());
        let ino = content
            .flist()
            .resolve(path)
            .unwrap_or_else(|| panic!("{:?} is there", String::from_utf8_lossy(path)))
            .ino();
        read_all(&content, ino).unwrap()
    }

    /// Imports, and tells which of several images was chosen.
    #[track_caller]
    fn which(&self, source: &Path, name: Option<&str>, platform: Option<&str>) -> String {
        self.import(source, name, platform).map_err(|error| chain(&error)).unwrap();
        String::from_utf8(self.read(b"which")).unwrap()
    }
}

fn marked(text: &str) -> Vec<(Vec<u8>, Form)> {
    vec![(layer(|tar| file(tar, "which", text.as_bytes())), Form::Tar)]
}

#[test]
fn sparse_files_have_their_holes_in_every_form_of_gnu_tar() {
    let scratch = scratch();
    let gnu_tar = Command::new("tar").arg("--version").output().expect("tar is installed");
    assert!(String::from_utf8_lossy(&gnu_tar.stdout).contains("GNU"), "the test needs GNU tar");
    // Sparse files: ends in the middle of a block; ends in a hole; is one hole; has no hole; has more pieces than a header.
    let files: [(&str, usize, Vec<usize>); 5] = [
        ("odd end", 3_000_001, vec![0, 700_000, 1_400_000, 1_800_000, 2_999_990]),
        ("hole at the end", 1_500_000, vec![4096]),
        ("hole", 5 << 20, vec![]),
        ("small", 4, vec![0]),
        ("many", 8 << 20, (0..80).map(|place| place * 100_000).collect()),
    ];
    let mut expected = BTreeMap::new();
    for (name, size, places) in &files {
        let file = std::fs::File::create(scratch.path().join(name)).unwrap();
        file.set_len(*size as u64).unwrap();
        let mut bytes = vec![0; *size];
        for place in places {
            file.write_all_at(b"here", *place as u64).unwrap();
            bytes[*place..][..4].copy_from_slice(b"here");
        }
        expected.insert(*name, bytes);
    }
    let forms: [&[&str]; 5] = [
        &["--format=gnu"],
        &["--format=oldgnu"],
        &["--format=pax", "--sparse-version=1.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=0.0"],
    ];
    for form in forms {
        let tar = scratch.path().join("layer.tar");
        let mut command = Command::new("tar");
        command.args(["-S", "--hole-detection=raw", "-C"]).arg(scratch.path()).args(form).arg("-cf").arg(&tar);
        assert!(command.args(files.iter().map(|(name, ..)| name)).status().unwrap().success());
        let tar = std::fs::read(&tar).unwrap();
        assert!(tar.len() < 900_000, "{form:?}: it is stored sparsely");
        let mut layout = Layout::default();
        let manifest = layout.image(&[(tar, Form::Tar)], ("linux", "amd64"), &json!({}));
        layout.manifests.push(manifest);
        let folder = tempfile::tempdir().unwrap();
        let imported = scratch.import(&layout.write_folder(folder.path()), None, None);
        imported.map_err(|error| format!("{form:?}: {}", chain(&error))).unwrap();
        for (name, bytes) in &expected {
            assert!(scratch.read(name.as_bytes()) == *bytes, "{form:?} {name}");
        }
    }
}

#[test]
fn names_of_any_bytes_are_kept_and_counted() {
    let scratch = scratch();
    let names: [&[u8]; 3] = [b"caf\xe9", b"\xff\xfe/x", b"line\nend"];
    let tar = layer(|tar| {
        for name in names {
            let mut header = header(EntryType::Regular, 0o644, 5);
            header.set_size(1);
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            header.set_cksum();
            tar.append(&header, &b"x"[..]).unwrap();
        }
    });
    let mut layout = Layout::default();
    let manifest = layout.image(&[(tar, Form::Gzip)], ("linux", "amd64"), &json!({}));
    layout.manifests.push(manifest);
    let report = scratch.import(&layout.write_folder(scratch.path()), None, None).unwrap();
    assert_eq!(report.raw_names, 2);
    for name in names {
        assert_eq!(scratch.read(name), b"x");
    }
}

/// A layout of one image for each variant of a processor, in this order.
fn variants(folder: &Path, arch: &str, variants: &[Option<&str>]) -> PathBuf {
    let mut layout = Layout::default();
    for variant in variants {
        let mut manifest = layout.image(&marked(variant.unwrap_or("plain")), ("linux", arch), &json!({}));
        if let Some(variant) = variant {
            manifest["platform"]["variant"] = json!(variant);
        }
        layout.manifests.push(manifest);
    }
    let folder = folder.join(variants.iter().map(|variant| variant.unwrap_or("plain")).collect::<String>());
    layout.write_folder(&folder)
}

#[test]
fn of_the_variants_of_a_platform_one_is_taken_that_runs_everywhere_or_the_one_that_was_asked_for() {
    let scratch = scratch();
    let source = variants(scratch.path(), "amd64", &[Some("v3"), None, Some("v2")]);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(scratch.which(&source, None, None), "plain");
    }
    let asked = |platform| scratch.which(&source, None, Some(platform));
    assert_eq!(asked("linux/amd64"), "plain");
    assert_eq!(asked("linux/amd64/v1"), "plain");
    assert_eq!(asked("linux/amd64/v2"), "v2");
    assert_eq!(asked("linux/amd64/v4"), "v3");
    let source = variants(scratch.path(), "arm", &[Some("v5"), Some("v8"), Some("v6"), Some("v7")]);
    let asked = |platform| scratch.which(&source, None, Some(platform));
    assert_eq!(
        (asked("linux/arm"), asked("linux/arm/v6"), asked("linux/arm/v8")),
        ("v7".into(), "v6".into(), "v8".into())
    );
    let source = variants(scratch.path(), "amd64", &[Some("v3"), Some("v4")]);
    let refused = scratch.import(&source, None, Some("linux/amd64/v2"));
    assert!(matches!(refused, Err(ImportError::NoSuchPlatform { .. })), "{refused:?}");
}

#[test]
fn one_image_under_several_tags_is_one_image() {
    let scratch = scratch();
    let tagged = |manifest: &Value, tag: &str| {
        let mut manifest = manifest.clone();
        manifest["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/library/a:{tag}"), "org.opencontainers.image.ref.name": tag,
        });
        manifest
    };
    let mut layout = Layout::default();
    let manifest = layout.image(&marked("a"), ("linux", "amd64"), &json!({}));
    layout.manifests = vec![tagged(&manifest, "1"), tagged(&manifest, "2")];
    let source = layout.write_folder(scratch.path());
    assert_eq!(scratch.which(&source, None, None), "a");
    assert_eq!(Flist::open(&scratch.fl).unwrap().tag("oci.ref"), Some("docker.io/library/a:1"));
    // By any of its names, and by their short forms.
    for name in ["1", "2", "docker.io/library/a:2", "a:2", "library/a:1"] {
        assert_eq!(scratch.which(&source, Some(name), None), "a", "{name}");
    }
    assert!(matches!(scratch.import(&source, Some("a:3"), None), Err(ImportError::NoSuchImage { .. })));
    // The same holds for an index of several platforms that occurs twice.
    let mut layout = Layout::default();
    let platforms = ["amd64", "arm64"].map(|arch| layout.image(&marked(arch), ("linux", arch), &json!({})));
    let index = layout.index(&platforms);
    layout.manifests = vec![tagged(&index, "1"), tagged(&index, "2")];
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(scratch.which(&layout.write_folder(folder.path()), Some("a:2"), Some("linux/arm64")), "arm64");
    assert_eq!(scratch.which(&layout.write_folder(folder.path()), None, Some("linux/amd64")), "amd64");
}

/// The output of `docker save` of version 25: blobs, an index, and the equivalent list.
struct Saved {
    files: BTreeMap<String, Vec<u8>>,
    list: Vec<Value>,
}

impl Saved {
    fn new(index: Option<&Value>) -> Self {
        let mut files = BTreeMap::from([("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())]);
        if let Some(manifests) = index {
            let index = json!({ "schemaVersion": 2, "manifests": manifests });
            files.insert("index.json".to_owned(), index.to_string().into_bytes());
        }
        Self { files, list: Vec::new() }
    }

    fn add(&mut self, text: &str, tags: &Value) {
        let tar = layer(|tar| file(tar, "which", text.as_bytes()));
        let config = json!({ "architecture": "amd64", "os": "linux", "config": null, "history": null,
            "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] } });
        let config = config.to_string().into_bytes();
        let [config_path, tar_path] = [&config, &tar].map(|bytes| format!("blobs/sha256/{}", hex(bytes)));
        self.list.push(json!({ "Config": config_path, "RepoTags": tags, "Layers": [tar_path], "LayerSources": null }));
        self.files.extend([(config_path, config), (tar_path, tar)]);
    }

    fn write(mut self, folder: &Path) -> PathBuf {
        self.files.insert("manifest.json".to_owned(), json!(self.list).to_string().into_bytes());
        write_tar(folder, &self.files)
    }
}

#[test]
fn an_archive_of_docker_save_is_read_by_its_list_where_its_index_says_nothing() {
    let scratch = scratch();
    for index in [Some(json!(null)), Some(json!([])), None] {
        let mut saved = Saved::new(index.as_ref());
        saved.add("a", &json!(null));
        assert_eq!(scratch.which(&saved.write(scratch.path()), None, None), "a", "{index:?}");
    }
    // The index lacks one of two images.
    let mut layout = Layout::default();
    let mut manifest = layout.image(&marked("a"), ("linux", "amd64"), &json!({}));
    manifest["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/a:1" });
    let mut saved = Saved::new(Some(&json!([manifest])));
    saved.files.extend(layout.files);
    saved.add("b", &json!(["b:1"]));
    let source = saved.write(scratch.path());
    assert_eq!(scratch.which(&source, Some("a:1"), None), "a");
    assert_eq!(scratch.which(&source, Some("b:1"), None), "b");
    match scratch.import(&source, None, None) {
        Err(ImportError::NoSuchImage { there, .. }) => assert_eq!(there, ["b:1", "docker.io/library/a:1"]),
        other => panic!("{other:?}"),
    }
    // Two images without names are distinguished by their ids.
    let mut saved = Saved::new(None);
    saved.add("a", &json!(null));
    saved.add("b", &json!([]));
    let source = saved.write(scratch.path());
    let Err(ImportError::NoSuchImage { there, .. }) = scratch.import(&source, None, None) else {
        panic!("one was taken")
    };
    let seen = there.iter().map(|id| scratch.which(&source, Some(id), None)).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn an_index_may_name_platforms_that_the_archive_does_not_have() {
    let scratch = scratch();
    let mut layout = Layout::default();
    let platforms = ["s390x", "amd64", "arm64"].map(|arch| layout.image(&marked(arch), ("linux", arch), &json!({})));
    for arch in [0, 2] {
        let digest = platforms[arch]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        layout.files.remove(&digest).unwrap();
    }
    let index = layout.index(&platforms);
    layout.manifests.push(index);
    let source = layout.write_folder(scratch.path());
    assert_eq!(scratch.which(&source, None, Some("linux/amd64")), "amd64");
    let refused = scratch.import(&source, None, Some("linux/arm64"));
    assert!(
        matches!(&refused, Err(ImportError::NoSuchPlatform { there, .. }) if there == &["linux/amd64"]),
        "{refused:?}"
    );
}

#[test]
fn lists_that_are_null_are_empty() {
    let scratch = scratch();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Env": null }, "rootfs": { "type": "layers", "diff_ids": null } });
    let mut layout = Layout::default();
    let config = layout.blob(config.to_string().into_bytes());
    let manifest = json!({ "schemaVersion": 2, "layers": null, "annotations": null,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1 } });
    let (digest, size) = layout.blob(manifest.to_string().into_bytes());
    layout
        .manifests
        .push(json!({ "mediaType": null, "digest": digest, "size": size, "annotations": null, "platform": null }));
    scratch.import(&layout.write_folder(scratch.path()), None, None).map_err(|error| chain(&error)).unwrap();
    assert_eq!(Flist::open(&scratch.fl).unwrap().inode_count(), 1);
}

/// A layout as skopeo's transport `dir:` writes it.
fn plain(folder: &Path, layout: &Layout, top: &Value) -> PathBuf {
    let root = folder.join("plain");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    let top = top["digest"].as_str().unwrap().trim_start_matches("sha256:");
    for (path, bytes) in layout.files.iter().filter(|(path, _)| path.starts_with("blobs/")) {
        let name = path.rsplit('/').next().unwrap();
        let is_manifest = bytes.starts_with(b"{")
            && (bytes.windows(8).any(|part| part == b"\"layers\"")
                && !bytes.windows(8).any(|part| part == b"\"rootfs\""));
        let name = if name == top {
            "manifest.json".to_owned()
        } else if is_manifest {
            format!("{name}.manifest.json")
        } else {
            name.to_owned()
        };
        std::fs::write(root.join(name), bytes).unwrap();
    }
    root
}

#[test]
fn a_directory_of_skopeo_is_read_with_one_image_and_with_several() {
    let scratch = scratch();
    let mut layout = Layout::default();
    let image = layout.image(&marked("one"), ("linux", "amd64"), &json!({}));
    let source = plain(scratch.path(), &layout, &image);
    assert_eq!(scratch.which(&source, None, None), "one");
    assert_eq!(Flist::open(&scratch.fl).unwrap().tag("oci.digest"), image["digest"].as_str());
    // A changed byte is found.
    let blob = std::fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path());
    let blob = blob.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    assert!(scratch.import(&source, None, None).is_err());
    let mut layout = Layout::default();
    let images = ["amd64", "arm64"].map(|arch| layout.image(&marked(arch), ("linux", arch), &json!({})));
    let index = layout.index(&images);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(scratch.which(&plain(folder.path(), &layout, &index), None, Some("linux/arm64")), "arm64");
}

#[test]
fn other_kinds_of_files_are_named_with_the_command_that_converts_them() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let odd = |path: &Path| match scratch.import(path, None, None) {
        Err(error) => (error.to_string(), error.hint().into_owned()),
        Ok(_) => panic!("{} was imported", path.display()),
    };
    std::fs::write(at("x.tar.gz"), [0x1f, 0x8b, 8, 0]).unwrap();
    let (error, hint) = odd(&at("x.tar.gz"));
    assert!(error.ends_with("it is an archive that is compressed with gzip"), "{error}");
    assert!(hint.contains(&format!("gzip -dc {0}/x.tar.gz > {0}/x.tar", scratch.path().display())), "{hint}");
    for (name, magic, tool) in
        [("x.tar.zst", &[0x28, 0xb5, 0x2f, 0xfd][..], "zstd -dc"), ("x.txz", b"\xfd7zXZ\0", "xz -dc")]
    {
        std::fs::write(at(name), magic).unwrap();
        assert!(odd(&at(name)).1.contains(tool));
    }
    std::fs::write(at("y.fl"), b"SQLite format 3\0").unwrap();
    assert!(odd(&at("y.fl")).0.ends_with("it is a flist already"));
    std::fs::create_dir_all(at("a root/etc")).unwrap();
    let (error, hint) = odd(&at("a root"));
    assert!(
        error.contains("it is a file system") && hint.contains("contd flist pack '") && hint.contains("a root' OUT.fl"),
        "{error} {hint}"
    );
    let exported = layer(|tar| file(tar, "etc/passwd", b""));
    std::fs::write(at("exported.tar"), exported).unwrap();
    let (error, hint) = odd(&at("exported.tar"));
    assert!(error.contains("docker export") && hint.contains("tar -xpf"), "{error} {hint}");
    let old = layer(|tar| file(tar, "repositories", b"{}"));
    std::fs::write(at("old.tar"), old).unwrap();
    assert!(odd(&at("old.tar")).0.contains("before version 1.10"));
    std::fs::create_dir(at("v1")).unwrap();
    std::fs::write(at("v1/manifest.json"), r#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap();
    let (error, hint) = odd(&at("v1"));
    assert!(error.contains("schema 1") && hint.contains("skopeo copy"), "{error} {hint}");
    // A path that does not exist may be a registry name, or a path in skopeo's notation.
    let hint = |path: &str| odd(Path::new(path)).1;
    assert!(hint("docker.io/library/none:1").contains(
        "skopeo copy docker://docker.io/library/none:1 oci:none-image && contd flist import none-image none.fl"
    ));
    assert!(
        hint("oci:some/where:tag")
            .contains("contd flist import some/where where.fl --store dir:///var/store --ref tag")
    );
    assert_eq!(hint("/none/at/all"), "check the name");
    // Devices and pipes are not opened.
    assert!(odd(Path::new("/dev/zero")).0.contains("is no container image"));
}

#[test]
fn an_output_is_replaced_only_if_it_was_made_of_the_same_source() {
    let scratch = scratch();
    let source = |name: &str, text: &str| {
        let mut layout = Layout::default();
        let manifest = layout.image(&marked(text), ("linux", "amd64"), &json!({}));
        layout.manifests.push(manifest);
        layout.write_folder(&scratch.path().join(name))
    };
    let (one, two) = (source("one", "1"), source("two", "2"));
    let import = |source: &Path, force| {
        let pack = PackOptions { force, ..PackOptions::default() };
        let options = ImportOptions { pack, ..ImportOptions::default() };
        import(source, &scratch.fl, &[format!("dir://{}", scratch.path().join("store").display())], &options, &|_| {})
    };
    #[track_caller]
    fn refused(result: Result<ImportReport, ImportError>) {
        let error = result.unwrap_err();
        assert!(chain(&error).contains("exists already") && error.hint().contains("--force"), "{}", chain(&error));
    }
    std::fs::write(&scratch.fl, "precious").unwrap();
    refused(import(&one, false));
    assert_eq!(std::fs::read(&scratch.fl).unwrap(), b"precious");
    import(&one, true).unwrap();
    // The same source again, with new content.
    std::fs::remove_dir_all(&one).unwrap();
    source("one", "3");
    import(&one, false).unwrap();
    assert_eq!(scratch.read(b"which"), b"3");
    refused(import(&two, false));
    assert_eq!(scratch.read(b"which"), b"3");
    // A copy loses the mark and counts as another file.
    let copy = std::fs::read(&scratch.fl).unwrap();
    std::fs::remove_file(&scratch.fl).unwrap();
    std::fs::write(&scratch.fl, copy).unwrap();
    refused(import(&one, false));
}
