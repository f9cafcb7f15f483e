//! `contd-flistfs --dir <lease directory>`: see the library.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use contd_flistfs::launch::{self, Command};

fn main() -> ExitCode {
    let mut stderr = std::io::stderr();
    // Without a stderr there is nobody to tell; the exit code says it all the same.
    let mut say = |line: String| _ = writeln!(stderr, "{line}");
    match launch::parse(std::env::args_os().skip(1)) {
        Ok(Command::Version) => {
            // As above.
            let _unheard = writeln!(std::io::stdout(), "contd-flistfs {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Command::Serve(dir, start)) => match launch::launch(&dir, start) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(format!("error: {error}"));
                if let Some(hint) = &error.hint {
                    say(format!("hint: {hint}"));
                }
                ExitCode::from(launch::exit_code(error.kind))
            }
        },
        Err(usage) => {
            say(usage.to_string());
            ExitCode::from(64)
        }
    }
}
