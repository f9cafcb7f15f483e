//! `--mount type=,src=,dst=,options=` and `-v SRC:DST[:OPTS]`.

use contd_types::MountSpec;

/// What a person may write.
const MOUNT_FORM: &str = "write type=bind,src=/host/dir,dst=/dir,options=ro:nosuid, with the options separated by `:` or each in its own options=";
const VOLUME_FORM: &str = "write SRC:DST or SRC:DST:OPTIONS, with the options separated by commas";

/// Parses the value of `--mount`. The type is `bind` when left out; `ro` and `rw` may stand alone.
pub(crate) fn mount(text: &str) -> Result<MountSpec, String> {
    let (mut fs_type, mut source, mut target, mut options) = (None, None, None, Vec::new());
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match (key, value) {
            ("ro" | "readonly", "" | "true") => options.push("ro".to_owned()),
            ("rw", "") => options.push("rw".to_owned()),
            ("options" | "option" | "opts", value) => {
                options.extend(value.split(':').filter(|option| !option.is_empty()).map(str::to_owned));
            }
            ("type", value) => set(&mut fs_type, key, value)?,
            ("src" | "source", value) => set(&mut source, key, value)?,
            ("dst" | "target" | "destination", value) => set(&mut target, key, value)?,
            (key, _) => return Err(format!("{key:?} is not a part of a mount: {MOUNT_FORM}")),
        }
    }
    let fs_type = fs_type.unwrap_or_else(|| "bind".to_owned());
    let target = target.ok_or_else(|| format!("dst= is missing: {MOUNT_FORM}"))?;
    let source = match source {
        Some(source) => source,
        None if fs_type == "bind" => return Err(format!("src= is missing: {MOUNT_FORM}")),
        // A file system without a device is mounted by its own name, as mount(8) users write it.
        None => fs_type.clone(),
    };
    Ok(MountSpec { source, target, fs_type, options })
}

fn set(slot: &mut Option<String>, key: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{key}= has no value: {MOUNT_FORM}"));
    }
    match slot.replace(value.to_owned()) {
        None => Ok(()),
        Some(_) => Err(format!("{key}= is given twice: {MOUNT_FORM}")),
    }
}

/// Parses the value of `-v`.
pub(crate) fn volume(text: &str) -> Result<MountSpec, String> {
    let mut parts = text.split(':');
    let (source, target, options) = (parts.next(), parts.next(), parts.next());
    match (source, target, parts.next()) {
        (Some(source), Some(target), None) if !source.is_empty() && !target.is_empty() => {
            let options = options.unwrap_or_default().split(',').filter(|option| !option.is_empty());
            Ok(MountSpec {
                source: source.to_owned(),
                target: target.to_owned(),
                fs_type: "bind".to_owned(),
                options: options.map(str::to_owned).collect(),
            })
        }
        _ => Err(VOLUME_FORM.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(fs_type: &str, source: &str, target: &str, options: &[&str]) -> MountSpec {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        MountSpec { source: source.into(), target: target.into(), fs_type: fs_type.into(), options }
    }

    #[test]
    fn options_are_separated_by_colons_or_repeated() {
        let wanted = spec("bind", "/a", "/b", &["ro", "nosuid"]);
        assert_eq!(mount("type=bind,src=/a,dst=/b,options=ro:nosuid"), Ok(wanted.clone()));
        assert_eq!(mount("source=/a,destination=/b,options=ro,options=nosuid"), Ok(wanted.clone()));
        assert_eq!(mount("src=/a,target=/b,ro,options=nosuid"), Ok(wanted));
    }

    #[test]
    fn a_tmpfs_needs_no_source_and_keeps_options_with_an_equals_sign() {
        let wanted = spec("tmpfs", "tmpfs", "/t", &["size=64m", "mode=1777"]);
        assert_eq!(mount("type=tmpfs,dst=/t,options=size=64m:mode=1777"), Ok(wanted));
    }

    #[test]
    fn a_mount_without_its_parts_is_refused() {
        for bad in
            ["", "dst=/b", "src=/a", "src=/a,dst=", "src=/a,src=/c,dst=/b", "src=/a,dst=/b,size=3", "src=/a,dst=/b,"]
        {
            assert!(mount(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn volumes_have_two_or_three_parts() {
        assert_eq!(volume("/a:/b"), Ok(spec("bind", "/a", "/b", &[])));
        assert_eq!(volume("/a:/b:ro,noexec"), Ok(spec("bind", "/a", "/b", &["ro", "noexec"])));
        for bad in ["", "/a", ":/b", "/a:", "/a:/b:ro:x"] {
            assert!(volume(bad).is_err(), "{bad:?} was accepted");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "[a-z=:,/]{0,40}") {
            let _ = (mount(&text), volume(&text));
        }
    }
}
