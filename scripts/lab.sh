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

# shellcheck source=scripts/lab-machine.sh
. "$(dirname "$0")/lab-machine.sh"

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
with_programs "$work/outer" "$qemu"
# A NIC in software that has functions, where the kernel has it (Debian's has not).
simulated=$(find "$kernel_dir/lib/modules/$version" -name 'netdevsim.ko*' | head -n 1)
with_modules "$work/outer/modules" irqbypass vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci ${simulated:+psample netdevsim}
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

# shellcheck disable=SC2046
timeout "$limit" "$qemu" "${machine[@]}" -smp 1 -m 1024 -initrd "$work/lab.gz" -append "$append" -serial stdio \
  $(controller 1 ,sriov_max_vfs=4,sriov_vq_flexible=16,sriov_vi_flexible=8,max_ioqpairs=18,msix_qsize=10) $(controller 2 "") \
  </dev/null | tee "$work/lab.log"
grep -q '^lab: ok' "$work/lab.log"
