#!/usr/bin/env bash
# Makes the disk and the kernel of a node in target/vm/NODE; does nothing if this script, as it is, has made them already. `make vm` does
# that by itself; run.sh boots what is made.
#
#   make.sh NODE
#
#   zero-os        as a Zero-OS node boots: everything in a tmpfs of 1.5 GiB, busybox as pid 1, cgroups v1 (each controller its own
#                  hierarchy, none of v2), overlay with redirect_dir and index, no AppArmor, no EROFS, /var/cache on btrfs; Linux 6.1
#   debian         Debian 12 as it is installed: Linux 6.1, systemd, cgroup v2, AppArmor, all capabilities
#   debian-arm64   the same for aarch64
#   newest         the same with the kernel of Debian unstable; remove target/vm/newest to have a newer one
#
# As root, with what .ci/deps installs, and the repository that this machine's own packages come from.
set -euo pipefail
cd "$(dirname "$0")/../.."
die() { echo "make.sh: $*" >&2; exit 1; }

programs=iproute2,kmod,busybox-static,runc,procps,libseccomp2,btrfs-progs
# Used by the end-to-end tests where a node has it. netavark stands for a virtual package that podman wants, which debootstrap does not resolve.
debian_programs=systemd,systemd-sysv,dbus,udev,apparmor,e2fsprogs,xfsprogs,redis-server,nginx-light,buildah,podman,netavark,skopeo,umoci

# Sets what a node is made of: architecture, the suite of its kernel, its programs.
describe() {
  arch=amd64 kernel_suite=bookworm
  case $1 in
    zero-os) ;;
    debian) programs+=,$debian_programs ;;
    debian-arm64) arch=arm64 programs+=,$debian_programs ;;
    newest) kernel_suite=sid programs+=,$debian_programs ;;
    *) die "no node $1: zero-os, debian, debian-arm64 or newest" ;;
  esac
}

# The repository that this machine's own packages come from.
mirror() { apt-get indextargets --format '$(REPO_URI) $(RELEASE)' | awk '$2 == "bookworm" {print $1; exit}'; }

# Programs of another architecture are run by qemu-user while a node is made. The kernel is told so for that time only.
foreign_programs() {
  local binfmt=/proc/sys/fs/binfmt_misc
  case $1 in
    on)
      [[ -e $binfmt/register ]] || mount -t binfmt_misc none $binfmt
      [[ -e $binfmt/contd-aarch64 ]] || printf '%s' ':contd-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:F' >$binfmt/register
      ;;
    off) [[ ! -e $binfmt/contd-aarch64 ]] || echo -1 >$binfmt/contd-aarch64 ;;
  esac
}

# Unpacks the kernel package of a suite to DIR/kernel.
unpack_kernel() {
  local dir=$1 image package
  mkdir -p "$dir"/apt/lists/partial "$dir/apt/archives/partial" "$dir/kernel"
  echo "deb $(mirror) $kernel_suite main" >"$dir/apt/sources.list"
  local apt=(-qq -o "Dir::Etc::sourcelist=$dir/apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$dir/apt/lists")
  apt+=(-o "Dir::Cache=$dir/apt" -o "APT::Architecture=$arch" -o "APT::Architectures=$arch")
  apt-get "${apt[@]}" update
  package=linux-image-cloud-$arch
  image=$(apt-cache "${apt[@]}" depends "$package" | awk '/Depends: linux-image-[0-9]/ {print $2; exit}')
  image=${image:-$package}
  # In newer suites the modules and the image are packages of their own.
  for package in "$image" $(apt-cache "${apt[@]}" depends "$image" | awk '/Depends: linux-(binary|modules)-[0-9]/ {print $2}'); do
    (cd "$dir/apt" && apt-get "${apt[@]}" download "$package:$arch")
  done
  for package in "$dir"/apt/*.deb; do dpkg -x "$package" "$dir/kernel"; done
  [[ -d $dir/kernel/lib/modules ]] || { mkdir -p "$dir/kernel/lib"; mv "$dir/kernel/usr/lib/modules" "$dir/kernel/lib/"; }
  version=$(ls "$dir/kernel/lib/modules")
  cp "$dir/kernel/boot/vmlinuz-$version" "$dir/vmlinuz" 2>/dev/null || cp "$dir/kernel/lib/modules/$version/vmlinuz" "$dir/vmlinuz"
  # Drivers of hardware that no virtual machine has.
  (cd "$dir/kernel/lib/modules/$version/kernel/drivers" && find . -mindepth 1 -maxdepth 1 ! -name block ! -name char ! -name net ! -name virtio -exec rm -rf {} +)
}

# What pid 1 of the first root file system needs to find the disk.
disk_modules="virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_mmio virtio_blk crc16 crc32c_generic libcrc32c mbcache jbd2 ext4"

make_initrd() {
  local dir=$1 initrd=$1/initrd module
  mkdir -p "$initrd"/{bin,modules,dev,proc,sys,mnt}
  cp "$dir/root/bin/busybox" "$initrd/bin/"
  for module in $disk_modules; do find "$dir/kernel/lib/modules" -name "$module.ko*" -exec cp {} "$initrd/modules/" \;; done
  find "$initrd/modules" -name '*.xz' -exec xz -d {} +
  cat >"$initrd/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
for module in $disk_modules; do
  case \$(cat /proc/cmdline) in *node=zero-os*) [ \$module != ext4 ] || continue ;; esac
  [ ! -e /modules/\$module.ko ] || insmod /modules/\$module.ko
done
n=0; while [ ! -e /dev/vdb ] && [ \$n -lt 50 ]; do sleep 0.2; n=\$((n + 1)); done
case \$(cat /proc/cmdline) in
  *node=zero-os*) mount -t tmpfs -o size=1536M,mode=0755 tmpfs /mnt && tar -xf /dev/vda -C /mnt; init=/bin/busybox ;;
  *) mount -t ext4 /dev/vda /mnt; init=/sbin/init ;;
esac
umount /proc /sys
exec switch_root /mnt \$init init
INIT
  chmod +x "$initrd/init"
  (cd "$initrd" && find . | cpio -o -H newc --quiet | gzip -1) >"$dir/initrd.gz"
}

# Runs in the node: unpacks what the host gave and does the job. The machine is off at the end, whatever happens.
write_runner() {
  mkdir -p "$1/opt/vm"
  cat >"$1/opt/vm/run" <<'RUN'
#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
modprobe virtio_console
for n in 1 2 3 4 5 6 7 8 9 10; do [ ! -e /dev/vport0p2 ] || break; sleep 0.2; done
tar -xf /dev/vdb -C / && bash /opt/vm/job >/dev/vport0p1 2>/dev/vport0p2 </dev/null
sync
exec busybox poweroff -f
RUN
}

# Debian starts the job as a service, behind everything else.
finish_debian() {
  local etc=$1/etc
  rm -rf "$etc"/systemd/system/{multi-user,timers}.target.wants/*
  cat >"$etc/systemd/system/vm.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
TimeoutStartSec=infinity
LimitNOFILE=1048576
ExecStart=/bin/bash /opt/vm/run
UNIT
  ln -s ../vm.service "$etc/systemd/system/multi-user.target.wants/vm.service"
  for unit in getty.target apt-daily.timer apt-daily-upgrade.timer systemd-timesyncd.service; do ln -sf /dev/null "$etc/systemd/system/$unit"; done
  echo node >"$etc/hostname"
}

finish_zero_os() {
  rm -rf "$1"/lib/modules/*/kernel/fs/{erofs,ext4} "$1"/usr/share/{doc,man,locale,i18n} "$1"/var/{cache/apt,lib/apt}/*
  printf '::sysinit:/bin/sh /opt/vm/boot\n::once:/bin/sh /opt/vm/go\n' >"$1/etc/inittab"
  cat >"$1/opt/vm/boot" <<'BOOT'
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts; ln -sf /proc/self/fd /dev/fd
hostname node; ip link set lo up
mount -t tmpfs cgroup_root /sys/fs/cgroup
for c in pids cpuset cpu cpuacct blkio memory devices freezer net_cls perf_event net_prio hugetlb; do
  mkdir -p /sys/fs/cgroup/$c; mount -t cgroup $c -o $c /sys/fs/cgroup/$c
done
modprobe fuse; modprobe btrfs; modprobe tun; modprobe overlay redirect_dir=on index=on
mkdir -p /var/cache; mount -t btrfs /dev/vdc /var/cache
BOOT
  printf 'ulimit -n 1048576\nexec /bin/bash /opt/vm/run\n' >"$1/opt/vm/go"
}

make_node() {
  local node=$1 dir key made foreign=() root
  key=$(sha256sum <"$0" | cut -c1-16)
  made=$PWD/target/vm/$node
  mkdir -p target/vm
  exec 9>"target/vm/$node.lock"
  flock 9
  [[ $(cat "$made/made" 2>/dev/null) != "$key" ]] || return 0
  [[ $(id -u) == 0 ]] || die "not root, cannot make a node"
  local begin=$SECONDS
  echo "make.sh: making $node (some minutes)" >&2
  dir=$made.new root=$dir/root
  rm -rf "$dir" "$made"
  mkdir -p "$dir" target/vm/packages
  unpack_kernel "$dir"
  [[ $arch == "$(dpkg --print-architecture)" ]] || foreign=(--foreign)
  debootstrap --arch="$arch" "${foreign[@]}" --variant=minbase --cache-dir="$PWD/target/vm/packages" --include="$programs" bookworm "$root" "$(mirror)" >"$dir/debootstrap.log" ||
    die "debootstrap failed: $dir/debootstrap.log"
  if [[ -n ${foreign[*]} ]]; then
    foreign_programs on
    chroot "$root" /debootstrap/debootstrap --second-stage >>"$dir/debootstrap.log" || { foreign_programs off; die "debootstrap failed: $dir/debootstrap.log"; }
    foreign_programs off
  fi
  rm -f "$root"/var/cache/apt/archives/*.deb
  cp -r "$dir/kernel/lib/modules" "$root/lib/"
  make_initrd "$dir"
  write_runner "$root"
  if [[ $node == zero-os ]]; then
    finish_zero_os "$root"
    depmod -b "$root" "$version"
    tar -C "$root" -cf "$dir/disk" .
  else
    finish_debian "$root"
    depmod -b "$root" "$version"
    truncate -s 8G "$dir/disk"
    mkfs.ext4 -q -d "$root" "$dir/disk"
  fi
  rm -rf "$root" "$dir/kernel" "$dir/initrd" "$dir/apt"
  echo "$version" >"$dir/version"
  echo "$key" >"$dir/made"
  mv "$dir" "$made"
  echo "make.sh: made $node with Linux $version in $((SECONDS - begin)) s" >&2
}

describe "${1:?usage: make.sh NODE}"
make_node "$1"
