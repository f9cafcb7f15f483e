#!/usr/bin/env bash
# Boots a node that make.sh has made, runs a job in it as root, and powers off. `make vm` does that through `suite`.
#
#   run.sh NODE DIR JOB PROGRAM...
#
# The repository's files and the PROGRAMs, stripped, lie in the node where they lie here: test binaries know them by their paths. A package
# of Debian may be among them. JOB is a script of bash; its standard output and standard error are those of run.sh. DIR gets the console of
# the machine. The node's own disks are not written to: each run begins with the same node. KVM is used where the machine has it; emulation
# is ten times slower. No network inside. More by the environment:
#
#   VM_DATA=FILE|nbd:…  one more disk, the last one, which keeps what the node writes
#   VM_TALK=SOCKET      /dev/vport0p3 of the node is connected to who connects here; the machine waits for that
#   VM_TREE=kept        the archive of an earlier run in DIR is used again
#   VM_WORDS=…          for the kernel and systemd, in place of quiet
set -euo pipefail
cd "$(dirname "$0")/../.."
node=${1:?usage: run.sh NODE DIR JOB PROGRAM...}
mkdir -p "$2"
to=$(realpath "$2") job=$(realpath "$3") made=$PWD/target/vm/$node
shift 3

# Makes the archive of what lies in the node beside its own files.
pack() {
  local stage=$to/stage program strip=strip
  [[ $node != debian-arm64 ]] || strip=aarch64-linux-gnu-strip
  rm -rf "$stage"
  mkdir -p "$stage/opt/vm"
  cp "$job" "$stage/opt/vm/job"
  for program in "$@"; do
    mkdir -p "$stage/$(dirname "$program")"
    case $program in
      *.deb) cp "$program" "$stage/$program" ;;
      *) "$strip" --strip-debug -o "$stage/$program" "$program" ;;
    esac
  done
  tar -cf "$to/tree" -C "$stage" .
  rm -rf "$stage"
  # A file that is deleted and not yet committed is still listed.
  git ls-files -z --cached --others --exclude-standard -- . ':!fuzz' |
    tar -rf "$to/tree" --ignore-failed-read --transform "flags=rSH;s,^,${PWD#/}/," --null -T - 2>/dev/null
  # A disk has whole sectors.
  truncate -s %1M "$to/tree"
}

[[ ${VM_TREE:-} == kept && -e $to/tree ]] || pack "$@"
disks=(-drive "file=$made/disk,if=virtio,format=raw,snapshot=on" -drive "file=$to/tree,if=virtio,format=raw,snapshot=on")
words="panic=-1 systemd.show_status=0 mitigations=off random.trust_cpu=on node=$node"
architecture=amd64 accel=tcg,thread=multi
case $node in
  debian-arm64)
    architecture=arm64 machine=(qemu-system-aarch64 -M virt -cpu cortex-a72)
    words+=" console=ttyAMA0"
    ;;
  *)
    # The emulator of Debian 12 computes cmpxchg16b wrongly, and Linux 6.12 and later dies of it.
    machine=(qemu-system-x86_64 -cpu max,-la57,-cx16)
    words+=" console=ttyS0"
    ;;
esac
# A KVM without the processor's help, as some clouds have it, does not boot these kernels.
if [[ $architecture == "$(dpkg --print-architecture)" && -w /dev/kvm ]] && grep -qwE 'vmx|svm' /proc/cpuinfo; then
  accel=kvm machine=("${machine[0]}" -cpu host)
fi
if [[ $node == zero-os ]]; then
  words+=" apparmor=0"
  rm -f "$to/cache"
  truncate -s 4G "$to/cache"
  mkfs.btrfs -q "$to/cache" >/dev/null
  disks+=(-drive "file=$to/cache,if=virtio,format=raw,snapshot=on")
fi
[[ -z ${VM_DATA:-} ]] || disks+=(-drive "file=$VM_DATA,if=virtio,format=raw,cache=writeback")
talk=()
[[ -z ${VM_TALK:-} ]] || talk=(-chardev "socket,id=talk,path=$VM_TALK,server=on,wait=on" -device virtserialport,chardev=talk,nr=3)
# In the place of this script, so that the machine ends with the process that was started.
exec "${machine[@]}" -accel "$accel" -smp 2 -m 4096 -kernel "$made/vmlinuz" -initrd "$made/initrd.gz" -append "$words ${VM_WORDS:-quiet}" \
  "${disks[@]}" -serial "file:$to/console.txt" -display none -no-reboot -nic none -device virtio-serial-pci \
  -chardev file,id=out,path=/dev/stdout,append=on -device virtserialport,chardev=out,nr=1 \
  -chardev file,id=err,path=/dev/stderr,append=on -device virtserialport,chardev=err,nr=2 "${talk[@]}" </dev/null
