//! A shim with the scripted runtime, for tests of the shim itself and of whoever starts shims.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use contd_shim::Options;
use contd_shim::runtime::Runtime;
use contd_shim::runtime::fake::{FakeRuntime, Script};

fn main() -> ExitCode {
    let unclaimed = std::env::args_os().nth(2).and_then(|dir| Script::read(dir.as_ref()).ok()?.unclaimed_millis);
    let options = match unclaimed {
        Some(millis) => Options { unclaimed_timeout: Duration::from_millis(millis) },
        None => Options::default(),
    };
    contd_shim::main(std::env::args_os().skip(1), &options, |_task, dir, _hierarchies| {
        Ok(Box::new(FakeRuntime::new(Script::read(dir)?)) as Box<dyn Runtime>)
    })
}
