//! Tests of `flist cache`, on files alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Outcome, Shell};

struct Node(tempfile::TempDir);

impl Node {
    /// Makes a cache with two blocks, a whole file, and a flist that a server uses.
    fn new() -> Self {
        let node = Self(tempfile::tempdir().expect("a directory"));
        let hash = "ab".repeat(32);
        node.put(&format!("cache/blocks/00/{}", "00".repeat(32)), 8192);
        node.put(&format!("cache/blocks/01/{}", "01".repeat(32)), 4096);
        node.put(&format!("cache/files/02/{}", "02".repeat(32)), 4096);
        node.put(&format!("cache/fl/{hash}.fl"), 4096);
        fs::write(node.0.path().join(format!("cache/fl/{hash}.name")), "https://h/x\u{1b}[31m.fl").expect("written");
        node.put("run/f/key/serve.json", 0);
        fs::write(node.0.path().join("run/f/key/serve.json"), format!("{{\"hash\":\"{hash}\"}}")).expect("written");
        fs::write(node.0.path().join("config.toml"), "[cache]\nmax_bytes = '64m'\nmin_free = '0'").expect("written");
        node
    }

    /// Makes a file that was last used in 2001.
    fn put(&self, path: &str, len: usize) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(&path, vec![7; len]).expect("written");
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let times = fs::FileTimes::new().set_accessed(then).set_modified(then);
        fs::File::open(path).and_then(|file| file.set_times(times)).expect("set");
    }

    fn contd(&self, words: &str) -> Outcome {
        let at = |dir: &str| self.0.path().join(dir).display().to_string();
        let dirs = format!("--config {} --cache-dir {} --run-dir {}", at("config.toml"), at("cache"), at("run"));
        Shell::new().contd(&format!("flist cache {words} {dirs}"))
    }

    fn json(&self, words: &str) -> serde_json::Value {
        serde_json::from_str(&self.contd(&format!("{words} --json")).succeeded()).expect("JSON")
    }

    fn has(&self, path: &str) -> bool {
        Path::new(&self.0.path().join("cache").join(path)).exists()
    }
}

#[test]
fn a_list_tells_what_there_is_of_each_kind_and_what_was_fetched() {
    let node = Node::new();
    let value = node.json("ls");
    assert_eq!((&value["blocks"]["count"], &value["blocks"]["bytes"]), (&2.into(), &12_288.into()));
    assert_eq!((&value["files"]["count"], &value["temps"]["count"]), (&1.into(), &0.into()));
    assert_eq!((&value["max_bytes"], &value["min_free_bytes"]), (&(64u64 << 20).into(), &0.into()));
    assert_eq!(value["blocks"]["oldest_use"], "2001-09-09T01:46:40.000000000Z");
    assert_eq!(value["fetched"][0]["hash"], "ab".repeat(32));
    assert_eq!(
        (&value["fetched"][0]["served"], &value["fetched"][0]["from"]),
        (&true.into(), &"https://h/x\u{1b}[31m.fl".into())
    );
    let text = node.contd("ls").succeeded();
    assert!(text.starts_with("KIND     COUNT   SIZE "), "{text}");
    assert!(text.contains("\nblocks   2       12.00 KiB "), "{text}");
    assert!(text.contains("of 64.00 MiB in ") && text.contains("abababababab"), "{text}");
    assert!(text.contains("https://h/x [31m.fl"), "no control characters: {text:?}");
}

#[test]
fn pruning_keeps_what_is_served_and_tells_what_was_freed() {
    let node = Node::new();
    let dry = node.json("prune --all --dry-run");
    assert!(node.has(&format!("blocks/00/{}", "00".repeat(32))));
    let wet = node.json("prune --all");
    assert_eq!((&dry["dry_run"], &wet["dry_run"]), (&true.into(), &false.into()));
    assert_eq!((&dry["freed_bytes"], &wet["freed_bytes"]), (&16_384.into(), &16_384.into()));
    assert_eq!(
        (&wet["blocks"]["count"], &wet["files"]["count"], &wet["in_use"]["count"]),
        (&2.into(), &1.into(), &1.into())
    );
    assert!(!node.has(&format!("blocks/00/{}", "00".repeat(32))) && node.has(&format!("fl/{}.fl", "ab".repeat(32))));
    fs::remove_dir_all(node.0.path().join("run")).expect("removed");
    let text = node.contd("prune --older-than 30d").succeeded();
    assert!(
        text.contains("flists   1         8.00 KiB\n") && text.contains("8192 bytes freed; 0 B are left"),
        "{text}"
    );
}

#[test]
fn a_size_is_reached_from_the_oldest_on_and_limits_are_met_without_a_flag() {
    let node = Node::new();
    assert_eq!(node.json("prune")["freed_bytes"], 0, "far below the limit");
    let freed = node.json("prune --to 12k");
    assert_eq!(freed["left_bytes"], 12_288);
    for words in ["prune --all --to 1g", "prune --to much", "prune --older-than soon", "prune --to 1g --older-than 1d"]
    {
        assert_eq!(node.contd(words).code, 2, "{words}");
    }
}

#[test]
fn a_node_without_a_cache_has_an_empty_one_and_makes_none() {
    let node = Node::new();
    fs::remove_dir_all(node.0.path().join("cache")).expect("removed");
    assert_eq!(node.json("ls")["total_bytes"], 0);
    assert_eq!(node.json("prune --all")["freed_bytes"], 0);
    assert!(!node.has(""));
    let refused = Shell::new().contd("flist cache ls --config /nowhere.toml");
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(
        refused.err.contains("read configuration /nowhere.toml") && refused.err.contains("hint: see docs/"),
        "{}",
        refused.err
    );
}
