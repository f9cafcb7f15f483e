//! Assembles the whole OCI configuration from its parts.

use std::collections::HashMap;
use std::io;

use contd_types::ContainerSpec;
use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxSeccomp, RootBuilder, Spec, SpecBuilder};

use crate::error::BundleError;
use crate::request::BundleRequest;
use crate::{json, linux, mounts, process, seccomp};

/// The annotation that carries the namespace.
pub const ANNOTATION_NAMESPACE: &str = "tech.contd.namespace";
/// The annotation that carries the container's name.
pub const ANNOTATION_NAME: &str = "tech.contd.name";

/// The OCI version in the configuration: every supported runtime knows it, and we use no newer feature.
const OCI_VERSION: &str = "1.0.2";

/// Makes the OCI configuration of a container.
///
/// Reads users inside the root and looks at the sources and targets of mounts; has no other effect.
///
/// # Errors
/// A [`BundleError`]; nothing was changed.
pub fn config(request: &BundleRequest<'_>) -> Result<Spec, BundleError> {
    with_profile(request, seccomp::of(request.spec)?)
}

/// Makes the configuration with the given seccomp profile.
fn with_profile(request: &BundleRequest<'_>, profile: Option<LinuxSeccomp>) -> Result<Spec, BundleError> {
    let name = request.spec.name.to_string();
    check_spec(request.spec)?;
    check_root(request)?;
    let process = process::process(request)?;
    let mounts = mounts::mounts(request.spec, request.root)?;
    let linux = linux::linux(request, profile)?;
    let own =
        [(ANNOTATION_NAMESPACE.to_owned(), request.namespace.to_string()), (ANNOTATION_NAME.to_owned(), name.clone())];
    let annotations: HashMap<_, _> = request.spec.annotations.clone().into_iter().chain(own).collect();
    let hostname = request.spec.hostname.clone().unwrap_or(name);
    let assemble = || -> Result<Spec, OciSpecError> {
        SpecBuilder::default()
            .version(OCI_VERSION)
            .root(RootBuilder::default().path(request.root).readonly(request.spec.is_read_only).build()?)
            .hostname(hostname)
            .process(process)
            .mounts(mounts)
            .linux(linux)
            .annotations(annotations)
            .build()
    };
    assemble().map_err(|source| not_assembled(request.spec, source))
}

fn not_assembled(spec: &ContainerSpec, source: OciSpecError) -> BundleError {
    BundleError::Assemble { name: spec.name.to_string(), source }
}

/// Returns the configuration as indented JSON, as `contd run --dry-run` prints it and as it is written to disk.
///
/// # Errors
/// As [`config`].
pub fn preview(request: &BundleRequest<'_>) -> Result<String, BundleError> {
    let profile = seccomp::text(request.spec)?;
    // The real profile replaces this placeholder in the text. The placeholder refuses every call, so a missed
    // replacement allows nothing.
    let nothing = profile.as_ref().map(|_| seccomp::nothing()).transpose();
    let nothing = nothing.map_err(|source| not_assembled(request.spec, source))?;
    json::encode(&request.spec.name, &with_profile(request, nothing)?, profile.as_deref())
}

/// Checks a spec as far as possible without looking at the machine.
pub(crate) fn check_spec(spec: &ContainerSpec) -> Result<(), BundleError> {
    spec.validate().map_err(|source| BundleError::Spec { name: spec.name.to_string(), source })?;
    process::args(spec).map(drop)
}

fn check_root(request: &BundleRequest<'_>) -> Result<(), BundleError> {
    let failed =
        |source| BundleError::Root { name: request.spec.name.to_string(), root: request.root.to_owned(), source };
    if !request.root.is_absolute() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute")));
    }
    let metadata = std::fs::metadata(request.root).map_err(failed)?;
    if metadata.is_dir() { Ok(()) } else { Err(failed(io::ErrorKind::NotADirectory.into())) }
}
