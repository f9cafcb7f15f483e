//! `contd-shim --dir <lease dir>`: see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use contd_protocol::shim::RuntimeSpec;
use contd_shim::Options;
use contd_shim::runtime::{Runtime, oci::OciRuntime};

fn main() -> ExitCode {
    contd_shim::main(std::env::args_os().skip(1), &Options::default(), |task, dir| match &task.runtime {
        RuntimeSpec::Oci { binary, root } => {
            Ok(Box::new(OciRuntime::new(binary.clone(), root.clone(), dir)) as Box<dyn Runtime>)
        }
    })
}
