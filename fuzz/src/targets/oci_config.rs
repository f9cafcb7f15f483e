//! `config.json`, as far as it can be read without touching the host.

use contd_launch::config::{Config, Process};
use contd_launch::fault::Fault;

/// The text of a whole configuration, or of a process alone.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(fault) = Config::parse(text) {
        judge(&fault, text);
    }
    match Process::parse(text) {
        Ok(process) => {
            if let Err(fault) = prepare(&process) {
                judge(&fault, text);
            }
        }
        Err(fault) => judge(&fault, text),
    }
    // Whatever stands beside it, the process of a configuration is read as it would be alone.
    if let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_str(text)
        && let Some(process) = fields.remove("process")
        && let Ok(process) = Process::parse(&process.to_string())
        && let Err(fault) = prepare(&process)
    {
        judge(&fault, text);
    }
}

/// A refusal says something, and no more than the input gave reason for.
fn judge(fault: &Fault, text: &str) {
    let shown = fault.to_string();
    assert!(!shown.is_empty() && !fault.what.is_empty(), "{fault:?}");
    // Debug-quoting makes up to ten bytes of one.
    assert!(shown.len() <= 20 * text.len() + 1024, "{} bytes about {}", shown.len(), text.len());
}

/// Users, capabilities, limits and the program: nothing of it opens anything.
fn prepare(process: &Process) -> Result<(), Fault> {
    let fd = || contd_launch::plan::FdIndex(0);
    contd_launch::prepare::process(process, [fd(), fd(), fd()], None, None).map(drop)
}
