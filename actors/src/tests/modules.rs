//! The modules of this crate: none needs itself through others, so that each can be read on those below it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Adds the modules that the files below a directory name, as `crate::…`, without their tests.
fn read(dir: &Path, module: Option<&str>, uses: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        let name = name.trim_end_matches(".rs");
        if module.is_none() && ["lib", "tests"].contains(&name) {
            continue;
        }
        let module = module.unwrap_or(name);
        if path.is_dir() {
            read(&path, Some(module), uses);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let named = lines.flat_map(|line| line.split("crate::").skip(1)).map(|rest| {
            rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect::<String>()
        });
        let used = uses.entry(module.to_owned()).or_default();
        used.extend(named.filter(|other| other != module && other != "tests"));
    }
}

#[test]
fn no_module_needs_itself_through_others() {
    let mut uses = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), None, &mut uses);
    assert!(uses.len() > 20 && uses["supervisor"].contains("namespace"), "the files are not read: {uses:?}");
    // Take away what needs nothing that is left, floor by floor; a circle stays.
    while let Some(lowest) = uses.keys().find(|name| uses[*name].iter().all(|need| !uses.contains_key(need))).cloned() {
        uses.remove(&lowest);
    }
    assert!(uses.is_empty(), "these modules need each other: {uses:#?}");
}
