//! The API calls that all measurements make.

use std::path::Path;
use std::time::{Duration, Instant};

use contd_client::{Client, Deadline};
use contd_protocol::api::{ExecRequest, RunRequest, Target};
use contd_types::{ContainerName, ContainerRef, ContainerSpec, Entrypoint, ExecSpec, NamespaceId, NetnsName, Network};

use crate::floor::Took;

pub(crate) const TRUE: &[&str] = &["/bin/true"];
pub(crate) const SLEEP: &[&str] = &["/bin/sleep", "1000"];

/// Makes a request for a container in a new, empty network namespace.
pub(crate) fn request(name: &str, flist: &str, program: &[&str]) -> RunRequest {
    let mut spec = ContainerSpec::new(ContainerName::new(name).expect("valid"), flist);
    spec.entrypoint = Some(Entrypoint::Args(program.iter().map(|&part| part.to_owned()).collect()));
    RunRequest { namespace: namespace(), spec, idempotency_key: None, is_attached: false }
}

/// Makes a request for a container in a given network namespace, as every contender uses it.
pub(crate) fn request_in(netns: &str, name: &str, flist: &str, program: &[&str]) -> RunRequest {
    let mut request = request(name, flist, program);
    request.spec.network = Network::Named(NetnsName::new(netns).expect("valid"));
    request
}

pub(crate) fn namespace() -> NamespaceId {
    NamespaceId::new("bench").expect("valid")
}

pub(crate) fn target(name: &str) -> Target {
    Target { namespace: namespace(), container: ContainerRef::new(name).expect("valid") }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// One connection to a daemon, with the thread's own tokio runtime.
pub(crate) struct Caller {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Caller {
    pub(crate) fn connect(socket: &Path) -> Self {
        let runtime = runtime();
        let client = runtime.block_on(Client::connect(socket, Deadline::Usual)).expect("connect");
        Self { client, runtime }
    }

    /// Makes and starts a container; returns once it runs.
    pub(crate) fn run(&self, request: RunRequest) {
        self.runtime.block_on(self.client.run(request, Deadline::Usual, |_| ())).expect("run");
    }

    pub(crate) fn wait(&self, name: &str) {
        self.runtime.block_on(self.client.wait(target(name), Deadline::Usual)).expect("wait");
    }

    /// Executes a program in a container, and waits for its end.
    pub(crate) fn exec(&self, name: &str, program: &[&str]) {
        let args = program.iter().map(|&part| part.to_owned()).collect();
        let spec = ExecSpec { args, ..ExecSpec::default() };
        let request = ExecRequest { target: target(name), spec, has_descriptors: true };
        let null = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").expect("open").into();
        let exit = self.runtime.block_on(async {
            let stdio = Some([null(), null(), null()]);
            let executed = self.client.exec(request, stdio, Deadline::Usual).await?;
            match executed.ended().await.expect("its end") {
                Some(exit) => Ok(exit),
                None => self.client.wait_exec(target(name), executed.exec, Deadline::Usual).await,
            }
        });
        assert_eq!(exit.expect("execute").shell_code(), 0);
    }

    /// Ends and removes a container.
    pub(crate) fn delete(&self, name: &str) {
        let delete = self.client.delete(target(name), true, Some(Duration::ZERO), Deadline::Usual);
        self.runtime.block_on(delete).expect("delete");
    }

    /// Runs a container; returns the time until the reply that it runs, and until it has ended by itself and was
    /// removed.
    pub(crate) fn whole_life(&self, request: RunRequest) -> Took {
        let name = request.spec.name.to_string();
        let begin = Instant::now();
        self.run(request);
        let started = begin.elapsed();
        self.wait(&name);
        self.delete(&name);
        Took { started, removed: begin.elapsed() }
    }
}
