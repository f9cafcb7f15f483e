//! A strike at every failpoint: the process that comes by is killed, stopped or delayed, alone or with the other one.

use std::sync::atomic::{AtomicU64, Ordering};

use contd_failpoint::{Failpoint, ORDER, STRUCK};
use nix::sys::signal::Signal;

use crate::driver::{Fault, Process, Stage};
use crate::form;
use crate::harness::{Node, eventually};
use crate::points::{Placement, Provocation, Step, is_of_daemon, placement};

/// One case.
type Case = (Fault, Placement);

fn cases(action: &str, points: impl Iterator<Item = Failpoint>) -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for point in points {
        let Some(placement) = placement(point) else { continue };
        for from in placement.from {
            for skip in placement.skips {
                let name = format!("{} {action} from {from:?} skip {skip}", point.name());
                let fault =
                    Fault { point: Some(point), action: action.to_owned(), skip: *skip, from: *from, only: None };
                cases.push((name, (fault, placement)));
            }
        }
    }
    cases
}

/// Plays each case and demands that its point was struck.
fn play(title: &str, cases: &[(String, Case)]) {
    form::run_all(title, cases, |name, (fault, placement)| {
        let stage = Stage::set(fault.clone(), placement.has_slots, placement.is_created);
        assert!(stage.play(placement.provocation), "{name}: the point was not reached");
    });
}

fn all() -> impl Iterator<Item = Failpoint> {
    Failpoint::ALL.iter().copied()
}

#[test]
fn whoever_dies_at_any_point_costs_no_container_no_line_and_no_exit_code() {
    play("kill", &form::select(cases("kill", all()), 7));
}

#[test]
fn shim_and_daemon_dying_together_at_any_point_cost_no_container_and_no_line() {
    play("both", &form::select(cases("both", all()), 12));
}

#[test]
fn a_run_that_fails_leaves_nothing_whoever_dies_while_it_is_rolled_back() {
    let points = [
        Failpoint::ShimEnded,
        Failpoint::BundleRemoved,
        Failpoint::LogRemoved,
        Failpoint::RootReleased,
        Failpoint::RecordRemoved,
        Failpoint::DeleteBegun,
        Failpoint::DeleteCgroupRemoved,
        Failpoint::DeleteForgotten,
        Failpoint::ShimShutDown,
    ];
    let case = |point: Failpoint, action: &str| {
        let fault = Fault { point: Some(point), action: action.into(), skip: 0, from: Step::Run, only: None };
        (format!("{} {action}", point.name()), fault)
    };
    let cases = points.into_iter().flat_map(|point| [case(point, "kill"), case(point, "both")]).collect();
    form::run_all("rollback", &form::select(cases, 5), |name, fault| {
        assert!(Stage::set(fault.clone(), false, false).play_failing(), "{name}: the point was not reached");
    });
}

#[test]
fn whoever_stands_still_at_a_point_is_replaced() {
    let points = [
        Failpoint::UpgradeAsked,
        Failpoint::MakeRecorded,
        Failpoint::ExitTaken,
        Failpoint::HandOverBegun,
        Failpoint::StartBegun,
        Failpoint::SpoolNoted,
        Failpoint::EndSeen,
        Failpoint::AdoptRead,
        Failpoint::ShimBound,
    ];
    play("stop", &form::select(cases("stop", points.into_iter()), 6));
}

#[test]
fn an_answer_that_comes_after_its_deadline_costs_nothing() {
    // Above the deadlines of a state, a hand-over and a signal; those of create and start are above 20 s.
    let mut slow = cases("delay 7000", [Failpoint::HandOverBegun, Failpoint::AttachDone].into_iter());
    slow.extend(cases("delay 22000", [Failpoint::StartBegun].into_iter()));
    slow.extend(cases("delay 32000", [Failpoint::CreateBegun, Failpoint::StopSignalled].into_iter()));
    play("delay", &form::select(slow, 5));
}

#[test]
fn every_verb_said_twice_is_as_good_as_said_once() {
    for has_slots in [false, true] {
        let fault = Fault { point: None, action: String::new(), skip: 0, from: Step::Run, only: None };
        Stage::set(fault, has_slots, false).each_twice().play(Provocation::Nobody);
    }
}

/// Strikes at the n-th file operation for n = 0, 1, 2, … (in the short form, for a few of them) until a scenario passes
/// without being struck.
fn strike_file_operations(process: Process, action: &str, short: &[u64]) {
    let fault = |skip| Fault {
        point: Some(Failpoint::FsOperation),
        action: action.to_owned(),
        skip,
        from: Step::Run,
        only: Some(process),
    };
    let play = |skip: u64| Stage::set(fault(skip), false, false).play(Provocation::Nobody);
    let title = format!("{process:?} {action}");
    if !form::is_full() {
        let cases: Vec<_> = short.iter().map(|skip| (format!("operation {skip}"), *skip)).collect();
        return form::run_all(&title, &cases, |name, skip| assert!(play(*skip), "{name} was not reached"));
    }
    // In strides, so that several run at once; the last stride has those that are not reached.
    for begin in (0..).step_by(STRIDE) {
        let unreached = AtomicU64::new(0);
        let numbers = (begin..).take(STRIDE);
        let cases: Vec<_> = numbers.map(|skip| (format!("operation {skip}"), skip)).collect();
        form::run_all(&title, &cases, |_name, skip| {
            if !play(*skip) {
                unreached.fetch_add(1, Ordering::Relaxed);
            }
        });
        let unreached = unreached.into_inner();
        if unreached > 0 {
            println!("{title}: {} operations were struck", begin + STRIDE as u64 - unreached);
            return;
        }
    }
}

const STRIDE: usize = 16;
const ENOSPC: &str = "error 28";
const EIO: &str = "error 5";

#[test]
fn any_file_operation_of_the_daemon_may_fail() {
    strike_file_operations(Process::Daemon, ENOSPC, &[3, 17]);
    strike_file_operations(Process::Daemon, EIO, &[9, 25]);
}

#[test]
fn any_file_operation_of_a_shim_may_fail() {
    strike_file_operations(Process::Shim, ENOSPC, &[1, 5]);
    strike_file_operations(Process::Shim, EIO, &[3, 8]);
}

#[test]
fn whoever_dies_before_any_file_operation_costs_nothing() {
    strike_file_operations(Process::Daemon, "kill", &[12, 40]);
    strike_file_operations(Process::Shim, "kill", &[2, 7]);
}

#[test]
fn every_point_is_placed_and_both_processes_have_points() {
    assert!(all().any(is_of_daemon) && all().any(|point| !is_of_daemon(point)));
    let placed = cases("kill", all()).len();
    assert!(placed >= Failpoint::ALL.len() - 1, "{placed}");
}

#[test]
fn a_word_to_end_that_comes_while_a_shim_starts_a_program_is_heard() {
    let runc = "[runtime]\ndefault = \"runc\"\nwarm_slots = 0\n";
    let mut node = Node::with_drop_in("", runc);
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sleep", "1000"]).ok();
    let bystander = (node.shim_pid("stays"), node.inspect("stays")["pid"].clone());
    let mark = node.root.join("input/go");
    let share = format!("{}:/data", node.root.join("input").display());
    let wait = "while [ ! -e /data/go ]; do sleep 0.05; done; exit 23";
    node.contd(["run", "-d", "--name", "ends", "-v", &share, flist.arg(), "/bin/sh", "-c", wait]).ok();
    let shim = node.shim_pid("ends");
    // When its container has ended, the daemon has it removed by the runtime.
    let order = format!("{} stop only {shim}\n", Failpoint::ProgramStarted.name());
    std::fs::write(node.root.join("run").join(ORDER), order).expect("order it");
    std::fs::write(mark, "").expect("let it end");
    let is_stopped = || std::fs::read_to_string(format!("/proc/{shim}/stat")).is_ok_and(|stat| stat.contains(") T "));
    eventually("the shim to stand still", || is_stopped().then_some(()));
    std::fs::remove_file(node.root.join("run").join(STRUCK)).expect("it was carried out");
    node.kill_daemon();
    node.signal(shim, Signal::SIGTERM);
    node.signal(shim, Signal::SIGCONT);
    let is_gone = || !std::path::Path::new(&format!("/proc/{shim}")).exists();
    eventually("the shim to end", || is_gone().then_some(()));
    node.start_daemon();
    assert_eq!(node.inspect("ends")["exit_code"], 23);
    node.contd(["rm", "ends"]).ok();
    assert_eq!((node.shim_pid("stays"), node.inspect("stays")["pid"].clone()), bystander);
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    node.finish();
}
