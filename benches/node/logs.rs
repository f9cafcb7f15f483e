//! Writes the output of a real container into its log file: our shim and conmon, both in CRI form, both with the same
//! writer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use contd_types::MountSpec;
use serde_json::json;

use crate::calls::request_in;
use crate::conmon::{self, Conmon};
use crate::setup::Setup;
use crate::stats::{Goal, Samples, ratio};
use crate::variants::{Contender, Variant};

const ROUNDS: usize = 30;
/// Turns our rotation off, because conmon's log is not rotated either: a size in MiB above all output.
const NEVER_ROTATED: &str = "[logs]\nmax_mib = 1024\n";

/// A pattern of writes.
struct Mode {
    name: &'static str,
    write_bytes: usize,
    writes: usize,
    goal: f64,
}

const MODES: [Mode; 2] = [
    Mode { name: "bulk, 64 KiB a write", write_bytes: 64 * 1024, writes: 2048, goal: 5.0 },
    Mode { name: "one write per line of 100 bytes", write_bytes: 100, writes: 640_000, goal: 1.2 },
];

/// The setting for running the writer on both sides.
struct Setting {
    /// The directory bound to `/data` in the containers: the program, and the time that it records.
    data: PathBuf,
    args: Vec<String>,
    payload: u64,
}

pub(crate) fn measure() {
    let setup = Setup::new("logs");
    let data = setup.path("data");
    compile_writer(&data);
    let contender = Contender::with_config(Variant::Slots, NEVER_ROTATED);
    let has_conmon = conmon::is_there();
    for mode in &MODES {
        let setting = setting(&data, mode);
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        for round in 0..ROUNDS {
            ours.push_value(contd(&setup, &contender, &setting));
            if has_conmon {
                theirs.push_value(conmon_(&setup, &setting, round));
            }
        }
        println!("{}:", mode.name);
        ours.line("contd", "MB/s");
        if has_conmon {
            theirs.line("conmon, k8s-file", "MB/s");
            ratio("contd / conmon", ours.median(), theirs.median(), Goal::AtLeast(mode.goal));
        }
    }
    contender.finish();
    setup.finish();
}

/// Compiles a program for any root: linked statically, by the compiler that built this one.
fn compile_writer(data: &Path) {
    fs::create_dir_all(data).expect("make a directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/node/writer.rs");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o"]);
    let status = rustc.arg(data.join("writer")).arg(source).status().expect("run rustc");
    assert!(status.success(), "rustc: {status}");
}

fn setting(data: &Path, mode: &Mode) -> Setting {
    let words = ["/data/writer", &mode.write_bytes.to_string(), &mode.writes.to_string(), "/data/begin"];
    let payload = (mode.write_bytes * mode.writes) as u64;
    Setting { data: data.to_owned(), args: words.map(str::to_owned).to_vec(), payload }
}

impl Setting {
    /// Returns the MB of payload per second from the writer's first write until the log is complete.
    fn rate(&self, log: &Path) -> f64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let begin: u128 = fs::read_to_string(self.data.join("begin")).expect("the begin").parse().expect("a number");
        let written = fs::metadata(log).expect("the log").len();
        assert!(written > self.payload, "the log of {written} bytes misses some of {}", self.payload);
        self.payload as f64 * 1e3 / (now - begin) as f64
    }
}

fn contd(setup: &Setup, contender: &Contender, setting: &Setting) -> f64 {
    let args: Vec<&str> = setting.args.iter().map(String::as_str).collect();
    let mut request = request_in(&setup.netns.name, "writer", contender.flist.arg(), &args);
    let source = setting.data.display().to_string();
    let (fs_type, target) = ("bind".to_owned(), "/data".to_owned());
    request.spec.mounts.push(MountSpec { fs_type, source, target, options: Vec::new() });
    contender.caller.run(request);
    contender.caller.wait("writer");
    let rate = setting.rate(&contender.node.root.join("log/bench/writer.log"));
    contender.caller.delete("writer");
    rate
}

fn conmon_(setup: &Setup, setting: &Setting, round: usize) -> f64 {
    let mut config = setup.config.clone();
    config["process"]["args"] = json!(setting.args);
    let bind =
        json!({"type": "bind", "source": setting.data, "destination": "/data", "options": ["rbind", "rprivate"]});
    config["mounts"].as_array_mut().expect("a list").push(bind);
    let conmon = Conmon::create(&setup.path(&format!("l{round}")), &config, setup.cgroup_parent());
    conmon.start();
    conmon.wait();
    let rate = setting.rate(&conmon.log());
    conmon.delete();
    rate
}
