# What both labs (scripts/lab.sh, scripts/lab-agent.sh) make their emulated machine of; they source it with $kernel_dir set.
# shellcheck shell=bash disable=SC2034,SC2154

image=$(ls "$kernel_dir"/boot/vmlinuz-* | sort -V | tail -n 1)
version=${image##*/vmlinuz-}
qemu=$(command -v qemu-system-x86_64)
# The machine's own may be another one than that of the guests in it: LAB_QEMU=/opt/qemu/bin/qemu-system-x86_64 make lab
outer_qemu=${LAB_QEMU:-$qemu}
busybox=$(command -v busybox)
if ldd "$busybox" >/dev/null 2>&1; then
  echo "$busybox is not static; run: apt-get install busybox-static" >&2
  exit 1
fi

# What a program needs beside itself, at the same places; nothing, if it is static.
with_libraries() { # folder, program
  { ldd "$2" 2>/dev/null | grep -o '/[^ ]*' || true; } | while read -r library; do
    mkdir -p "$1/$(dirname "$library")"
    cp -Lu "$library" "$1/$library"
  done
}

# Programs with all that they need; with QEMU its firmware, and its emulator, with which it starts what is no guest.
with_programs() { # folder, programs ...
  local into=$1 one part
  shift
  for one in "$@"; do
    mkdir -p "$into/$(dirname "$one")"
    cp -L "$one" "$into/$one"
    with_libraries "$into" "$one"
  done
  one=$(find /usr/lib -name accel-tcg-x86_64.so | head -n 1)
  if [ -n "$one" ]; then
    mkdir -p "$into/$(dirname "$one")"
    cp "$one" "$into/$one"
  fi
  mkdir -p "$into"/usr/share/{qemu,seabios}
  for part in /usr/share/seabios/bios-256k.bin /usr/share/qemu/{linuxboot_dma,kvmvapic,bios-256k}.bin; do
    [ ! -e "$part" ] || cp -L "$part" "$into$part"
  done
}

# Modules of the kernel, unpacked; those that are not built in are in $order, as they are to be loaded.
with_modules() { # folder, modules ...
  local into=$1 module file
  shift
  order=""
  for module in "$@"; do
    file=$(find "$kernel_dir/lib/modules/$version/kernel" -name "$module.ko*" | head -n 1)
    case "$file" in
      "") continue ;; # built in
      *.xz) xz -dc "$file" >"$into/$module.ko" ;;
      *) cp "$file" "$into/$module.ko" ;;
    esac
    order+=" $module"
  done
}

pack() { # folder, file
  (cd "$1" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$2"
}

# An NVMe controller behind a root port of its own.
controller() { # number, further properties, and the bus of the root port if it is not the machine's own
  echo "-device pcie-root-port,id=rp$1,chassis=$1,slot=$1${3:+,bus=$3} -device nvme-subsys,id=ss$1,nqn=ss$1" \
    "-device nvme,serial=lab$1,subsys=ss$1,bus=rp$1$2"
}

# Two NUMA nodes with a CPU and so much memory each; buses of the second one are behind "far".
numa() { # MiB
  local node
  for node in 0 1; do
    echo "-object memory-backend-ram,id=ram$node,size=$1M -numa node,nodeid=$node,cpus=$node,memdev=ram$node"
  done
  echo "-device pxb-pcie,id=far,bus=pcie.0,bus_nr=64,numa_node=1"
}

# An emulated machine with an IOMMU, without its size, disks and devices. QEMU emulates AMD's virtualization (SVM) as well: with kvm-amd loaded,
# KVM runs the guests in it as it does on a real host. They boot in seconds, and emulated once more they would need minutes.
machine=(-M q35,accel=tcg,kernel-irqchip=off -cpu max -kernel "$image" -nodefaults -no-user-config -display none -no-reboot
  -device intel-iommu,intremap=on,caching-mode=on)
append="console=ttyS0 quiet panic=-1 reboot=t no_timer_check intel_iommu=on iommu=pt rcupdate.rcu_expedited=1 tsc=reliable cryptomgr.notests"

# What volumes in a thin pool need, where lvm2 is installed: its programs, what they are told, as there is no udev in the machine, and the
# modules in $thin.
with_thin_pools() { # folder
  thin=""
  if ! command -v lvm >/dev/null || ! command -v thin_check >/dev/null; then
    echo "lab: no lvm2 or thin-provisioning-tools here: volumes in a thin pool not run"
    return
  fi
  with_programs "$1" "$(command -v lvm)" "$(command -v thin_check)" "$(command -v mkfs.ext4)"
  mkdir -p "$1/etc/lvm" "$1/run"
  echo 'activation { udev_sync=0 udev_rules=0 monitoring=0 } backup { backup=0 archive=0 }' >"$1/etc/lvm/lvm.conf"
  thin="libcrc32c dm-mod dm-bufio dm-bio-prison dm-persistent-data dm-thin-pool loop"
}
