#!/usr/bin/env bash
# Makes the Debian package of programs that are built: make deb. The path of the package is its standard output.
#
#   deb.sh BINARY_DIR     makes BINARY_DIR/deb/contd_VERSION_ARCHITECTURE.deb
#
# What is in it is said by install.sh; the rest by debian/, whose changelog has the version. Wants debhelper and cargo-about (.ci/deps deb).
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
bin=$(cd "${1:?usage: deb.sh BINARY_DIR}" && pwd)
case $(readelf -h "$bin/contd") in
  *X86-64*) architecture=amd64 ;;
  *AArch64*) architecture=arm64 ;;
  *) echo "error: $bin/contd is of a machine that has no package" >&2; exit 1 ;;
esac
# install.sh asks contd for its man pages and completions.
[[ $architecture == "$(dpkg --print-architecture)" ]] || export RUNNER=qemu-aarch64-static
export SOURCE=$PWD BINARIES=$bin
rm -rf "$bin/deb"
mkdir -p "$bin/deb/tree"
cp -r contrib/debian "$bin/deb/tree/debian"
case $architecture in amd64) target=x86_64-unknown-linux-gnu ;; arm64) target=aarch64-unknown-linux-gnu ;; esac
cargo about generate --offline --locked --fail --target "$target" --config contrib/debian/about.toml \
  contrib/debian/third-party.hbs >"$bin/deb/tree/debian/THIRD-PARTY"
cd "$bin/deb/tree"
dpkg-architecture -f -a "$architecture" -c debian/rules binary >&2
rm -rf "$bin/deb/tree"
ls "$bin"/deb/*.deb
