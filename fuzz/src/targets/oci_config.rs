//! `config.json`, as far as it can be read without touching the host.

use contd_launch::config::{Config, Process};
use contd_launch::fault::Fault;

/// The input is the text of a whole configuration, or of a process alone.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(fault) = Config::parse(text) {
        check_fault(&fault, text);
    }
    match Process::parse(text) {
        Ok(process) => {
            if let Err(fault) = prepare(&process) {
                check_fault(&fault, text);
            }
        }
        Err(fault) => check_fault(&fault, text),
    }
    // The process of a configuration must be read the same as alone.
    if let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_str(text)
        && let Some(process) = fields.remove("process")
        && let Ok(process) = Process::parse(&process.to_string())
        && let Err(fault) = prepare(&process)
    {
        check_fault(&fault, text);
    }
}

/// Checks that a refusal has a text, and that its length is bounded by the input.
fn check_fault(fault: &Fault, text: &str) {
    let shown = fault.to_string();
    assert!(!shown.is_empty() && !fault.what.is_empty(), "{fault:?}");
    // Debug quoting makes up to ten bytes of one.
    assert!(shown.len() <= 20 * text.len() + 1024, "{} bytes about {}", shown.len(), text.len());
}

/// Prepares users, capabilities, limits and the program, which opens no file.
fn prepare(process: &Process) -> Result<(), Fault> {
    let fd = || contd_launch::plan::FdIndex(0);
    contd_launch::prepare::process(process, [fd(), fd(), fd()], None, None).map(drop)
}
