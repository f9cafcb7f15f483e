//! A hostile container that attacks a process executed in it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::scene::{Container, Start, open_for_writing};
use crate::{assert_refused, told};

/// Runs `contd-launch exec` from a shell that leaves the host's `/` open as descriptors 5 and 7.
fn exec_with_leaks(container: &Container, options: &[&str], args: &[&str]) -> std::process::Output {
    let mut command = container.command(container.pid);
    command.args(options).arg("--").args(args);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec \"$@\" 5</ 7</", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.env_clear().output().unwrap()
}

#[test]
fn an_executed_program_has_no_descriptor_but_the_three() {
    for start in [Start::Cold, Start::Warm] {
        let container = Container::start(start);
        let (code, out, error) = told(&exec_with_leaks(&container, &[], &["sh", "-c", "echo /proc/self/fd/*"]));
        // The shell reads the directory by a descriptor of its own.
        assert_eq!((code, error.as_str()), (0, ""));
        let open: Vec<_> =
            out.split(' ').filter(|fd| Path::new(fd).file_name().is_some_and(|name| name != "3")).collect();
        assert_eq!(open, ["/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]);
        container.finish();
    }
}

#[test]
fn a_working_directory_outside_of_the_root_is_refused() {
    let container = Container::start(Start::Cold);
    symlink("/proc/self/fd/7", container.root().join("way-out")).unwrap();
    for cwd in ["/proc/self/fd/5", "/proc/self/fd/7", "/proc/self/fd/7/etc", "/proc/thread-self/fd/7", "/way-out"] {
        let output = exec_with_leaks(&container, &["--cwd", cwd], &["pwd"]);
        assert_refused(&output, 125, &["process.cwd", cwd]);
    }
    container.finish();
}

#[test]
fn a_directory_as_input_is_no_way_out_either() {
    let container = Container::start(Start::Cold);
    let mut command = container.command(container.pid);
    command.stdin(fs::File::open("/").unwrap()).args(["--cwd", "/proc/self/fd/0", "--", "pwd"]);
    assert_refused(&command.output().unwrap(), 125, &["process.cwd"]);
    container.finish();
}

#[test]
fn the_passwd_of_an_image_is_read_inside_of_it_and_never_waited_for() {
    let container = Container::start(Start::Cold);
    let passwd = container.root().join("etc/passwd");
    let home = || told(&container.exec_with(&["--user", "1000:1000"], &["sh", "-c", "echo $HOME"])).1;
    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    assert_eq!(home(), "/");
    fs::remove_file(&passwd).unwrap();
    // The host has such a file, with root in it.
    symlink("../../../../../../../../proc/1/root/etc/passwd", &passwd).unwrap();
    assert_eq!(told(&container.exec(&["sh", "-c", "echo $HOME"])).1, "/");
    container.finish();
}

#[test]
fn an_image_that_names_our_program_gets_nothing_that_it_can_write_to() {
    let container = Container::start(Start::Cold);
    let bin = container.root().join("bin");
    symlink("/proc/self/exe", bin.join("link")).unwrap();
    fs::write(bin.join("script"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(bin.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let before = fs::read(container.program()).unwrap();
    // The launcher is not visible in the container's /proc.
    assert_refused(&container.exec(&["link"]), 127, &["process.args"]);
    // The kernel follows this link, to a program without a loader in this root.
    assert_eq!(told(&container.exec(&["script"])).0, 127);
    assert_eq!(fs::read(container.program()).unwrap(), before);
    container.finish();
}

#[test]
fn whoever_keeps_our_program_open_cannot_write_to_it_when_it_has_ended() {
    let container = Container::start(Start::Cold);
    let running = container.run(&[]);
    // Try as root of the host, who may open files that no container may.
    let path = format!("/proc/{}/exe", running.launcher());
    let kept = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).unwrap();
    running.finish();
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept));
    let own = fs::metadata(container.program()).unwrap();
    let found = kept.metadata().unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((found.dev(), found.ino()), (own.dev(), own.ino()), "it is not our program that was kept");
    // The launcher of init still executes it; by another path it would be writable after that.
    let pid = container.pid;
    let program = container.program();
    assert_eq!(open_for_writing(&program).unwrap_err(), Some(libc::ETXTBSY), "init {pid} has no launcher");
    let mut container = container;
    container.kill();
    container.await_end();
    assert!(open_for_writing(&program).is_ok());
    assert_eq!(open_for_writing(Path::new(&again)).unwrap_err(), Some(libc::EROFS));
    container.finish();
}

#[test]
fn what_a_container_that_may_trace_everybody_sees_of_us_has_its_own_rights_and_cannot_be_written() {
    /// The most tries until init has seen the process: it is visible for about 100 µs.
    const MAX_TRIES: usize = 5000;
    // Init looks at every process as fast as it can, and prints the rights of our program and whether it can be
    // written.
    let hunt = "echo ready; while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] && continue; n=; \
        while read -r k v; do case $k in Name:) n=$v;; NoNewPrivs:) b=$v;; CapPrm:) c=$v;; esac; done 2>/dev/null < $p/status; \
        [ \"$n\" = contd-launch ] || continue; echo \"$c $b\" >> /tmp/seen; \
        { true >> $p/exe; } 2>/dev/null && echo $p >> /tmp/written; done; done";
    let container = Container::with(Start::Cold, |config| {
        config["process"]["args"] = serde_json::json!(["/bin/sh", "-c", hunt]);
        let all = serde_json::json!(["CAP_CHOWN", "CAP_KILL", "CAP_SYS_PTRACE"]);
        config["process"]["capabilities"] = serde_json::json!({"bounding": all, "effective": all, "permitted": all});
    });
    let read = |name: &str| fs::read_to_string(container.root().join("tmp").join(name)).unwrap_or_default();
    for _ in 0..MAX_TRIES {
        assert_eq!(told(&container.exec(&["true"])).0, 0);
        if !read("seen").is_empty() {
            break;
        }
    }
    let seen: std::collections::BTreeSet<String> = read("seen").lines().map(str::to_owned).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["0000000000080021 1"]);
    assert_eq!(read("written"), "");
    container.finish();
}
