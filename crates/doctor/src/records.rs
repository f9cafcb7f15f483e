//! Records that nobody can read. A person decides: the container of such a record may run.

use crate::error::LookError;
use crate::finding::Finding;
use crate::node::Node;

/// Looks for them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let unread = node.known.unread.iter().map(|unread| {
        Finding::problem(format!("a record that cannot be read: {}", unread.why))
            .at(&unread.path)
            .of(&unread.id)
            .because("its container, if it runs, cannot be stopped or listed; all that may be its is spared")
            .remedy("repair it and start contd daemon again, or remove it; then contd doctor --fix removes the rest")
    });
    let aside = node.known.aside.iter().map(|aside| {
        Finding::warning("a damaged record that the daemon has set aside")
            .at(&aside.path)
            .of(&aside.id)
            .because("its container, if it runs, cannot be stopped or listed; all that may be its is spared")
            .remedy("repair it, move it back to record.json and start contd daemon again, or remove it")
    });
    let findings: Vec<Finding> = unread.chain(aside).collect();
    if findings.is_empty() {
        return Ok(vec![Finding::ok(format!("{} records, and all can be read", node.known.count()))]);
    }
    Ok(findings)
}
