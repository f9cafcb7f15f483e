//! `contd-shim --dir <lease dir>`: see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::rc::Rc;

use contd_launch::launcher::Settings;
use contd_protocol::shim::RuntimeSpec;
use contd_shim::Options;
use contd_shim::runtime::{Runtime, native::NativeRuntime, oci::OciRuntime};

fn main() -> ExitCode {
    contd_shim::main(std::env::args_os().skip(1), &Options::default(), |task, dir, hierarchies| match &task.runtime {
        RuntimeSpec::Oci { binary, root } => {
            Ok(Box::new(OciRuntime::new(binary.clone(), root.clone(), dir)) as Box<dyn Runtime>)
        }
        RuntimeSpec::Native { cgroup, filters, compiler } => {
            let settings = Settings { cgroup: cgroup.clone(), filters: filters.clone(), compiler: compiler.clone() };
            Ok(Box::new(NativeRuntime::new(settings, Rc::clone(hierarchies))) as Box<dyn Runtime>)
        }
    })
}
