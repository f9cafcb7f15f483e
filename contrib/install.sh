#!/usr/bin/env bash
# Installs what was built, or takes away exactly that: make install, make uninstall. Honours DESTDIR and PREFIX.
#
#   install.sh BINARY_DIR     installs, with files of an earlier version that are no longer part removed
#   install.sh --uninstall    removes what the manifest names, and the directories that were made for it, if they are empty
#
# The manifest, share/doc/contd/install_manifest.txt, has a line for each file ("file PATH") and for each directory that was not
# there before ("dir PATH"), relative to DESTDIR. Nothing is built, fetched, enabled or started here. RUNNER is the command that runs
# programs of BINARY_DIR where they are another machine's.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/usr/local}
[[ $prefix == /* ]] || { echo "error: PREFIX=$prefix is not an absolute path" >&2; exit 2; }
root=${DESTDIR:-}
prefix=${prefix#/} prefix=${prefix%/}
doc=$prefix/share/doc/contd
manifest=$doc/install_manifest.txt

lines=()

# Makes a directory and those above it, and notes those that were not there.
dir() {
  [[ $1 == . || -d $root/$1 ]] && return
  dir "$(dirname "$1")"
  mkdir "$root/$1"
  lines+=("dir $1")
}

# Puts a file there: MODE SOURCE PATH. The paths of the default prefix become those of this one.
put() {
  dir "$(dirname "$3")"
  # Beside, then renamed: a program that runs is not written into.
  install -m "$1" "$2" "$root/$3.new"
  case $3 in *.service | *.socket | *.yaml) sed -i "s|/usr/local/|/$prefix/|g" "$root/$3.new" ;; esac
  mv -fT "$root/$3.new" "$root/$3"
  lines+=("file $3")
}

remove() {
  local kind path
  while read -r kind path; do
    case /$path/ in */../*) continue ;; esac
    case $kind in
      file) rm -f "$root/$path" ;;
      dir) rmdir --ignore-fail-on-non-empty "$root/$path" 2>/dev/null || true ;;
    esac
  done
}

if [[ ${1:-} == --uninstall ]]; then
  [[ -e $root/$manifest ]] || { echo "nothing of contd is installed in $root/$prefix" >&2; exit 0; }
  known=$(cat "$root/$manifest")
  grep '^file ' <<<"$known" | remove
  rm -f "$root/$manifest"
  # The deepest first.
  { grep '^dir ' <<<"$known" || true; } | sort -r | remove
  exit 0
fi

bin=$(cd "${1:?usage: install.sh BINARY_DIR | --uninstall}" && pwd)
earlier=$(cat "$root/$manifest" 2>/dev/null || true)
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
${RUNNER:-} "$bin/contd" man "$made"
for shell in bash zsh fish; do ${RUNNER:-} "$bin/contd" completion "$shell" >"$made/$shell"; done
# The first block of the reference is the whole file with its defaults.
sed -n '/^```toml$/,/^```$/p' docs/configuration.md | sed '1d;/^```$/,$d' >"$made/config.toml"

[[ -z $root ]] || mkdir -p "$root"
for program in contd contd-shim contd-flistfs contd-seccomp; do put 0755 "$bin/$program" "$prefix/bin/$program"; done
for unit in contd.service contd.socket contd-containers.service; do put 0644 "contrib/$unit" "$prefix/lib/systemd/system/$unit"; done
for page in "$made"/*.1; do put 0644 "$page" "$prefix/share/man/man1/$(basename "$page")"; done
put 0644 "$made/bash" "$prefix/share/bash-completion/completions/contd"
put 0644 "$made/zsh" "$prefix/share/zsh/site-functions/_contd"
put 0644 "$made/fish" "$prefix/share/fish/vendor_completions.d/contd.fish"
put 0644 "$made/config.toml" "$doc/examples/config.toml"
for service in contrib/zinit/*.yaml; do put 0644 "$service" "$doc/examples/zinit/$(basename "$service")"; done
for text in LICENSE README.md CHANGELOG.md docs/*.md docs/decisions/*.md; do put 0644 "$text" "$doc/$text"; done

# Directories that an earlier install made are still its own.
while read -r kind path; do
  case $kind in
    dir) lines+=("dir $path") ;;
    file) printf '%s\n' "${lines[@]}" | grep -qxF "file $path" || remove <<<"file $path" ;;
  esac
done <<<"$earlier"
printf '%s\n' "${lines[@]}" "file $manifest" | sort -u >"$made/manifest"
install -m 0644 "$made/manifest" "$root/$manifest"
echo "installed to $root/$prefix; the service: systemctl enable --now contd.socket contd.service"
