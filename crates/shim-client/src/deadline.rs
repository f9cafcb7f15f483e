//! How long each call may take. The fake keeps the same times, so that a paused clock shows what a real node would do.

use std::time::Duration;

/// The launcher's: it forks the shim and waits for its socket; some 10 ms on an idle node, seconds on one that swaps.
pub const SPAWN: Duration = Duration::from_secs(10);
/// To connect and say hello: a shim answers from its loop at once; whoever needs longer is stuck.
pub const CONNECT: Duration = Duration::from_secs(1);
/// `runc create` takes 30 ms; with a cold page cache and a hundred others at once, seconds.
pub const CREATE: Duration = Duration::from_secs(30);
/// Start only opens a FIFO; the rest is room for a busy node.
pub const START: Duration = Duration::from_secs(20);
/// A process joins the container's cgroup and namespaces; its program may lie on a slow flist. The rest is room for a busy node.
pub const EXEC: Duration = Duration::from_secs(20);
/// Answered from the shim's memory.
pub const STATE: Duration = Duration::from_secs(2);
/// A signal, or one call of the runtime.
pub const KILL: Duration = Duration::from_secs(5);
/// Processes that wait in the kernel keep a cgroup from freezing, and the shim gives up on them by itself.
pub const PAUSE: Duration = Duration::from_secs(20);
/// The runtime kills, waits and removes cgroups.
pub const DELETE: Duration = Duration::from_secs(30);
/// The shim has nothing left to do; also how long its process may then take to end.
pub const SHUTDOWN: Duration = Duration::from_secs(5);
/// How long a process that was killed may take to be gone: exit of a large address space, or of one in an I/O wait.
pub const KILLED: Duration = Duration::from_secs(10);
