//! Tests of usage: values mean what people expect, and errors do not mislead.

use clap::FromArgMatches;
use contd_protocol::api::{Request, Response};
use contd_types::hint::NAMESPACED_VERBS;
use contd_types::{ApiError, ContainerSpec, Entrypoint, ErrorKind};

use super::samples::id;
use super::{Daemon, Shell};
use crate::cli::args::{Cli, Verb};

fn spec(words: &[&str]) -> ContainerSpec {
    let matches = Cli::grammar().try_get_matches_from(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    match Cli::from_arg_matches(&matches).expect("parsed").verb {
        Verb::Run(args) | Verb::Create(args) => {
            args.to_spec("/home/me".as_ref(), &|_| None).unwrap_or_else(|error| panic!("{words:?}: {error}"))
        }
        other => panic!("{words:?} is {other:?}"),
    }
}

/// Lists every spelling of every flag of a verb, with the global flags and help.
fn spellings(verb: &str) -> Vec<String> {
    let mut root = Cli::grammar();
    root.build();
    let verb = root.find_subcommand(verb).expect("a verb");
    let mut found = Vec::new();
    for arg in verb.get_arguments() {
        found.extend(arg.get_long_and_visible_aliases().unwrap_or_default().iter().map(|long| format!("--{long}")));
        found.extend(arg.get_short_and_visible_aliases().unwrap_or_default().iter().map(|short| format!("-{short}")));
    }
    found
}

#[test]
fn every_flag_behind_the_flist_is_the_containers() {
    for verb in ["run", "create"] {
        let mut flags = spellings(verb);
        for known in ["--detach", "-d", "--network", "--namespace", "--address", "--help", "-h"] {
            assert!(flags.iter().any(|flag| flag == known), "{known} is not enumerated");
        }
        flags.extend(["--version", "-V", "--port", "-x", "--", "-", "--rm=maybe", "-it", "help"].map(str::to_owned));
        for flag in &flags {
            let joined = format!("{flag}=x");
            for command in [&[flag.as_str()][..], &[flag, "80"], &[&joined], &["--", flag], &["sh", flag, "--", flag]] {
                let words = [&["contd", verb, "--rm", "x.fl"], command].concat();
                let got = spec(&words);
                let expected = command.iter().map(|word| (*word).to_owned()).collect();
                assert_eq!(got.entrypoint, Some(Entrypoint::Args(expected)), "{words:?}");
                assert_eq!((got.flist.as_str(), got.is_auto_removed), ("/home/me/x.fl", true), "{words:?}");
            }
        }
    }
}

#[test]
fn two_dashes_before_the_flist_end_our_flags_and_behind_it_are_the_containers() {
    // As with docker and podman: `docker run -- IMAGE`, and `docker run IMAGE -- X` runs `--`.
    let got = spec(&["contd", "run", "-d", "--", "x.fl", "-d"]);
    assert_eq!((got.flist.as_str(), got.entrypoint), ("/home/me/x.fl", Some(Entrypoint::Args(vec!["-d".into()]))));
    let got = spec(&["contd", "run", "--entrypoint", "/e", "x.fl", "-d", "--"]);
    assert_eq!(got.entrypoint, Some(Entrypoint::Exact(vec!["/e".into(), "-d".into(), "--".into()])));
}

#[test]
fn flags_are_written_as_for_docker_and_the_last_one_counts() {
    let run = |flags: &str| spec(&["contd run", flags, "x.fl"].join(" ").split_whitespace().collect::<Vec<_>>());
    for (flags, expected) in
        [("--rm", true), ("--rm=true", true), ("--rm=1", true), ("--rm=false", false), ("--rm --rm=f", false)]
    {
        assert_eq!(run(flags).is_auto_removed, expected, "{flags}");
    }
    assert!(run("--read-only=true").is_read_only && !run("--read-only=false").is_read_only);
    assert!(run("-d=false --rm").is_auto_removed);
    assert_eq!(run("--name a --name b").name.as_str(), "b");
    assert_eq!(run("-m 64m --memory=128m").memory_bytes, Some(128 << 20));
    // A value of a flag stays a value, even if it begins with a dash.
    assert_eq!(run("-e -A=1 --label -x=y --entrypoint -z").env, ["-A=1"]);
    assert_eq!(run("--network blue").network, run("--net=blue").network);
    assert_eq!(run("--cpus .5").cpu.map(u32::from), Some(500));
    assert_eq!(run("-e A=1 -e B=2 --env A=3").env, ["B=2", "A=3"]);
}

#[test]
fn wrong_usage_of_run_and_create_is_the_engines() {
    for verb in ["run", "create"] {
        for flags in [
            "",
            "--no-such-flag x.fl",
            "-z x.fl",
            "--memory=none x.fl",
            "--memory 0 x.fl",
            "-m -1 x.fl",
            "--pids-limit=-1 x.fl",
            "--pids-limit -1 x.fl",
            "--pids-limit 0 x.fl",
            "--cpus=0 x.fl",
            "--cpus -1 x.fl",
            "--rootfs-size 0 x.fl",
            "--stop-timeout -1 x.fl",
            "--stop-signal NONE x.fl",
            "--mount=x x.fl",
            "--restart sometimes x.fl",
            "--rm=maybe x.fl",
            "--net container:web x.fl",
            "--name ../x x.fl",
            "-w relative x.fl",
            "--env-file /nowhere x.fl",
            "--rm --restart always x.fl",
            "--tmpfs t x.fl",
            "--isolation /t x.fl",
            "-it x.fl",
            "--publish 80:80 x.fl",
        ] {
            let outcome = Shell::new().contd(&format!("--address /nowhere {verb} {flags}"));
            assert_eq!((outcome.code, outcome.out.as_str()), (125, ""), "{verb} {flags}: {}", outcome.err);
        }
        let unknown = Shell::new().contd(&format!("{verb} --isolation /t x.fl")).err;
        assert!(unknown.contains("'--isolation'") && !unknown.contains("-- --isolation"), "{unknown}");
        let short = Shell::new().contd(&format!("{verb} -iZ x.fl")).err;
        assert!(short.contains("'-Z'"), "{short}");
        let minus = Shell::new().contd(&format!("{verb} --pids-limit -1 x.fl")).err;
        assert!(minus.contains("--pids-limit") && minus.contains("the node's default"), "{minus}");
    }
    assert_eq!(Shell::new().contd("-n ../x run x.fl").code, 125);
    assert_eq!(Shell::new().contd("--bogus run x.fl").code, 125);
    for other in ["ps --no-such", "start", "rm --no-such x", "-n ../x ps", "", "--bogus"] {
        assert_eq!(Shell::new().contd(other).code, 2, "{other}");
    }
}

#[test]
fn what_other_engines_have_is_refused_with_the_reason() {
    for (words, code, why) in [
        ("run --init x.fl", 125, "not built yet"),
        ("run -p 80:80 x.fl", 125, "docs/networking.md"),
        ("create --pid=host x.fl", 125, "always has its own"),
        ("stop --all", 2, "contd ps -q"),
        ("logs --latest", 2, "contd ps -ql"),
        ("build .", 2, "contd flist"),
        ("rename a b", 2, "not built yet"),
    ] {
        let outcome = Shell::new().contd(words);
        assert_eq!((outcome.code, outcome.err.contains(why)), (code, true), "{words}: {}", outcome.err);
    }
}

#[test]
fn what_create_cannot_do_is_the_engines_too() {
    for (kind, code) in [
        (ErrorKind::AlreadyExists, 125),
        (ErrorKind::EntrypointNotFound, 127),
        (ErrorKind::EntrypointNotExecutable, 126),
    ] {
        let daemon = Daemon::scripted(move |_, _| async move { Err(ApiError::new(kind, "create it")) });
        assert_eq!(daemon.contd("create x.fl").code, code, "{kind}");
    }
}

#[test]
fn a_guess_at_what_was_meant_is_harmless() {
    for given in ["top", "rmi", "skill", "stoop", "rn", "stopp", "killl", "prne", "flist cache prun"] {
        let err = Shell::new().contd(given).err;
        for harmful in ["'stop'", "'rm'", "'kill'", "'prune'"] {
            assert!(!err.contains(harmful), "{given}: {err}");
        }
    }
    for (given, meant) in
        [("pss", "'ps'"), ("inspcet web", "'inspect'"), ("log web", "'logs'"), ("run --detch x.fl", "'--detach'")]
    {
        let err = Shell::new().contd(given).err;
        assert!(err.contains(meant), "{given}: {err}");
    }
    let err = Shell::new().contd("rm --forc web").err;
    assert!(err.contains("'--forc'") && !err.contains("'--force'"), "{err}");
}

#[test]
fn a_hint_carries_the_namespace_and_the_address_that_was_given() {
    let daemon = Daemon::scripted(async |_, _| {
        Err(ApiError::new(ErrorKind::NotFound, "find it").with_hint("see: contd -n blue ps -a"))
    });
    let socket = daemon.socket().display().to_string();
    let err = daemon.contd("-n blue inspect web").err;
    assert!(err.ends_with(&format!("hint: see: contd -n blue --address {socket} ps -a\n")), "{err}");
    // Each of several errors has the namespace in its hint.
    let err = daemon.contd("-n blue stop web job").err;
    assert_eq!(err.matches(&format!("contd -n blue --address {socket} ps -a\n")).count(), 2, "{err}");
    // An error of the client itself has the namespace too.
    let err = Shell::new().contd("--address unix:///nowhere/x.sock ps").err;
    assert!(err.contains("connect to /nowhere/x.sock"), "{err}");
}

#[test]
fn addresses_may_have_a_scheme_that_is_ours() {
    let daemon = Daemon::scripted(async |request, _| match request {
        Request::Run(_) => Ok(Response::Created { id: id(1) }),
        other => panic!("asked for {other:?}"),
    });
    let socket = daemon.socket().display().to_string();
    for address in [format!("unix://{socket}"), format!("unix:{socket}"), socket] {
        assert_eq!(Shell::new().contd(&format!("--address {address} run -d x.fl")).code, 0, "{address}");
    }
    let err = Shell::new().contd("--address tcp://host:1 ps").err;
    assert!(err.contains("tcp://") && err.contains("unix://"), "{err}");
}

#[test]
fn the_verbs_that_hints_complete_are_verbs() {
    let root = Cli::grammar();
    for verb in NAMESPACED_VERBS {
        assert!(root.find_subcommand(verb).is_some(), "{verb}");
    }
}

#[test]
fn help_names_exit_codes_where_they_differ_from_0_and_1() {
    let differing = ["run", "create", "exec", "attach", "doctor"];
    let mut root = Cli::grammar();
    root.build();
    for verb in root.get_subcommands().map(|verb| verb.get_name().to_owned()) {
        let help = Shell::new().contd(&format!("{verb} --help")).succeeded();
        assert_eq!(
            help.contains("Exit codes: ") && help.contains("125"),
            differing.contains(&verb.as_str()),
            "{verb}: {help}"
        );
        assert!(help.contains(&format!("Usage: contd {verb}")), "{verb}: {help}");
        if ["run", "create"].contains(&verb.as_str()) {
            assert!(
                help.contains("<FLIST> [COMMAND [ARGUMENT]...]") && help.contains("126") && help.contains("127"),
                "{help}"
            );
        }
    }
    let help = Shell::new().contd("flist verify --help").succeeded();
    assert!(help.contains("Exit codes: "), "{help}");
    let help = Shell::new().contd("--help").succeeded();
    assert!(help.contains("Exit codes: 0; 1 for an error; 2 for wrong usage"), "{help}");
}
