//! Runs the same bundles by `runc` and by the native launcher: a probe inside must see the same, and both refuse the
//! same.
//!
//! The family of bundles is generated; the seed is printed and replays by `CONTD_DIFFERENTIAL_SEED=<64 hex digits>`.
//! The intended differences are in `normal.rs`, with the reasons in docs/decisions/0006.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests end loudly")]

mod bundle;
mod exec;
mod normal;
mod run;

use std::cell::Cell;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use bundle::{Case, cases};
use run::{Bench, Outcome};

/// The number of bundles in `make test`; each takes runc about 70 ms. `make faults` sets `CONTD_DIFFERENTIAL_CASES=400`.
const CASES: u32 = 100;

/// From how many on it is no chance that some of them are refused, and half of them are not.
const FAMILY: u32 = 400;

fn count() -> u32 {
    std::env::var("CONTD_DIFFERENTIAL_CASES").map_or(CASES, |text| text.parse().unwrap())
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    match std::env::var("CONTD_DIFFERENTIAL_SEED") {
        Ok(text) => {
            for (byte, digits) in seed.iter_mut().zip(text.as_bytes().chunks(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
            }
        }
        Err(_) => {
            std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut seed).unwrap();
        }
    }
    seed
}

#[test]
fn a_bundle_is_the_same_container_under_runc_and_natively() {
    let bench = Bench::prepare();
    let seed = seed();
    let text: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    eprintln!("CONTD_DIFFERENTIAL_SEED={text}");
    let count = count();
    let config = Config { cases: count, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let (ran, refused) = (Cell::new(0u32), Cell::new(0u32));
    let result = runner.run(&cases(), |case| {
        let difference = compare(&bench, &case, &ran, &refused);
        difference.map_err(TestCaseError::fail)
    });
    let leftovers = bench.leftovers();
    if let Err(error) = result {
        panic!("CONTD_DIFFERENTIAL_SEED={text}\n{error}");
    }
    assert!(leftovers.is_empty(), "left behind: {leftovers:?}");
    eprintln!("{} containers ran the same, {} were refused by both", ran.get(), refused.get());
    assert_eq!(ran.get() + refused.get(), count, "each was compared");
    assert!(count < FAMILY || (ran.get() >= count / 2 && refused.get() > 0), "the family is one-sided");
}

fn compare(bench: &Bench, case: &Case, ran: &Cell<u32>, refused: &Cell<u32>) -> Result<(), String> {
    let (runc, native) = (bench.runc(case), bench.native(case));
    match (&runc, &native) {
        (Outcome::Ran { code: left, report: one }, Outcome::Ran { code: right, report: other }) => {
            ran.set(ran.get() + 1);
            let (one, other) = (normal::lines(one), normal::lines(other));
            let only_runc: Vec<_> = one.iter().filter(|line| !other.contains(line)).collect();
            let only_native: Vec<_> = other.iter().filter(|line| !one.contains(line)).collect();
            if left == right && only_runc.is_empty() && only_native.is_empty() {
                return Ok(());
            }
            Err(format!("codes {left} and {right}\nonly runc: {only_runc:#?}\nonly native: {only_native:#?}"))
        }
        (Outcome::Refused { code: left, .. }, Outcome::Refused { code: right, words }) => {
            refused.set(refused.get() + 1);
            let names_field = case.field.is_none_or(|field| words.contains(field));
            // runc exits with 1 for every refusal; a shell's exit codes are our own promise.
            let is_code_right = case.native_code.is_none_or(|code| code == *right);
            if names_field && is_code_right {
                return Ok(());
            }
            Err(format!(
                "runc {left}, native {right}; expected {:?} and {:?} in: {words}",
                case.native_code, case.field
            ))
        }
        _ => Err(format!("one runs and the other does not: runc {runc:?}\nnative {native:?}")),
    }
}
