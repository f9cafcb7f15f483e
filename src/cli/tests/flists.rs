//! Tests of the verbs on flists, which need no daemon.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::PathBuf;

use super::{Outcome, Shell};

fn contd(words: &str) -> Outcome {
    Shell::new().contd(words)
}

#[test]
fn flist_pack_makes_a_flist_and_prints_its_hash() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("root")).expect("made");
    std::fs::create_dir(at("store")).expect("made");
    std::fs::write(at("root").join("hello"), "hello").expect("written");
    let pack = |from: &str| {
        let (from, out, store) = (at(from), at("x.fl"), at("store"));
        contd(&format!(
            "flist pack {} {} --store dir://{} --tag author=me",
            from.display(),
            out.display(),
            store.display()
        ))
    };
    let outcome = pack("root");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert!(outcome.out.trim().len() == 64 && outcome.out.trim().bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(outcome.err.starts_with("packed 2 entries, 5 bytes"), "got {}", outcome.err);
    let flist = contd_flist::Flist::open(&at("x.fl")).expect("a flist");
    assert_eq!(flist.tag("author"), Some("me"));
    let outcome = pack("absent");
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
    assert!(outcome.err.contains("caused by") && outcome.err.contains("hint: "), "got {}", outcome.err);
}

/// A packed tree, and a directory for derived files.
struct Packed {
    dir: tempfile::TempDir,
}

impl Packed {
    fn new() -> Self {
        let packed = Self { dir: tempfile::tempdir().expect("temporary directory") };
        let root = packed.at("root");
        std::fs::create_dir_all(root.join("bin")).expect("made");
        std::fs::write(root.join("bin/tool"), "tool").expect("written");
        std::fs::set_permissions(root.join("bin/tool"), PermissionsExt::from_mode(0o4755)).expect("set");
        std::fs::write(root.join("copy"), "tool").expect("written");
        std::fs::write(root.join("odd\x1b[31m\nname"), "odd").expect("written");
        std::os::unix::fs::symlink("bin/tool", root.join("link")).expect("linked");
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_040);
        std::fs::File::options().write(true).open(root.join("copy")).expect("open").set_modified(old).expect("set");
        let words = format!("flist pack {} {} --store {} --tag author=me", root.display(), packed.fl(), packed.store());
        assert_eq!(contd(&words).code, 0);
        packed
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fl(&self) -> String {
        self.at("x.fl").display().to_string()
    }

    fn store(&self) -> String {
        format!("dir://{}", self.at("store").display())
    }

    fn blocks(&self) -> Vec<PathBuf> {
        let shards = std::fs::read_dir(self.at("store")).expect("a store");
        let files =
            |shard: PathBuf| std::fs::read_dir(shard).expect("a shard").map(|file| file.expect("a file").path());
        shards.flat_map(|shard| files(shard.expect("a shard").path())).collect()
    }
}

#[test]
fn flist_inspect_shows_what_it_is_to_people_and_programs() {
    let packed = Packed::new();
    let text = contd(&format!("flist inspect {}", packed.fl())).succeeded();
    for part in [
        "entries   6: 3 files, 2 directories, 1 symlinks",
        "11 bytes",
        "3, 2 of them distinct",
        "author=me",
        "00-ff dir:///",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let json = contd(&format!("flist inspect --json {}", packed.fl())).succeeded();
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((value["entries"].as_u64(), value["counts"]["files"].as_u64()), (Some(6), Some(3)));
    assert_eq!((value["blocks"].as_u64(), value["unique_blocks"].as_u64()), (Some(3), Some(2)));
    assert_eq!((&value["tags"]["author"], &value["routes"][0]["url"]), (&"me".into(), &packed.store().into()));
    assert_eq!(value["hash"], contd_flist::hash_file(&packed.at("x.fl")).expect("hashed"));
}

#[test]
fn flist_verbs_never_show_a_credential() {
    let packed = Packed::new();
    let database = rusqlite::Connection::open(packed.at("x.fl")).expect("open");
    for url in
        ["zdb://me:secret@h:9900/ns", "s3://id:secret@127.0.0.1:1/b?token=secret", "http://a:secret@127.0.0.1:1/"]
    {
        database.execute("UPDATE route SET url = ?1", [url]).expect("updated");
        let out = packed.at("out");
        for words in [
            "inspect",
            "inspect --json",
            "verify",
            "ls -l",
            &format!("unpack --no-same-owner --jobs 1 {}", out.display()),
        ] {
            let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
            let words = if verb == "unpack" {
                format!("flist unpack {} {}", packed.fl(), rest)
            } else {
                format!("flist {verb} {rest} {}", packed.fl())
            };
            let outcome = contd(&words);
            assert!(!outcome.out.contains("secret") && !outcome.err.contains("secret"), "{words}: {outcome:?}");
        }
    }
}

#[test]
fn flist_ls_shows_names_that_cannot_act_on_a_terminal() {
    let packed = Packed::new();
    let ls = |words: &str| contd(&format!("flist ls {words}"));
    assert_eq!(ls(&packed.fl()).succeeded(), "bin\ncopy\nlink\nodd\\x1b[31m\\x0aname\n");
    let below = ls(&format!("-R {}", packed.fl())).succeeded();
    assert_eq!(below, "bin\nbin/tool\ncopy\nlink\nodd\\x1b[31m\\x0aname\n");
    let long = ls(&format!("-l {} /copy", packed.fl())).succeeded();
    assert_eq!(long, "-rw-r--r--     0     0          4 2020-09-13 12:27 copy\n");
    assert!(ls(&format!("-l {} bin", packed.fl())).succeeded().starts_with("-rwsr-xr-x "));
    assert!(ls(&format!("-l {}", packed.fl())).succeeded().contains(" link -> bin/tool\n"));
    let absent = ls(&format!("{} no/such", packed.fl()));
    assert_eq!((absent.code, absent.out.as_str()), (1, ""));
    assert!(absent.err.contains("no such entry") && absent.err.contains("hint: "), "{}", absent.err);
}

#[test]
fn flist_verify_fails_and_names_the_files_of_a_bad_block() {
    let packed = Packed::new();
    let verify = || contd(&format!("flist verify {} --jobs 2", packed.fl()));
    let outcome = verify();
    assert_eq!((outcome.code, outcome.out.as_str()), (0, ""), "{outcome:?}");
    assert!(outcome.err.starts_with("verified 2 blocks: 0 bad, 7 bytes good"), "{}", outcome.err);
    for block in packed.blocks() {
        std::fs::write(block, "damaged, and longer than a tag").expect("written");
    }
    let outcome = verify();
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.out.contains("\n  /bin/tool\n  /copy\n") || outcome.out.contains("\n  /copy\n  /bin/tool\n"),
        "{outcome:?}"
    );
    assert!(outcome.out.contains("the stored bytes hash to") && outcome.err.contains("2 bad"), "{outcome:?}");
    // Another store has the blocks.
    let good = packed.at("other");
    let words = format!(
        "flist pack {} {} --store dir://{}",
        packed.at("root").display(),
        packed.at("y.fl").display(),
        good.display()
    );
    assert_eq!(contd(&words).code, 0);
    let outcome = contd(&format!("flist verify {} --store dir://{}", packed.fl(), good.display()));
    assert_eq!(outcome.code, 0, "{outcome:?}");
}

#[test]
fn flist_unpack_makes_the_tree_again() {
    let packed = Packed::new();
    let (new, cache) = (packed.at("new"), packed.at("cache"));
    let words = format!("flist unpack {} {} --cache {}", packed.fl(), new.display(), cache.display());
    let outcome = contd(&words);
    assert_eq!((outcome.code, outcome.out.as_str()), (0, ""), "{outcome:?}");
    assert!(outcome.err.starts_with("unpacked 6 entries, 11 bytes in 2 distinct blocks"), "{}", outcome.err);
    assert_eq!(std::fs::read(new.join("bin/tool")).expect("read"), b"tool");
    assert_eq!(new.join("bin/tool").metadata().expect("there").mode() & 0o7777, 0o4755);
    let again = contd(&words);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("it is not empty") && again.err.contains("--force"), "{}", again.err);
    std::fs::remove_dir_all(packed.at("store")).expect("removed");
    let outcome = contd(&format!("{words} --force --no-same-owner"));
    assert_eq!(outcome.code, 0, "the cache has it all: {outcome:?}");
    assert_eq!(new.join("bin/tool").metadata().expect("there").mode() & 0o7777, 0o755);
}
