//! The launcher process: forked by a single-threaded caller, blocking, ends once init waits for "go".
//!
//! A cold launcher reads the bundle first, and clones init into the namespaces that the bundle asks for. A warm slot
//! has made and entered the cgroup, and cloned init into the default namespaces, before there is a bundle: entering a
//! cgroup takes 12–17 ms on an idle host (docs/architecture.md, facts), and init inherits the membership.
//!
//! Init is cloned with `CLONE_PARENT`: it is the caller's child, not the launcher's, from its first moment on.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use contd_cgroup::{Cgroup, Controllers, Hierarchies, Kind, Limits};
use contd_process::Fork;

use crate::config::Config;
use crate::fault::{Fault, FaultKind};
use crate::plan::{FdIndex, Join, MountPlan, MountSource};
use crate::prepare::namespaces::{NEW_CGROUP, NEW_IPC, NEW_MOUNT, NEW_NET, NEW_PID, NEW_UTS};
use crate::prepare::{self, Context, Prepared};
use crate::seccomp::{Cache, FilterError};
use crate::sys::{self, Cloned, Parent};
use crate::wire::{LaunchRequest, Readiness, Report, Wire};

pub(crate) mod child;
/// The namespaces of a warm slot's init, which every container of ours has. The network namespace is entered later.
const SLOT_NAMESPACES: u64 = NEW_PID | NEW_MOUNT | NEW_UTS | NEW_IPC;

/// The file systems that can be mounted without a file or device of the host's.
const FREESTANDING: [&str; 6] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "ramfs"];

/// The settings that a launcher needs before its bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The container's cgroup in each hierarchy, such as `/contd/<id>`. A bundle that names another is refused.
    pub cgroup: PathBuf,
    /// The directory of compiled seccomp filters.
    pub filters: PathBuf,
    /// The path of the program `contd-seccomp`.
    pub compiler: PathBuf,
}

/// The container's standard descriptors.
#[derive(Debug)]
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: OwnedFd,
    /// Descriptor 1.
    pub stdout: OwnedFd,
    /// Descriptor 2.
    pub stderr: OwnedFd,
}

/// The parent's handle of a running launcher. The parent must reap its pid.
#[derive(Debug)]
pub struct Launcher {
    pid: i32,
    orders: Wire,
    /// The socket to init, kept for "go".
    line: Wire,
}

/// An init that waits for "go".
#[derive(Debug)]
pub struct Waiting {
    /// The init's pid on the host; it is a child of the launcher's parent.
    pub pid: i32,
    line: Wire,
}

/// A launcher made no init.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The bundle is wrong, or the kernel refused a step.
    #[error("launch the process")]
    Fault(#[from] Fault),
    /// The launcher ended without an answer.
    #[error("launch the process: the launcher ended without an answer")]
    Silent,
    /// The socket to the launcher failed.
    #[error("talk to the launcher")]
    Talk {
        /// The error.
        source: io::Error,
    },
}

impl Launcher {
    /// Forks a launcher. With `is_warm` it makes its cgroup and clones init at once. Only legal with one thread.
    ///
    /// The caller's other descriptors stay open in the launcher for its short life, and are closed in init before it
    /// runs anything.
    ///
    /// # Errors
    /// No more processes or descriptors.
    pub fn fork(settings: &Settings, is_warm: bool) -> io::Result<Self> {
        let (orders, theirs) = Wire::pair()?;
        let (line, init_line) = Wire::pair()?;
        match contd_process::fork()? {
            Fork::Parent(pid) => Ok(Self { pid: pid.as_raw(), orders, line }),
            Fork::Child => {
                // Close the caller's lease, socket and log here: they must not stay open in a process that the caller
                // does not know of.
                let kept = [theirs.as_fd(), line.as_fd(), init_line.as_fd()];
                if contd_process::close_all_but(&kept).is_err() {
                    contd_process::exit_now(1);
                }
                std::mem::forget(orders);
                let own = Own { settings: settings.clone(), orders: theirs, line, init_line };
                contd_process::exit_now(own.run(is_warm))
            }
        }
    }

    /// Makes the handle from the caller's ends of the sockets to a forked launcher.
    pub(crate) fn forked(pid: i32, orders: Wire, line: Wire) -> Self {
        Self { pid, orders, line }
    }

    /// Returns the launcher's pid; the caller must reap it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends the launcher its bundle. Only legal once.
    ///
    /// # Errors
    /// The launcher has ended.
    pub fn request(&mut self, request: &LaunchRequest, stdio: &Stdio) -> io::Result<()> {
        self.orders.send(request, &[stdio.stdin.as_fd(), stdio.stdout.as_fd(), stdio.stderr.as_fd()])
    }

    /// Returns a descriptor that becomes readable when the launcher has answered or ended.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.orders.as_fd()
    }

    /// Waits for the answer: the process that waits, and the master of its terminal if it has one.
    ///
    /// # Errors
    /// [`LaunchError`]. An init that was cloned already ends by itself; the caller must reap it.
    pub fn answer(mut self) -> Result<(Waiting, Option<OwnedFd>), LaunchError> {
        match self.orders.receive::<Report>().map_err(|source| LaunchError::Talk { source })? {
            Some((Report::Ready { pid, has_other_line }, fds)) => {
                let mut fds = fds.into_iter();
                // A slot that did not fit the bundle has made another init, with another socket.
                let other = if has_other_line { fds.next() } else { None };
                let line = other.map_or(self.line, Wire::from);
                Ok((Waiting { pid, line }, fds.next()))
            }
            Some((Report::Failed(fault), _)) => Err(LaunchError::Fault(fault)),
            None => Err(LaunchError::Silent),
        }
    }
}

impl Waiting {
    /// Tells init to execute the entrypoint.
    ///
    /// # Errors
    /// Init has ended.
    pub fn go(&mut self) -> io::Result<()> {
        self.line.send_go()
    }

    /// Returns the descriptor that becomes readable when init has executed the entrypoint, failed to, or died.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    /// Waits until init has executed the entrypoint. Also `Ok` when init died before that; its status tells.
    ///
    /// # Errors
    /// [`Fault`] when the entrypoint could not be executed.
    pub fn outcome(mut self) -> Result<(), Fault> {
        match self.line.receive::<Fault>() {
            Ok(Some((fault, _))) => Err(fault),
            // The connection is reset when init was killed.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

/// The state inside the launcher process.
struct Own {
    settings: Settings,
    orders: Wire,
    line: Wire,
    init_line: Wire,
}

/// A failure in the launcher.
enum Failure {
    Fault(Fault),
    /// The caller is gone.
    Orphaned,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A cloned init. It ends when its socket closes, unless it was given a plan.
struct ClonedInit {
    pid: i32,
    line: Wire,
}

/// The result of a launcher.
struct Made {
    pid: i32,
    /// The socket for "go", if not the first one.
    other_line: Option<Wire>,
    /// The master of init's terminal.
    terminal: Option<OwnedFd>,
}

impl Own {
    fn run(self, is_warm: bool) -> u8 {
        let Self { settings, mut orders, line, init_line } = self;
        let result = if is_warm {
            launch_warm(&settings, &mut orders, line, init_line)
        } else {
            read_hierarchies().map_err(Failure::Fault).and_then(|hierarchies| {
                let prepared = read_bundle(&settings, &hierarchies, &mut orders)?;
                launch_cold(&settings, &hierarchies, prepared, line, init_line)
            })
        };
        let sent = match result {
            Ok(Made { pid, other_line, terminal }) => {
                let line = other_line.iter().map(AsFd::as_fd);
                let fds: Vec<BorrowedFd<'_>> = line.chain(terminal.iter().map(AsFd::as_fd)).collect();
                orders.send(&Report::Ready { pid, has_other_line: other_line.is_some() }, &fds)
            }
            Err(Failure::Fault(fault)) => orders.send(&Report::Failed(fault), &[]),
            Err(Failure::Orphaned) => Ok(()),
        };
        // If the caller is gone, init ends by itself: its socket has no other end.
        u8::from(sent.is_err())
    }
}

fn launch_warm(settings: &Settings, orders: &mut Wire, line: Wire, init_line: Wire) -> Result<Made, Failure> {
    let hierarchies = read_hierarchies()?;
    let cgroup = make_cgroup(&hierarchies, settings, Controllers::usual())?;
    enter(&cgroup, settings)?;
    let init = clone_init(true, SLOT_NAMESPACES, None, line, init_line)?;
    let mut prepared = read_bundle(settings, &hierarchies, orders)?;
    if fit_into_slot(&mut prepared)? {
        return conduct(prepared, &cgroup, init);
    }
    // The first init ends when its socket closes, which the caller does when it gets our answer.
    let (line, init_line) = Wire::pair().map_err(|error| Fault::kernel("", "make a line to init", &error))?;
    let other_line = line.try_clone().map_err(|error| Fault::kernel("", "keep the line to init", &error))?;
    let made = launch_cold(settings, &hierarchies, prepared, line, init_line)?;
    Ok(Made { other_line: Some(other_line), ..made })
}

fn launch_cold(
    settings: &Settings,
    hierarchies: &Hierarchies,
    mut prepared: Prepared,
    line: Wire,
    init_line: Wire,
) -> Result<Made, Failure> {
    let cgroup = make_cgroup(hierarchies, settings, prepared.needs)?;
    let is_pure_v2 = hierarchies.kind() == Kind::V2;
    if !is_pure_v2 {
        enter(&cgroup, settings)?;
    }
    for (fd, flag) in std::mem::take(&mut prepared.joins) {
        sys::setns(fd.as_fd(), flag)
            .map_err(|error| Fault::kernel("linux.namespaces", "enter the namespace that is named", &error))?;
    }
    let into = if is_pure_v2 { cgroup.v2_dir() } else { None };
    let init = clone_init(false, prepared.clone_flags & !NEW_CGROUP, into, line, init_line)?;
    if let Some(maps) = &prepared.id_maps {
        maps.write(init.pid)?;
    }
    conduct(prepared, &cgroup, init)
}

fn read_hierarchies() -> Result<Hierarchies, Fault> {
    Hierarchies::read().map_err(|error| cgroup_fault("", &error))
}

fn make_cgroup(hierarchies: &Hierarchies, settings: &Settings, needs: Controllers) -> Result<Cgroup, Fault> {
    let needs = needs | Controllers::telling();
    Cgroup::create(hierarchies, &settings.cgroup, needs).map_err(|error| cgroup_fault("linux.cgroupsPath", &error))
}

fn enter(cgroup: &Cgroup, settings: &Settings) -> Result<(), Fault> {
    cgroup.attach_self().map_err(|error| {
        let mut fault = cgroup_fault("linux.cgroupsPath", &error);
        fault.what = format!("enter {}: {}", settings.cgroup.display(), fault.what);
        fault
    })
}

/// Turns a cgroup's error, with all its sources, into one fault; about the error's own field if it has one.
pub(crate) fn cgroup_fault(field: &str, error: &contd_cgroup::CgroupError) -> Fault {
    let field = error.field().unwrap_or(field).to_owned();
    match error.errno() {
        Some(errno) => Fault::kernel(field, error.to_string(), &io::Error::from_raw_os_error(errno)),
        None => Fault { kind: FaultKind::Kernel, field, what: error.to_string(), errno: None },
    }
}

fn read_bundle(settings: &Settings, hierarchies: &Hierarchies, orders: &mut Wire) -> Result<Prepared, Failure> {
    let broken = |error: io::Error| Fault::kernel("", "receive the request", &error);
    let Some((LaunchRequest { bundle }, fds)) = orders.receive().map_err(broken)? else {
        return Err(Failure::Orphaned);
    };
    let stdio: [OwnedFd; 3] = fds
        .try_into()
        .map_err(|_| Fault::kernel("", "receive the container's output", &io::ErrorKind::InvalidData.into()))?;
    let config = Config::read(&bundle)?;
    let mut cache = Cache::new(settings.filters.clone(), settings.compiler.clone());
    let mut filters = |section: &[u8]| cache.get(section).map_err(|error| filter_fault(&error));
    let prepared = prepare::prepare(&bundle, config, Context { filters: &mut filters, stdio, hierarchies })?;
    check_cgroup(settings, prepared.cgroup_path.as_deref())?;
    Ok(prepared)
}

pub(crate) fn filter_fault(error: &FilterError) -> Fault {
    Fault::invalid("linux.seccomp", contd_types::one_line(error))
}

pub(crate) fn check_cgroup(settings: &Settings, named: Option<&Path>) -> Result<(), Fault> {
    match named {
        Some(path) if path != settings.cgroup => {
            let what = format!("{} is not this container's cgroup {}", path.display(), settings.cgroup.display());
            Err(Fault::invalid("linux.cgroupsPath", what))
        }
        _ => Ok(()),
    }
}

/// Moves the network namespace into init's plan, because a slot's init is cloned already; `false` when the bundle does
/// not fit into a slot.
fn fit_into_slot(prepared: &mut Prepared) -> Result<bool, Fault> {
    let own = prepared.clone_flags & !NEW_CGROUP;
    let only_network = prepared.joins.iter().all(|(_, flag)| *flag == NEW_NET);
    // A slot's init does not see the host's mounts, so it can mount only file systems without a source there.
    let lies_on_host = |mount: &MountPlan| match &mount.source {
        MountSource::New { fs_type, .. } => !FREESTANDING.contains(&fs_type.as_str()),
        MountSource::Tree { .. } | MountSource::Cgroups { .. } => false,
    };
    // The cgroup was made before the bundle was known.
    let has_controllers = (Controllers::usual() | Controllers::telling()).contains(prepared.needs);
    let fits = own & !NEW_NET == SLOT_NAMESPACES
        && only_network
        && has_controllers
        && !prepared.plan.mounts.iter().any(lies_on_host);
    if !fits {
        return Ok(false);
    }
    if own & NEW_NET != 0 {
        prepared.plan.joins.push(Join::Unshare { flag: NEW_NET });
    }
    for (fd, flag) in std::mem::take(&mut prepared.joins) {
        let place = u16::try_from(prepared.fds.len()).map_err(|_| Fault::invalid("mounts", "there are too many"))?;
        prepared.fds.push(fd);
        prepared.plan.joins.push(Join::Enter { fd: FdIndex(place), flag });
    }
    Ok(true)
}

fn clone_init(
    is_warm: bool,
    namespaces: u64,
    into: Option<BorrowedFd<'_>>,
    line: Wire,
    init_line: Wire,
) -> Result<ClonedInit, Fault> {
    let cloned = sys::clone_process(namespaces, Parent::Grand, into);
    match cloned.map_err(|error| Fault::kernel("linux.namespaces", "clone init into its namespaces", &error))? {
        Cloned::Child => {
            drop(line);
            contd_process::exit_now(child::run(init_line, is_warm))
        }
        Cloned::Parent(pid) => Ok(ClonedInit { pid, line }),
    }
}

/// Sends the plan, applies the cgroup's limits meanwhile, and waits until init is ready.
fn conduct(prepared: Prepared, cgroup: &Cgroup, mut init: ClonedInit) -> Result<Made, Failure> {
    let Prepared { plan, fds, limits, oom_score_adj, .. } = prepared;
    if let Some(score) = oom_score_adj {
        // Write it from here: init may have given up the right to, and its /proc is not the host's.
        fs::write(format!("/proc/{}/oom_score_adj", init.pid), score.to_string())
            .map_err(|error| Fault::kernel("process.oomScoreAdj", format!("set it to {score}"), &error))?;
    }
    let broken = |error: io::Error| match error.raw_os_error() {
        Some(libc::E2BIG) => prepare::too_many_mounts(),
        _ => Fault::kernel("", "send the plan to init", &error),
    };
    // Apply the device rules before init makes its nodes: cgroup v1 takes the rules one by one, and until the last one
    // is written a node may be refused that the bundle allows.
    let devices = Limits { devices: limits.devices, ..Limits::default() };
    cgroup.apply(&devices).map_err(|error| cgroup_fault("linux.resources.devices", &error))?;
    let limits = Limits { devices: Vec::new(), ..limits };
    init.line.send_plan(&plan, &fds).map_err(broken)?;
    drop(fds);
    // Init runs no program of the container before "go", so the limits are in force in time.
    cgroup.apply(&limits).map_err(|error| cgroup_fault("linux.resources", &error))?;
    match init.line.receive::<Readiness>() {
        Ok(Some((Readiness::Ready, fds))) => {
            Ok(Made { pid: init.pid, other_line: None, terminal: fds.into_iter().next() })
        }
        Ok(Some((Readiness::Failed(fault), _))) => Err(Failure::Fault(fault)),
        Ok(None) => {
            let what = "init was killed while it set up the container; its memory limit may be too small";
            Err(Failure::Fault(Fault { errno: None, ..Fault::invalid("linux.resources", what) }))
        }
        Err(error) => Err(Failure::Fault(Fault::kernel("", "hear from init", &error))),
    }
}
