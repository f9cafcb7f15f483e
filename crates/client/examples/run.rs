//! Runs a container by a daemon and shows its output, as `contd run --rm` does.
//!
//! `cargo run -p contd-client --example run -- /run/contd/contd.sock FLIST COMMAND...`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::path::Path;

use contd_client::contd_protocol::api::RunRequest;
use contd_client::contd_types::{ContainerName, ContainerSpec, Entrypoint, NamespaceId};
use contd_client::{Client, Deadline, RunItem};

async fn run(socket: &Path, flist: &str, command: &[String]) -> Result<(), Box<dyn Error>> {
    let client = Client::connect(socket, Deadline::Usual).await?;
    println!("{} answers", client.agent());

    let mut spec = ContainerSpec::new(ContainerName::new("example")?, flist);
    spec.entrypoint = Some(Entrypoint::Args(command.to_vec()));
    spec.is_auto_removed = true;
    let request = RunRequest::new(NamespaceId::new("example")?, spec);
    let mut run = client.run_attached(request, Deadline::Never).await?; // dropped, it is cancelled
    while let Some(item) = run.next().await {
        match item? {
            RunItem::Log(piece) => print!("{}", String::from_utf8_lossy(&piece.content)),
            RunItem::Exited { exit, .. } => println!("it ended with {}", exit.shell_code()),
            _ => {} // it is made: progress, its id
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [socket, flist, command @ ..] = args.as_slice() else {
        return Err("usage: run SOCKET FLIST COMMAND...".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(Path::new(socket), flist, command))
}
