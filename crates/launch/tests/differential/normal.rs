//! Normalizes a report: removes the differences between any two runs, and the intended ones (docs/decisions/0006).

/// Returns the lines of a report in comparable form.
pub(crate) fn lines(report: &str) -> Vec<String> {
    report.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<String> {
    match line.strip_prefix("mount ") {
        Some(mount) => mount_line(mount).map(|mount| format!("mount {mount}")),
        None => Some(match line.strip_prefix("status SigIgn: ").map(|mask| u64::from_str_radix(mask, 16)) {
            // Two signals are reserved by the C library; runc leaves them as it found them.
            Some(Ok(mask)) => format!("status SigIgn: {:x}", mask & !(0b11 << 31)),
            _ => line.to_owned(),
        }),
    }
}

fn mount_line(mount: &str) -> Option<String> {
    let (own, file_system) = mount.split_once(" - ")?;
    let mut own = own.split(' ').skip(3);
    let (root, point, options) = (own.next()?, own.next()?, own.next()?);
    // We mount only the hierarchies that a limit needs, and the directory above them is read-only.
    if point.starts_with("/sys/fs/cgroup") {
        return None;
    }
    // The kernel chooses the number of a peer group.
    let propagation: Vec<&str> = own.map(|field| field.split(':').next().unwrap_or_default()).collect();
    let mut file_system = file_system.split(' ');
    let (kind, mut source, superblock) = (file_system.next()?, file_system.next()?, file_system.next()?);
    // We make a mount read-only, not its superblock too, and the file system of a mask has no name.
    let mut superblock: Vec<&str> = superblock.split(',').filter(|option| !["ro", "rw"].contains(option)).collect();
    superblock.sort_unstable();
    if source == "none" {
        source = "tmpfs";
    }
    let root = root.rsplit("/bundle/").next().unwrap_or(root);
    Some(format!("{root} {point} {options} {propagation:?} {kind} {source} {superblock:?}"))
}
