#!/usr/bin/env bash
# The hardware lab: a machine in QEMU with an IOMMU and real SR-IOV functions (QEMU's NVMe controllers), in which the node
# agent's own code makes functions, binds them to vfio-pci, dies at every step, resets them and gives them back, and starts a
# guest in that machine that sees one of them.
#   scripts/lab.sh <bulkhead-lab> <kernel dir> [<work dir>]     ends with "lab: ok"
# Any user can run it: everything is emulated. Needs qemu-system-x86_64 and a static busybox.
set -euo pipefail

lab=${1:?usage: scripts/lab.sh <bulkhead-lab> <kernel dir> [<work dir>]}
kernel_dir=${2:?usage: scripts/lab.sh <bulkhead-lab> <kernel dir> [<work dir>]}
work=${3:-$(mktemp -d)}
limit=${LAB_SECONDS:-600}
[ -n "${3:-}" ] || trap 'rm -rf "$work"' EXIT

image=$(ls "$kernel_dir"/boot/vmlinuz-* | sort -V | tail -n 1)
modules=$kernel_dir/lib/modules/${image##*/vmlinuz-}/kernel
qemu=$(command -v qemu-system-x86_64)
busybox=$(command -v busybox)
if ldd "$busybox" >/dev/null 2>&1; then
  echo "$busybox is not static; run: apt-get install busybox-static" >&2
  exit 1
fi

# What a program needs beside itself, at the same places.
with_libraries() {
  local root=$1 program=$2
  ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root/$(dirname "$library")"
    cp -Lu "$library" "$root/$library"
  done
}

pack() {
  (cd "$1" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$2"
}

rm -rf "$work/outer" "$work/inner"
mkdir -p "$work"/outer/{bin,dev,proc,sys,tmp,lab,modules,usr/bin,usr/share/qemu,usr/share/seabios} "$work"/inner/{bin,dev,proc,sys}

# The guest in the machine: it says which functions it sees, and ends.
cp "$busybox" "$work/inner/bin/busybox"
cat >"$work/inner/init" <<'INNER'
#!/bin/busybox sh
/bin/busybox mount -t sysfs none /sys
for function in /sys/bus/pci/devices/*; do
  echo "guest sees $(/bin/busybox cat $function/vendor):$(/bin/busybox cat $function/device) class $(/bin/busybox cat $function/class)"
done
echo "guest ends"
/bin/busybox reboot -f
INNER
chmod 755 "$work/inner/init"
pack "$work/inner" "$work/outer/lab/initrd"

# The machine.
cp "$busybox" "$work/outer/bin/busybox"
cp "$image" "$work/outer/lab/vmlinuz"
cp "$lab" "$work/outer/bin/bulkhead-lab"
with_libraries "$work/outer" "$lab"
cp -L "$qemu" "$work/outer/usr/bin/qemu-system-x86_64"
with_libraries "$work/outer" "$qemu"
accelerator=$(find /usr/lib -name accel-tcg-x86_64.so | head -n 1)
if [ -n "$accelerator" ]; then
  mkdir -p "$work/outer/$(dirname "$accelerator")"
  cp "$accelerator" "$work/outer/$accelerator"
fi
for part in /usr/share/seabios/bios-256k.bin /usr/share/qemu/{linuxboot_dma,kvmvapic}.bin; do
  cp -L "$part" "$work/outer/usr/share/${part#/usr/share/}"
done
[ -e /usr/share/qemu/bios-256k.bin ] && cp -L /usr/share/qemu/bios-256k.bin "$work/outer/usr/share/qemu/"
order=""
# A NIC in software that has functions, where the kernel has it (Debian's has not).
simulated=$(find "$modules" -name 'netdevsim.ko*' | head -n 1)
for module in irqbypass vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci ${simulated:+psample netdevsim}; do
  file=$(find "$modules" -name "$module.ko*" | head -n 1)
  case "$file" in
    "") continue ;; # built in
    *.xz) xz -dc "$file" >"$work/outer/modules/$module.ko" ;;
    *) cp "$file" "$work/outer/modules/$module.ko" ;;
  esac
  order+=" $module"
done
cat >"$work/outer/init" <<OUTER
#!/bin/busybox sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t tmpfs none /tmp
for module in$order; do /bin/busybox insmod /modules/\$module.ko; done
ulimit -l unlimited
cd /tmp
RUST_BACKTRACE=1 /bin/bulkhead-lab
echo "lab ended with \$?"
/bin/busybox reboot -f
OUTER
chmod 755 "$work/outer/init"
pack "$work/outer" "$work/lab.gz"

nvme() {
  echo "-device pcie-root-port,id=rp$1,chassis=$1,slot=$1 -device nvme-subsys,id=ss$1,nqn=ss$1" \
    "-device nvme,serial=lab$1,subsys=ss$1,bus=rp$1$2"
}
# shellcheck disable=SC2046
timeout "$limit" "$qemu" -M q35,accel=tcg,kernel-irqchip=off -cpu max -smp 1 -m 1024 \
  -kernel "$image" -initrd "$work/lab.gz" \
  -append "console=ttyS0 quiet panic=-1 reboot=t no_timer_check intel_iommu=on iommu=pt rcupdate.rcu_expedited=1 tsc=reliable cryptomgr.notests" \
  -nodefaults -no-user-config -nographic -no-reboot -serial stdio \
  -device intel-iommu,intremap=on,caching-mode=on \
  $(nvme 1 ,sriov_max_vfs=4,sriov_vq_flexible=16,sriov_vi_flexible=8,max_ioqpairs=18,msix_qsize=10) $(nvme 2 "") \
  </dev/null | tee "$work/lab.log"
grep -q '^lab: ok' "$work/lab.log"
