#!/usr/bin/env bash
# In a node of `suite vm-power`: mounts the data disk, installs contd without starting it, and runs what the host asks for.
#
#   power.sh PROGRAMS    the directory with the programs of contd
#
#   host: NUMBER COMMAND        a line; its command runs in a shell of its own, beside those that have not ended
#   node: NUMBER CODE OUTPUT    a line, when it has ended; a newline of its output is the byte 0x1f
#
# The first line of the node is `0 0 BOOT-ID`. For each answer it has made a file that nobody syncs, before it answered: how many of
# them the host misses after the power was lost says that power was lost.
set -euo pipefail
cd "$(dirname "$0")/../.."
# The port may come behind the others; what is not there would be made a file.
until [[ -c /dev/vport0p3 ]]; do sleep 0.2; done
exec {host}<>/dev/vport0p3

answer() {
  local code=0 output
  output=$(bash -c "$2" </dev/null 2>&1) || code=$?
  echo "$1" >"/data/unsynced/$1"
  # One line at a time.
  { flock 9 && printf '%s %s %s\n' "$1" "$code" "${output//$'\n'/$'\x1f'}" >&"$host"; } 9>/run/vm-answer
}

mkdir -p /data /run/node-log
# The journal of this boot is not to be covered: it says why a check has failed.
mount --bind /var/log /run/node-log
mount /dev/vdc /data
for pair in state:/var/lib/contd cache:/var/cache/contd log:/var/log; do
  mkdir -p "/data/${pair%%:*}" "${pair#*:}"
  mount --bind "/data/${pair%%:*}" "${pair#*:}"
done
mkdir -p /data/unsynced
contrib/install.sh "$1" >/dev/null
systemctl daemon-reload
# The job of this very service would keep the boot from ever being finished.
systemctl cancel "$(systemctl show -P Job vm.service)"
printf '0 0 %s\n' "$(cat /proc/sys/kernel/random/boot_id)" >&"$host"
while read -r number command <&"$host"; do
  answer "$number" "$command" &
done
