//! Imports of images: the content of their layers is read back from the flist, and damaged or hostile images are refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use contd_flist::{FileKind, Flist, ImageDefaults, PackOptions};
use contd_image::{ImportError, ImportLimits, ImportOptions, ImportProgress, ImportReport, import};
use contd_test_harness::flist::{by_path, chain, content, files_below, read_all};
use contd_test_harness::image::{Form, Layout, directory, file, header, hex, layer, link, write_saved, write_tar};
use serde_json::{Value, json};
use tar::EntryType;
use tempfile::TempDir;

struct Scratch {
    folder: TempDir,
    fl: PathBuf,
    store: PathBuf,
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    Scratch { fl: folder.path().join("out.fl"), store: folder.path().join("store"), folder }
}

impl Scratch {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Imports over an existing output.
    fn import(&self, source: &Path, options: &ImportOptions) -> Result<ImportReport, ImportError> {
        let pack = PackOptions { force: true, ..options.pack.clone() };
        let options = ImportOptions { pack, ..options.clone() };
        import(source, &self.fl, &[format!("dir://{}", self.store.display())], &options, &|_| {})
    }

    /// Imports, and shows each inode as `path mode content`.
    #[track_caller]
    fn shown(&self, source: &Path) -> Vec<String> {
        self.import(source, &ImportOptions::default()).map_err(|error| chain(&error)).unwrap();
        let content = content(&self.fl, &self.path().join("cache"));
        let flist = content.flist();
        let all = by_path(flist);
        let shown = all.iter().map(|(path, ino)| {
            let inode = flist.inode(*ino).unwrap();
            let what = match inode.kind() {
                FileKind::File => String::from_utf8(read_all(&content, *ino).unwrap()).unwrap(),
                FileKind::Symlink => String::from_utf8(flist.symlink_target(*ino).unwrap().to_vec()).unwrap(),
                _ => format!("{:?}", inode.kind()),
            };
            format!("{path} {:o} {what}", inode.mode())
        });
        shown.collect()
    }

    /// Checks that a refused image left no flist, no block and no temporary file.
    #[track_caller]
    fn is_clean(&self) {
        assert!(!self.fl.exists(), "a flist is there");
        assert_eq!(files_below(&self.store), Vec::<PathBuf>::new(), "the store has blocks");
        let leftovers = files_below(self.path()).into_iter().filter(|path| path.to_string_lossy().contains(".tmp-"));
        assert_eq!(leftovers.count(), 0);
    }
}

fn two_layers() -> [Vec<u8>; 2] {
    let lower = layer(|tar| {
        directory(tar, "etc/");
        file(tar, "etc/passwd", b"root:x:0:0::/root:/bin/sh\n");
        file(tar, "etc/old", b"old");
        link(tar, EntryType::Symlink, "lib", "usr/lib");
    });
    let upper = layer(|tar| {
        file(tar, "etc/.wh.old", b"");
        file(tar, "etc/new", b"new");
        link(tar, EntryType::Link, "etc/passwd-", "etc/passwd");
    });
    [lower, upper]
}

const TREE: [&str; 6] = [
    "/ 40755 Directory",
    "/etc 40755 Directory",
    "/etc/new 100644 new",
    "/etc/passwd 100644 root:x:0:0::/root:/bin/sh\n",
    "/etc/passwd- 100644 root:x:0:0::/root:/bin/sh\n",
    "/lib 120777 usr/lib",
];

fn one_image(forms: [Form; 2], run: &Value) -> Layout {
    let mut layout = Layout::default();
    let layers = two_layers().into_iter().zip(forms).collect::<Vec<_>>();
    let manifest = layout.image(&layers, ("linux", "amd64"), run);
    layout.manifests.push(manifest);
    layout
}

#[test]
fn layers_of_every_form_are_read_from_a_layout_and_from_a_tar_of_one() {
    for forms in [[Form::Tar, Form::Tar], [Form::Gzip, Form::Zstd], [Form::Zstd, Form::Gzip]] {
        let scratch = scratch();
        let layout = one_image(forms, &json!({}));
        assert_eq!(scratch.shown(&layout.write_folder(scratch.path())), TREE, "{forms:?}");
        assert_eq!(scratch.shown(&layout.write_tar(scratch.path())), TREE, "{forms:?}");
    }
}

#[test]
fn archives_of_docker_save_are_read_in_their_old_form_and_their_new_one() {
    let scratch = scratch();
    let [lower, upper] = two_layers();
    let old = write_saved(scratch.path(), &[lower.clone(), upper, lower], &json!({}), &["box:1"]);
    let tree = scratch.shown(&old);
    // The third layer equals the first, and restores the file that the second hid.
    assert_eq!(tree.len(), TREE.len() + 1);
    assert_eq!(tree[3], "/etc/old 100644 old");
    // The new form is a layout with the old list beside it.
    let mut new = one_image([Form::Tar, Form::Gzip], &json!({}));
    new.files.insert("manifest.json".to_owned(), b"[]".to_vec());
    assert_eq!(scratch.shown(&new.write_tar(scratch.path())), TREE);
}

#[test]
fn all_that_a_flist_can_keep_of_an_entry_is_kept() {
    let scratch = scratch();
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(255));
    let big = (0..1_300_000_u32).map(|byte| (byte % 251) as u8).collect::<Vec<_>>();
    let tar = layer(|tar| {
        file(tar, &long, b"long name");
        file(tar, "big", &big);
        let mut su = header(EntryType::Regular, 0o6755, 1_650_000_001);
        su.set_uid(1000);
        su.set_gid(2000);
        tar.append_data(&mut su, "su", std::io::empty()).unwrap();
        let mut null = header(EntryType::Char, 0o666, 5);
        null.set_device_major(1).unwrap();
        null.set_device_minor(3).unwrap();
        tar.append_data(&mut null, "dev/null", std::io::empty()).unwrap();
        tar.append_data(&mut header(EntryType::Fifo, 0o600, 5), "pipe", std::io::empty()).unwrap();
        tar.append_pax_extensions([
            ("SCHILY.xattr.user.a", &b"x\n9 uid=77\n"[..]),
            ("mtime", b"1650000002.75"),
            ("path", "pax-\u{e4}".as_bytes()),
            ("uid", b"3000000"),
        ])
        .unwrap();
        file(tar, "short", b"by pax");
    });
    let mut layout = Layout::default();
    let manifest = layout.image(&[(tar, Form::Zstd)], ("linux", "riscv64"), &json!({}));
    layout.manifests.push(manifest);
    let report = scratch.import(&layout.write_folder(scratch.path()), &ImportOptions::default()).unwrap();
    assert_eq!((report.layers, report.dropped_xattrs, report.platform.arch.as_str()), (1, 1, "riscv64"));

    let content = content(&scratch.fl, &scratch.path().join("cache"));
    let flist = content.flist();
    let at = |path: &str| flist.resolve(path.as_bytes()).unwrap_or_else(|| panic!("{path} is there"));
    assert!(read_all(&content, at("big").ino()).unwrap() == big);
    assert_eq!(read_all(&content, at(&long).ino()).unwrap(), b"long name");
    let su = at("su");
    assert_eq!((su.mode(), su.uid(), su.gid(), su.mtime()), (0o106_755, 1000, 2000, 1_650_000_001));
    assert_eq!((at("dev/null").kind(), at("dev/null").rdev()), (FileKind::CharDevice, 0x103));
    assert_eq!((at("pipe").kind(), at("pipe").mode() & 0o7777), (FileKind::Fifo, 0o600));
    let pax = at("pax-\u{e4}");
    assert_eq!((pax.uid(), pax.mtime()), (3_000_000, 1_650_000_002));
}

#[test]
fn how_an_image_is_run_is_kept_in_tags_and_for_0_os() {
    let scratch = scratch();
    let run = json!({
        "Entrypoint": ["/start", "--flag"], "Cmd": ["a b", "q\"uote"], "Env": ["PATH=/bin", "A=1=2", "E="],
        "WorkingDir": "/data", "User": "web:www", "StopSignal": "SIGINT",
        "ExposedPorts": { "80/tcp": {} }, "Volumes": { "/data": {} },
    });
    let mut layout = one_image([Form::Gzip, Form::Gzip], &run);
    let name = json!({ "org.opencontainers.image.ref.name": "box:1" });
    layout.manifests[0]["annotations"] = name;
    let own = vec![("author".to_owned(), "me".to_owned()), ("oci.user".to_owned(), "nobody".to_owned())];
    let options = ImportOptions { pack: PackOptions { tags: own, ..PackOptions::default() }, ..Default::default() };
    scratch.import(&layout.write_folder(scratch.path()), &options).unwrap();

    let flist = Flist::open(&scratch.fl).unwrap();
    assert_eq!(Flist::tags_of(&scratch.fl).unwrap(), flist.tags());
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let expected = ImageDefaults {
        entrypoint: list(&["/start", "--flag"]),
        cmd: list(&["a b", "q\"uote"]),
        env: list(&["PATH=/bin", "A=1=2", "E="]),
        working_dir: Some("/data".to_owned()),
        user: Some("nobody".to_owned()),
        stop_signal: Some("SIGINT".to_owned()),
        ports: list(&["80/tcp"]),
        volumes: list(&["/data"]),
    };
    assert_eq!(ImageDefaults::from_tags(flist.tags()).unwrap(), expected);
    assert_eq!((flist.tag("author"), flist.tag("oci.ref")), (Some("me"), Some("box:1")));
    assert_eq!(flist.tag("oci.digest"), layout.manifests[0]["digest"].as_str());
    assert_eq!(flist.tag("oci.arch"), Some("linux/amd64"));

    let content = content(&scratch.fl, &scratch.path().join("cache"));
    let startup = read_all(&content, flist.resolve(b".startup.toml").unwrap().ino()).unwrap();
    let startup = String::from_utf8(startup).unwrap();
    assert!(startup.contains("name = \"/start\"\nargs = [\"--flag\", \"a b\", \"q\\\"uote\"]\ndir = \"/data\""));
}

#[test]
fn an_image_keeps_its_own_start_for_0_os() {
    let scratch = scratch();
    let tar = layer(|tar| file(tar, ".startup.toml", b"# mine\n"));
    let mut layout = Layout::default();
    let manifest = layout.image(&[(tar, Form::Tar)], ("linux", "amd64"), &json!({ "Cmd": ["/bin/sh"] }));
    layout.manifests.push(manifest);
    let shown = scratch.shown(&layout.write_folder(scratch.path()));
    assert_eq!(shown, ["/ 40755 Directory", "/.startup.toml 100644 # mine\n"]);
}

#[test]
fn the_same_image_gives_the_same_flist() {
    let scratch = scratch();
    let layout = one_image([Form::Gzip, Form::Zstd], &json!({ "Cmd": ["/bin/sh"], "Env": ["A=1"] }));
    let (folder, tar) = (layout.write_folder(scratch.path()), layout.write_tar(scratch.path()));
    let hash = |source: &Path| scratch.import(source, &ImportOptions::default()).unwrap().pack.hash;
    let first = hash(&folder);
    assert_eq!(first, hash(&folder));
    assert_eq!(first, hash(&tar));
}

fn marked(number: u8) -> Vec<(Vec<u8>, Form)> {
    vec![(layer(|tar| file(tar, "which", &[b'0' + number])), Form::Gzip)]
}

#[track_caller]
fn which(scratch: &Scratch) -> String {
    let content = content(&scratch.fl, &tempfile::tempdir().unwrap().path().join("cache"));
    let ino = content.flist().resolve(b"which").unwrap().ino();
    String::from_utf8(read_all(&content, ino).unwrap()).unwrap()
}

#[test]
fn the_platform_is_chosen_from_nested_indexes() {
    let scratch = scratch();
    let mut layout = Layout::default();
    let arm = layout.image(&marked(1), ("linux", "arm64"), &json!({}));
    let amd = layout.image(&marked(2), ("linux", "amd64"), &json!({}));
    let mut mips = layout.image(&marked(3), ("linux", "mips"), &json!({}));
    // The configuration has the variant that the descriptor lacks.
    mips.as_object_mut().unwrap().remove("platform");
    let mut about = layout.image(&marked(4), ("unknown", "unknown"), &json!({}));
    about["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let inner = layout.index(&[arm, amd, mips, about]);
    let outer = layout.index(&[inner]);
    layout.manifests.push(outer);
    let source = layout.write_folder(scratch.path());
    let import = |platform: Option<&str>| {
        let platform = platform.map(|text| text.parse().unwrap());
        scratch.import(&source, &ImportOptions { platform, ..Default::default() })
    };
    for (platform, expected) in [("linux/arm64", "1"), ("linux/amd64", "2"), ("linux/mips", "3")] {
        import(Some(platform)).unwrap();
        assert_eq!(which(&scratch), expected, "{platform}");
    }
    match import(Some("linux/s390x")) {
        Err(ImportError::NoSuchPlatform { asked, there }) => {
            assert_eq!(asked, "linux/s390x");
            assert_eq!(there, ["linux/arm64", "linux/amd64", "linux/mips"]);
        }
        other => panic!("{other:?}"),
    }
    if cfg!(target_arch = "x86_64") {
        import(None).unwrap();
        assert_eq!(which(&scratch), "2");
    }
}

#[test]
fn an_image_is_chosen_by_name_and_the_names_are_told() {
    let scratch = scratch();
    let mut layout = Layout::default();
    for (number, name) in [(1, "one"), (2, "two")] {
        let mut manifest = layout.image(&marked(number), ("linux", "amd64"), &json!({}));
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        layout.manifests.push(manifest);
    }
    let source = layout.write_folder(scratch.path());
    let import = |name: Option<&str>| {
        scratch.import(&source, &ImportOptions { name: name.map(str::to_owned), ..Default::default() })
    };
    import(Some("two")).unwrap();
    assert_eq!(which(&scratch), "2");
    for asked in [None, Some("three")] {
        match import(asked) {
            Err(ImportError::NoSuchImage { there, .. }) => assert_eq!(there, ["one", "two"]),
            other => panic!("{other:?}"),
        }
    }
    let saved = write_saved(scratch.path(), &two_layers(), &json!({}), &["box:1", "box:latest"]);
    let by_name = |name: &str| {
        scratch.import(&saved, &ImportOptions { name: Some(name.to_owned()), ..Default::default() }).map(drop)
    };
    by_name("box:latest").unwrap();
    assert!(matches!(by_name("box:2"), Err(ImportError::NoSuchImage { .. })));
}

/// Damages a layout with `spoil` and returns the error of its import, which is the same for a directory and a tar.
#[track_caller]
fn spoiled(spoil: impl FnOnce(&mut Layout)) -> ImportError {
    let scratch = scratch();
    let mut layout = one_image([Form::Gzip, Form::Zstd], &json!({}));
    spoil(&mut layout);
    let error = scratch.import(&layout.write_folder(scratch.path()), &ImportOptions::default()).unwrap_err();
    scratch.is_clean();
    let tar = scratch.import(&layout.write_tar(scratch.path()), &ImportOptions::default()).unwrap_err();
    assert_eq!(chain(&error), chain(&tar));
    scratch.is_clean();
    error
}

/// The paths of the manifest, the configuration and the layers.
fn parts(layout: &Layout) -> (String, String, Vec<String>) {
    let path = |descriptor: &Value| descriptor["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
    let manifest = path(&layout.manifests[0]);
    let document: Value = serde_json::from_slice(&layout.files[&manifest]).unwrap();
    let layers = document["layers"].as_array().unwrap().iter().map(path).collect();
    (manifest, path(&document["config"]), layers)
}

/// Replaces the manifest by a changed one with a correct digest.
fn replace_manifest(layout: &mut Layout, change: impl FnOnce(&mut Value)) {
    let (manifest, _, _) = parts(layout);
    let mut document: Value = serde_json::from_slice(&layout.files[&manifest]).unwrap();
    change(&mut document);
    let (digest, size) = layout.blob(document.to_string().into_bytes());
    layout.manifests[0]["digest"] = json!(digest);
    layout.manifests[0]["size"] = json!(size);
}

#[test]
fn a_flipped_bit_anywhere_is_found_before_anything_is_stored() {
    type Which = fn(&Layout) -> String;
    let which: [Which; 4] = [
        |layout| parts(layout).0,
        |layout| parts(layout).1,
        |layout| parts(layout).2[0].clone(),
        |layout| parts(layout).2[1].clone(),
    ];
    for which in which {
        for percent in [0, 50, 99] {
            let error = spoiled(|layout| {
                let bytes = layout.files.get_mut(&which(layout).clone()).unwrap();
                let at = bytes.len() * percent / 100;
                bytes[at] ^= 1;
            });
            // A damaged layer may fail to decompress before its digest is known.
            let is_expected = matches!(error, ImportError::Digest { .. } | ImportError::Layer { .. });
            assert!(is_expected, "{}", chain(&error));
        }
    }
}

#[test]
fn a_bit_that_changes_nothing_in_the_tar_is_found_by_the_digest_of_the_layer() {
    // Byte 4 begins the time in the gzip header.
    let error = spoiled(|layout| layout.files.get_mut(&parts(layout).2[0].clone()).unwrap()[4] ^= 1);
    assert!(matches!(error, ImportError::Digest { .. }), "{}", chain(&error));
}

#[test]
fn a_missing_part_or_a_wrong_size_is_refused() {
    let error = spoiled(|layout| drop(layout.files.remove(&parts(layout).2[1].clone())));
    assert!(matches!(error, ImportError::Missing { .. }), "{error}");
    let error = spoiled(|layout| layout.files.get_mut(&parts(layout).2[0].clone()).unwrap().push(0));
    assert!(matches!(error, ImportError::Size { .. }), "{error}");
    let error = spoiled(|layout| layout.manifests[0]["size"] = json!(1));
    assert!(matches!(error, ImportError::Size { .. }), "{error}");
    let error = spoiled(|layout| replace_manifest(layout, |manifest| manifest["layers"][0]["size"] = json!(u64::MAX)));
    assert!(matches!(error, ImportError::Size { .. }), "{error}");
}

#[test]
fn a_digest_is_no_path_and_a_media_type_no_guess() {
    for bad in ["sha256:../../x", "sha256:", "../../etc/passwd", "", "sha256:AB"] {
        let error = spoiled(|layout| replace_manifest(layout, |manifest| manifest["layers"][0]["digest"] = json!(bad)));
        assert!(matches!(error, ImportError::Malformed { .. }), "{bad}: {error}");
    }
    let error =
        spoiled(|layout| replace_manifest(layout, |manifest| manifest["layers"][0]["digest"] = json!("md5:00")));
    assert!(matches!(error, ImportError::Unsupported { .. }), "{error}");
    let encrypted = json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    let error = spoiled(|layout| replace_manifest(layout, |manifest| manifest["layers"][0]["mediaType"] = encrypted));
    assert!(matches!(error, ImportError::Unsupported { .. }), "{error}");
    let error = spoiled(|layout| replace_manifest(layout, |manifest| manifest["layers"] = json!([])));
    assert!(matches!(error, ImportError::Malformed { .. }), "{error}");
    let error = spoiled(|layout| replace_manifest(layout, |manifest| manifest["config"] = json!("x")));
    assert!(matches!(error, ImportError::Json { .. }), "{error}");
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    // Both layers match their digests, but their order is swapped.
    let error = spoiled(|layout| {
        layout.manifests[0] = layout.image(&[marked(1), marked(2)].concat(), ("linux", "amd64"), &json!({}));
        replace_manifest(layout, |manifest| manifest["layers"].as_array_mut().unwrap().reverse());
    });
    assert!(matches!(error, ImportError::Digest { .. }), "{error}");
}

#[test]
fn an_index_that_holds_itself_or_too_many_is_refused() {
    let error = spoiled(|layout| {
        let manifest = layout.manifests.remove(0);
        let mut index = layout.index(&[manifest]);
        for _ in 0..5 {
            index = layout.index(&[index]);
        }
        layout.manifests.push(index);
    });
    assert!(matches!(error, ImportError::TooLarge { limit: 4, .. }), "{error}");
    let error = spoiled(|layout| layout.manifests = vec![layout.manifests[0].clone(); 2000]);
    assert!(matches!(error, ImportError::TooLarge { limit: 1024, .. }), "{error}");
}

#[test]
fn a_link_in_a_layout_is_not_followed() {
    let scratch = scratch();
    let layout = one_image([Form::Gzip, Form::Gzip], &json!({}));
    let source = layout.write_folder(scratch.path());
    let blob = source.join(&parts(&layout).2[0]);
    let outside = scratch.path().join("outside");
    std::fs::rename(&blob, &outside).unwrap();
    std::os::unix::fs::symlink(&outside, &blob).unwrap();
    let error = scratch.import(&source, &ImportOptions::default()).unwrap_err();
    assert!(matches!(error, ImportError::Read { .. }), "{error}");
    assert!(error.hint().contains("symbolic links"));
    scratch.is_clean();
}

#[test]
fn a_bomb_is_refused_by_its_limits() {
    let scratch = scratch();
    let zeros = vec![0; 8 << 20];
    for form in [Form::Gzip, Form::Zstd] {
        let tar = layer(|tar| (0..4).for_each(|number| file(tar, &format!("f{number}"), &zeros)));
        let mut layout = Layout::default();
        let manifest = layout.image(&[(tar, form)], ("linux", "amd64"), &json!({}));
        layout.manifests.push(manifest);
        let folder = tempfile::tempdir().unwrap();
        let source = layout.write_folder(folder.path());
        let with = |limits: ImportLimits| scratch.import(&source, &ImportOptions { limits, ..Default::default() });
        let limits = ImportLimits { image_bytes: 20 << 20, ..ImportLimits::default() };
        let error = with(limits).unwrap_err();
        assert!(chain(&error).contains("more than 20971520 bytes"), "{}", chain(&error));
        assert!(error.hint().contains("--max-size"));
        let error = with(ImportLimits { file_bytes: 4 << 20, ..ImportLimits::default() }).unwrap_err();
        assert!(error.hint().contains("--max-file"), "{}", chain(&error));
        scratch.is_clean();
        with(ImportLimits::default()).unwrap();
        std::fs::remove_file(&scratch.fl).unwrap();
        std::fs::remove_dir_all(&scratch.store).unwrap();
    }
}

#[test]
fn a_file_that_is_no_image_is_reported_as_such() {
    let scratch = scratch();
    let text = scratch.path().join("text");
    std::fs::write(&text, "hello").unwrap();
    let empty = scratch.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let other = write_tar(scratch.path(), &[("a".to_owned(), b"b".to_vec())].into());
    let fifo = scratch.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for source in [scratch.path(), &text, &empty, &other, &fifo] {
        let error = scratch.import(source, &ImportOptions::default()).unwrap_err();
        assert!(matches!(error, ImportError::NotAnImage { .. }), "{}: {error}", source.display());
    }
    let error = scratch.import(&scratch.path().join("none"), &ImportOptions::default()).unwrap_err();
    assert!(matches!(error, ImportError::Open { .. }), "{error}");
    scratch.is_clean();
}

#[test]
fn a_cut_archive_is_refused_at_every_length() {
    let scratch = scratch();
    let whole = std::fs::read(one_image([Form::Gzip, Form::Gzip], &json!({})).write_tar(scratch.path())).unwrap();
    let cut = scratch.path().join("cut.tar");
    // The padding of the last member may be missing.
    for end in (0..whole.len() - 1024 - 512).step_by(257) {
        std::fs::write(&cut, &whole[..end]).unwrap();
        assert!(scratch.import(&cut, &ImportOptions::default()).is_err(), "{end}");
    }
    scratch.is_clean();
}

#[test]
fn progress_counts_the_layers_then_the_blocks() {
    let scratch = scratch();
    let layout = one_image([Form::Gzip, Form::Gzip], &json!({}));
    let seen = RefCell::new(Vec::new());
    let stores = [format!("dir://{}", scratch.store.display())];
    let source = layout.write_folder(scratch.path());
    let stored = parts(&layout).2.iter().map(|path| layout.files[path].len() as u64).sum::<u64>();
    import(&source, &scratch.fl, &stores, &ImportOptions::default(), &|step| seen.borrow_mut().push(step)).unwrap();
    let seen = seen.into_inner();
    let of_layers = seen.iter().rev().find(|step| matches!(step, ImportProgress::Layers { .. }));
    assert_eq!(of_layers, Some(&ImportProgress::Layers { done_bytes: stored, total_bytes: stored }));
    assert!(matches!(seen.last(), Some(ImportProgress::Pack(pack)) if pack.done_bytes == pack.total_bytes));
}

#[test]
fn the_digest_in_the_name_of_an_old_configuration_is_checked() {
    let scratch = scratch();
    let config = json!({ "rootfs": { "diff_ids": [] } }).to_string().into_bytes();
    let name = format!("{}.json", hex(b"something else"));
    let manifest = json!([{ "Config": name, "Layers": [] }]).to_string().into_bytes();
    let source = write_tar(scratch.path(), &[(name, config), ("manifest.json".to_owned(), manifest)].into());
    let error = scratch.import(&source, &ImportOptions::default()).unwrap_err();
    assert!(matches!(error, ImportError::Digest { .. }), "{error}");
    scratch.is_clean();
}
