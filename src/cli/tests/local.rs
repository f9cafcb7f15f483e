//! Tests of commands that need no daemon, and of commands that find none.

use super::{Daemon, Shell};
use crate::cli::args::Cli;

fn contd(words: &str) -> super::Outcome {
    Shell::new().contd(words)
}

#[test]
fn the_grammar_is_sound() {
    Cli::grammar().debug_assert();
}

#[test]
fn without_a_daemon_every_verb_says_how_to_start_one() {
    for (verb, code) in
        [("ps", 1), ("inspect a", 1), ("stop a", 1), ("logs a", 1), ("run -d x.fl", 125), ("run x.fl", 125)]
    {
        let outcome = contd(&format!("--address /nowhere/contd.sock {verb}"));
        assert_eq!((outcome.code, outcome.out.as_str()), (code, ""), "{verb}");
        assert_eq!(
            outcome.err,
            "contd: error: connect to /nowhere/contd.sock\n  caused by: No such file or directory (os error 2)\n\
             hint: is the daemon running? start `contd daemon`, or name its socket with --address\n",
            "{verb}"
        );
    }
}

#[test]
fn version_tells_ours_without_a_daemon_and_fails() {
    let outcome = contd("--address /nowhere/contd.sock version --format json");
    assert_eq!(outcome.code, 1);
    let value: serde_json::Value = serde_json::from_str(&outcome.out).expect("JSON");
    assert_eq!(value["client"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(value["daemon"].is_null());
}

#[test]
fn wrong_usage_is_for_people_and_has_code_2() {
    for words in ["", "nosuch", "ps --nosuch", "inspect", "inspect ../x", "-n ../x ps", "rm -t 3 a"] {
        let outcome = contd(words);
        assert_eq!((outcome.code, outcome.out.as_str()), (2, ""), "{words}");
        assert!(outcome.err.contains("Usage:") || outcome.err.contains("--help"), "{words}: {}", outcome.err);
    }
}

#[test]
fn a_bad_value_is_explained() {
    let outcome = contd("run -m much x.fl");
    assert!(outcome.err.contains("for example 512m"), "got {}", outcome.err);
    let outcome = contd("inspect ../etc");
    assert!(outcome.err.contains("begin with a letter or a digit"), "got {}", outcome.err);
}

#[test]
fn help_is_data_and_names_every_verb() {
    let help = contd("--help").succeeded();
    for verb in [
        "daemon",
        "run",
        "start",
        "ps",
        "inspect",
        "logs",
        "stop",
        "kill",
        "wait",
        "rm",
        "namespaces",
        "events",
        "flist",
        "version",
        "completion",
    ] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb} is missing in {help}");
    }
    let help = contd("run --help").succeeded();
    for flag in [
        "--detach",
        "--rm",
        "--name",
        "--net",
        "--env",
        "--env-file",
        "--volume",
        "--mount",
        "--workdir",
        "--user",
        "--memory",
        "--cpus",
        "--pids-limit",
        "--tag",
        "--restart",
        "--read-only",
        "--stop-timeout",
        "--dry-run",
        "--label",
        "--stop-signal",
        "--rootfs-size",
        "--cidfile",
        "--elevated",
        "--upper",
        "--address",
        "--namespace",
    ] {
        assert!(help.contains(flag), "{flag} is missing in {help}");
    }
    assert!(contd("inspect --help").succeeded().contains("restart_count"));
    assert_eq!(contd("--version").succeeded(), format!("contd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_daemon_gets_its_flags_and_its_error_is_told() {
    let outcome = contd("daemon --state-dir /s --run-dir /r --log-dir /l --cache-dir /c --config /f --address /a");
    assert_eq!(outcome.code, 1);
    for part in [
        "config: Some(\"/f\")",
        "state_dir: Some(\"/s\")",
        "run_dir: Some(\"/r\")",
        "log_dir: Some(\"/l\")",
        "cache_dir: Some(\"/c\")",
        "address: Some(\"/a\")",
        "\nhint: this is a test\n",
    ] {
        assert!(outcome.err.contains(part), "{part} is missing in {}", outcome.err);
    }
}

#[test]
fn completion_scripts_ask_the_program() {
    for shell in ["bash", "zsh", "fish"] {
        let script = contd(&format!("completion {shell}")).succeeded();
        assert!(script.contains("contd") && script.contains("CONTD_COMPLETE"), "{shell}: {script}");
    }
}

#[test]
fn a_daemon_of_another_world_is_named_as_such() {
    let daemon = Daemon::scripted(async |_, _| Ok(contd_protocol::api::Response::Done));
    let outcome = daemon.contd("ps");
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("the daemon broke the protocol"), "got {}", outcome.err);
}
