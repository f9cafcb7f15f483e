#!/usr/bin/env bash
# The demo: a container from a real flist, and a daemon that is killed under it. Usage: tests/demo.sh BINARY_DIR
set -euo pipefail
bin=$(cd "$1" && pwd)
[[ $(id -u) == 0 ]] || { echo "error: the demo makes containers and wants root" >&2; exit 1; }

scratch=$(mktemp -d /tmp/contd-demo.XXXXXX)
export CONTD_ADDRESS=$scratch/run/contd.sock CONTD_NAMESPACE=demo
daemon=

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
show() { printf '$ contd %s\n' "$*"; "$bin/contd" "$@"; }

start_daemon() {
  "$bin/contd" daemon --state-dir "$scratch/state" --run-dir "$scratch/run" --log-dir "$scratch/log" \
    --cache-dir "$scratch/cache" --address "$CONTD_ADDRESS" 2>>"$scratch/daemon.log" &
  daemon=$!
  for _ in $(seq 100); do
    "$bin/contd" version >/dev/null 2>&1 && return 0
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.05
  done
  echo "error: the daemon did not come up" >&2
  tail -n 20 "$scratch/daemon.log" >&2
  return 1
}

# Lists what is left of the demo.
leftovers() {
  local pid line cgroups
  for pid in /proc/[0-9]*; do
    line=$(tr '\0' ' ' 2>/dev/null <"$pid/cmdline" || true)
    if grep -q "^[^ ]*contd-[a-z]* .*$scratch" <<<"$line"; then echo "process ${pid#/proc/}: $line"; fi
  done
  grep -o " $scratch[^ ]*" /proc/self/mountinfo | sed 's/^/mount/' || true
  cgroups=$(find /sys/fs/cgroup -maxdepth 3 -type d -path '*/contd/*' 2>/dev/null || true)
  [[ -z $cgroups ]] || echo "cgroup $cgroups"
}

finish() {
  local status=$?
  set +e
  if ((status != 0)); then
    echo "the demo failed; the daemon said:" >&2
    tail -n 30 "$scratch/daemon.log" >&2
  fi
  "$bin/contd" rm -f -t 1 ticker >/dev/null 2>&1
  [[ -n $daemon ]] && kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null
  rm -rf --one-file-system "$scratch"
  exit "$status"
}
trap finish EXIT

say "A flist of a busybox tree, in the format of rfs, with its blocks in a directory store"
mkdir -p "$scratch"/tree/{bin,etc,proc,sys,dev,tmp,root}
cp "$(command -v busybox)" "$scratch/tree/bin/busybox"
for applet in sh ls cat echo sleep seq hostname id true; do ln -s busybox "$scratch/tree/bin/$applet"; done
echo 'root:x:0:0:root:/root:/bin/sh' >"$scratch/tree/etc/passwd"
echo 'root:x:0:' >"$scratch/tree/etc/group"
show flist pack "$scratch/tree" "$scratch/demo.fl" --store "dir://$scratch/store"
ls -l "$scratch/demo.fl"

say "The daemon, on defaults, in a scratch directory"
start_daemon
show version

say "A container from the flist"
show run -d --name ticker "$scratch/demo.fl" /bin/sh -c 'n=0; while :; do n=$((n+1)); echo "line $n"; sleep 0.1; done'
sleep 1
show ps
show logs --tail 3 ticker
show inspect ticker

say "The daemon is killed (-9) under it, and started again"
before=$("$bin/contd" inspect ticker | sed -n 's/^ *"pid": \([0-9]*\).*/\1/p')
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
sleep 1
start_daemon
after=$("$bin/contd" inspect ticker | sed -n 's/^ *"pid": \([0-9]*\).*/\1/p')
show ps
show logs --tail 3 ticker
echo "pid before: $before, after: $after"
[[ -n $before && $before == "$after" ]] || { echo "error: the container noticed" >&2; exit 1; }
"$bin/contd" logs ticker | awk '$2 != NR { print "error: line " NR " is " $0; exit 1 }'
echo "its log has no gap: $("$bin/contd" logs ticker | wc -l) lines, numbered without a hole"

say "Stop, delete, and look for anything left behind"
show stop -t 1 ticker
show rm ticker
kill "$daemon"
wait "$daemon" || true
daemon=
# The holder of shims, and slots that were just made, end behind the daemon.
for _ in $(seq 100); do
  left=$(leftovers)
  [[ -n $left ]] || break
  sleep 0.1
done
[[ -z $left ]] || { echo "error: left behind:" >&2; echo "$left" >&2; exit 1; }
echo "nothing is left: no process, no mount, no cgroup"
