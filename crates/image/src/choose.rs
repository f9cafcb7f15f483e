//! Chooses one of the images of an archive or layout: by name, then by platform.

use std::collections::BTreeSet;

use crate::ImportError;
use crate::digest::shortened;
use crate::manifest::{Descriptor, Parts};
use crate::platform::Platform;
use crate::saved::SavedImage;

/// The name and platform that the user asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) platform: Option<&'a Platform>,
}

/// One of the images to choose from.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) names: Vec<String>,
    /// The digest of the manifest or of the configuration; it serves as the name of an image without names.
    pub(super) id: String,
    pub(super) platform: Option<Platform>,
    /// Whether the manifest is in the archive: archives list the images of all platforms, but may hold only some of them.
    pub(super) is_there: bool,
    pub(super) form: Form,
}

/// The description of an image: an OCI manifest or an entry of `manifest.json`.
#[derive(Debug)]
pub(super) enum Form {
    Manifest(Descriptor),
    Saved(SavedImage),
}

impl Candidate {
    pub(super) fn add_names(&mut self, names: Vec<String>) {
        for name in names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }

    fn is_named(&self, name: &str) -> bool {
        self.id == name || self.names.iter().any(|of_it| of_it == name)
    }

    fn shown_names(&self) -> Vec<String> {
        if self.names.is_empty() {
            vec![shortened(&self.id)]
        } else {
            self.names.iter().map(|name| shortened(name)).collect()
        }
    }
}

/// Chooses by name, then by platform. A single image is taken on any machine, unless a platform was asked for.
pub(super) fn choose(
    parts: &Parts<'_>,
    mut candidates: Vec<Candidate>,
    wanted: &Wanted<'_>,
) -> Result<Candidate, ImportError> {
    let all_names = candidates.iter().flat_map(Candidate::shown_names).collect::<BTreeSet<_>>();
    let no_such = |asked: Option<&str>| ImportError::NoSuchImage {
        asked: asked.map(str::to_owned),
        there: all_names.iter().cloned().collect(),
    };
    if let Some(name) = wanted.name {
        candidates = named(candidates, name);
    }
    let Some(first) = candidates.first() else { return Err(no_such(wanted.name)) };
    // Images of one `manifest.json` whose names do not differ are ambiguous: that list has no platforms to choose by.
    let is_list = candidates.len() > 1 && candidates.iter().any(|candidate| matches!(candidate.form, Form::Saved(_)));
    let names = &first.names;
    let is_several = wanted.name.is_none() && candidates.iter().any(|candidate| candidate.names != *names);
    if is_several || is_list {
        return Err(no_such(wanted.name));
    }
    let are_all_there = candidates.iter().all(|candidate| candidate.is_there);
    if candidates.len() == 1 && wanted.platform.is_none() {
        return candidates.pop().ok_or_else(|| no_such(None));
    }
    if candidates.iter().any(|candidate| candidate.is_there) && !are_all_there {
        candidates.retain(|candidate| candidate.is_there);
    }
    by_platform(parts, candidates, wanted.platform)
}

/// Returns the images of exactly this name, or else those with the same full name: `app` is `docker.io/library/app:latest`.
fn named(candidates: Vec<Candidate>, name: &str) -> Vec<Candidate> {
    let (exact, others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|candidate| candidate.is_named(name));
    if !exact.is_empty() {
        return exact;
    }
    let means = whole(name);
    let is_meant = |candidate: &Candidate| candidate.names.iter().any(|of_it| whole(of_it) == means);
    others.into_iter().filter(is_meant).collect()
}

/// Completes a short name as docker does, and removes the `localhost/` that podman adds.
pub(super) fn whole(name: &str) -> String {
    let name = name.strip_prefix("localhost/").unwrap_or(name);
    let has_host = name.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost");
    let path = match name.contains('/') {
        _ if has_host => name.to_owned(),
        true => format!("docker.io/{name}"),
        false => format!("docker.io/library/{name}"),
    };
    let has_tag = path.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    if has_tag { path } else { format!("{path}:latest") }
}

fn by_platform(
    parts: &Parts<'_>,
    candidates: Vec<Candidate>,
    asked: Option<&Platform>,
) -> Result<Candidate, ImportError> {
    let own = Platform::of_this_machine();
    let platform = asked.unwrap_or(&own);
    // An explicit platform may be of another machine; the level of this processor counts only without one.
    let own_step = if asked.is_none() { Platform::step_of_this_machine() } else { None };
    let (mut best, mut there) = (None, Vec::new());
    for candidate in candidates {
        let of_it = match (&candidate.platform, &candidate.form) {
            (Some(platform), _) => platform.clone(),
            (None, Form::Manifest(descriptor)) => parts.platform_of(descriptor)?,
            // The configuration is checked after the choice.
            (None, Form::Saved(_)) => return Ok(candidate),
        };
        if let Some(rank) = of_it.rank_for(platform, own_step)
            && best.as_ref().is_none_or(|(of_best, _)| rank < *of_best)
        {
            best = Some((rank, candidate));
        }
        there.push(shortened(&of_it.to_string()));
    }
    let (_, best) = best.ok_or_else(|| ImportError::NoSuchPlatform { asked: platform.to_string(), there })?;
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_means_what_docker_and_podman_make_of_it() {
        assert_eq!(whole("app"), "docker.io/library/app:latest");
        assert_eq!(whole("localhost/app"), whole("app"));
        assert_eq!(whole("me/app:1"), "docker.io/me/app:1");
        assert_eq!(whole("quay.io/me/app"), "quay.io/me/app:latest");
        assert_eq!(whole("host:5000/app"), "host:5000/app:latest");
        assert_eq!(whole("a@sha256:00"), "docker.io/library/a@sha256:00");
    }
}
