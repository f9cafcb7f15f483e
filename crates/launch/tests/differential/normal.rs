//! A report without what differs from run to run, and without what differs on purpose (docs/decisions/0006).

/// Returns the lines of a report, made comparable.
pub(crate) fn lines(report: &str) -> Vec<String> {
    report.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<String> {
    match line.strip_prefix("mount ") {
        Some(mount) => mount_line(mount).map(|mount| format!("mount {mount}")),
        None => Some(match line.strip_prefix("status SigIgn: ").map(|mask| u64::from_str_radix(mask, 16)) {
            // Two signals are the C library's own; runc leaves them as it found them.
            Some(Ok(mask)) => format!("status SigIgn: {:x}", mask & !(0b11 << 31)),
            _ => line.to_owned(),
        }),
    }
}

fn mount_line(mount: &str) -> Option<String> {
    let (own, file_system) = mount.split_once(" - ")?;
    let mut own = own.split(' ').skip(3);
    let (root, point, options) = (own.next()?, own.next()?, own.next()?);
    // Only the hierarchies that a limit needs are mounted, and the directory above them is read-only.
    if point.starts_with("/sys/fs/cgroup") {
        return None;
    }
    // Which peer group is the kernel's choice.
    let propagation: Vec<&str> = own.map(|field| field.split(':').next().unwrap_or_default()).collect();
    let mut file_system = file_system.split(' ');
    let (kind, mut source, superblock) = (file_system.next()?, file_system.next()?, file_system.next()?);
    // A file system is read-only by its mount, not by its superblock as well, and that of a mask has no name.
    let mut superblock: Vec<&str> = superblock.split(',').filter(|option| !["ro", "rw"].contains(option)).collect();
    superblock.sort_unstable();
    if source == "none" {
        source = "tmpfs";
    }
    let root = root.rsplit("/bundle/").next().unwrap_or(root);
    Some(format!("{root} {point} {options} {propagation:?} {kind} {source} {superblock:?}"))
}
