//! `contd run`: makes and starts a container, in the background or attached.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use contd_client::{Client, Deadline};
use contd_image::look_for_image;
use contd_protocol::api::{RunRequest, Target};
use contd_types::{ContainerId, ContainerRef};

use crate::cli::attached::{self, Wants};
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::progress::ProgressView;
use crate::cli::run_args::RunArgs;
use crate::cli::terminal;

/// Runs a container, and returns the exit code: the container's own when attached.
pub(crate) async fn run(session: &Session<'_>, args: &RunArgs) -> Result<u8, CliError> {
    make(session, args, true).await
}

/// Makes a container and does not start it; prints its id.
pub(crate) async fn create(session: &Session<'_>, args: &RunArgs) -> Result<u8, CliError> {
    make(session, args, false).await
}

async fn make(session: &Session<'_>, args: &RunArgs, is_started: bool) -> Result<u8, CliError> {
    let host = session.host;
    let spec = args.to_spec(&host.cwd, &host.env)?;
    let (given, _command) = args.flist_and_command();
    if let Some(found) = look_for_image(given) {
        return Err(CliError::NotAFlist { given: given.to_owned(), found });
    }
    let is_attached = is_started && !args.detach;
    let request = RunRequest { namespace: session.namespace.clone(), spec, idempotency_key: None, is_attached };
    if is_attached && args.interactive && args.tty && terminal::size_of(std::io::stdin()).is_none() {
        return Err(CliError::NoTerminal);
    }
    let follower = session.follow().await?;
    let client = follower.client().await;
    if args.dry_run {
        let plan = client.dry_run(request, Deadline::Usual).await?;
        host.output.line(plan.config_json.trim_end())?;
        return Ok(0);
    }
    let mut id_files = IdFiles::create(args)?;
    if is_attached {
        let wants =
            Wants { input: args.interactive, terminal: args.tty, keys: args.detach_keys.clone(), signals: true };
        return attached::run(session, &follower, request, id_files, wants).await;
    }
    let mut view = ProgressView::new(&host.output);
    let show = |progress| view.show(&progress);
    let id = if is_started {
        client.run(request, Deadline::Usual, show).await?
    } else {
        client.create(request, Deadline::Usual, show).await?
    };
    view.clear();
    id_files.write(&client, session.target(ContainerRef::from(&id)), &id).await?;
    host.output.line(id.as_str())?;
    Ok(0)
}

/// The files of `--cidfile` and `--pidfile`.
#[derive(Debug, Default)]
pub(crate) struct IdFiles {
    id: Option<IdFile>,
    pid: Option<IdFile>,
}

impl IdFiles {
    fn create(args: &RunArgs) -> Result<Self, CliError> {
        let create = |path: &Option<PathBuf>| path.as_deref().map(IdFile::create).transpose();
        Ok(Self { id: create(&args.cidfile)?, pid: create(&args.pidfile)? })
    }

    /// Writes both, once the container runs; one that has ended meanwhile has no pid.
    pub(crate) async fn write(&mut self, client: &Client, target: Target, id: &ContainerId) -> Result<(), CliError> {
        if let Some(file) = &mut self.id {
            file.write(id.as_str())?;
        }
        let Some(file) = &mut self.pid else { return Ok(()) };
        let info = client.inspect(target, Deadline::Usual).await?;
        info.state.pid().map_or(Ok(()), |pid| file.write(&pid.to_string()))
    }
}

/// A file for an id. It is made before the container, so that no container runs whose id cannot be written.
/// Removed again when none was written.
#[derive(Debug)]
struct IdFile {
    path: PathBuf,
    file: std::fs::File,
    is_written: bool,
}

impl IdFile {
    /// Makes the file, which must not exist.
    fn create(path: &Path) -> Result<Self, CliError> {
        let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
        let file = opened.map_err(|source| CliError::CidFile { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, is_written: false })
    }

    /// Writes the id into it.
    fn write(&mut self, id: &str) -> Result<(), CliError> {
        self.is_written = true;
        let written = self.file.write_all(id.as_bytes());
        written.map_err(|source| CliError::CidFile { path: self.path.clone(), source })
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.is_written {
            // A failure means that another program has removed the file before us.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_file_must_be_new_and_goes_when_no_container_ran() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("id");
        drop(IdFile::create(&path).expect("made"));
        assert!(!path.exists());
        let mut file = IdFile::create(&path).expect("made");
        file.write(&"01".repeat(16)).expect("written");
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).expect("kept"), "01".repeat(16));
        assert!(matches!(IdFile::create(&path), Err(CliError::CidFile { .. })));
    }
}
