//! A supervisor on the fakes: no root, no kernel, no processes. This is how the tests of a program that embeds contd begin.
//!
//! `cargo run -p contd-actors --example fakes`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contd_actors::contd_bundle::FakeBundles;
use contd_actors::contd_rootfs::fake::FakeRootfs;
use contd_actors::contd_shim_client::fake::FakeShimClient;
use contd_actors::contd_store::contd_durable::RealFs;
use contd_actors::contd_store::{EventJournal, FakeStore};
use contd_actors::contd_types::{ContainerName, ContainerSpec, Entrypoint, NamespaceId};
use contd_actors::messages::{DeleteContainer, InspectContainer, RunContainer, Shutdown, StopContainer, Target};
use contd_actors::{NodeConfig, NodeRuntime, Parts, Runtimes, ask_api};

/// How long the node may take for an answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// The boundaries of a node, each a fake; the journal and the logs are files below `scratch`.
fn fakes(scratch: &Path, shims: &FakeShimClient) -> Result<(NodeConfig, Parts), Box<dyn Error>> {
    let runtime = Runtimes::new(NodeRuntime::Oci { binary: "/usr/bin/runc".into(), root: "/run/runc".into() });
    let (state, logs) = (scratch.join("state"), scratch.join("log"));
    let mut config = NodeConfig::new(state, logs, "this boot".into(), runtime);
    config.arbiters = 0; // every actor on this thread
    let journal = EventJournal::open(Arc::new(RealFs), scratch.join("events"), 1 << 20)?;
    let (store, rootfs, bundles) = (FakeStore::new(), FakeRootfs::new(), FakeBundles::new());
    let parts = Parts::new(Arc::new(store), Arc::new(shims.clone()), Arc::new(rootfs), Arc::new(bundles), journal);
    Ok((config, parts))
}

async fn run(scratch: &Path) -> Result<(), Box<dyn Error>> {
    let shims = FakeShimClient::new(); // a clone of it scripts what goes wrong, and sees what was called
    let (config, parts) = fakes(scratch, &shims)?;
    let supervisor = contd_actors::start(config, parts);

    let namespace = NamespaceId::new("example")?;
    let mut spec = ContainerSpec::new(ContainerName::new("web")?, "/images/web.fl");
    spec.entrypoint = Some(Entrypoint::Args(vec!["/bin/server".into()]));
    let id = ask_api(&supervisor, RunContainer::new(namespace.clone(), spec), DEADLINE).await?;
    let target = Target { namespace, container: (&id).into() };
    let info = ask_api(&supervisor, InspectContainer { target: target.clone() }, DEADLINE).await?;
    println!("{} is {}", info.spec.name, info.state.name());

    let stop = StopContainer { target: target.clone(), timeout: None };
    let (_, exit) = ask_api(&supervisor, stop, DEADLINE).await?;
    println!("it ended with {}", exit.shell_code());
    ask_api(&supervisor, DeleteContainer { target, force: false, timeout: None }, DEADLINE).await?;
    println!("containers left: {}", shims.live_containers().len());
    Ok(ask_api(&supervisor, Shutdown, DEADLINE).await?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let runtime = contd_actors::runtime()?;
    contd_actors::actix::System::with_tokio_rt(|| runtime).block_on(run(scratch.path()))
}
