//! A whole node in this process: runs one container as root, below a directory that has a root file system in `root/`.
//!
//! `cargo build --workspace --bins && cargo run -p contd-node --example node -- SCRATCH target/debug`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use contd_node::contd_actors::ask_api;
use contd_node::contd_actors::contd_types::{ContainerName, ContainerSpec, Entrypoint, NamespaceId};
use contd_node::contd_actors::messages::{DeleteContainer, ReadLog, RunContainer, Target, WaitContainer};
use contd_node::{Config, Node};

/// How long the node may take for an answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node below a directory, apart from any other of this machine.
fn config(scratch: &Path, programs: &Path) -> Config {
    let mut config = Config::below(scratch);
    config.cgroup_parent = format!("contd-example-{}", std::process::id());
    config.runtime.warm_slots = 0; // one container only
    config.runtime.shim = Some(programs.join("contd-shim")); // these are found beside the program, where they are installed so
    config.runtime.flistfs = Some(programs.join("contd-flistfs"));
    config.runtime.seccomp = Some(programs.join("contd-seccomp"));
    config
}

async fn run(scratch: &Path, programs: &Path) -> Result<(), Box<dyn Error>> {
    let node = Node::open(config(scratch, programs)).await?;
    let supervisor = node.supervisor();

    let namespace = NamespaceId::new("example")?;
    let root = format!("dir:{}", scratch.join("root").display()); // or a flist, by path or URL
    let mut spec = ContainerSpec::new(ContainerName::new("hello")?, root);
    let words = ["/bin/busybox", "sh", "-c", "echo hello from process $$; exit 3"];
    spec.entrypoint = Some(Entrypoint::Args(words.map(str::to_owned).to_vec()));
    let id = ask_api(supervisor, RunContainer::new(namespace.clone(), spec), DEADLINE).await?;
    let target = Target { namespace, container: (&id).into() };

    let (_, exit) = ask_api(supervisor, WaitContainer { target: target.clone() }, DEADLINE).await?;
    let mut log = ask_api(supervisor, ReadLog { target: target.clone(), tail: None }, DEADLINE).await?;
    while let Some(piece) = log.recv().await {
        print!("{}", String::from_utf8_lossy(&piece?.content));
    }
    println!("it ended with {}", exit.shell_code());
    ask_api(supervisor, DeleteContainer { target, force: false, timeout: None }, DEADLINE).await?;
    node.close().await; // a container that still ran would run on
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [scratch, programs] = args.as_slice() else { return Err("usage: node SCRATCH PROGRAMS".into()) };
    contd_node::block_on(run(Path::new(scratch), Path::new(programs)))?
}
