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
machine_pid=""
cleanup() {
  [ -z "$machine_pid" ] || kill -KILL "$machine_pid" 2>/dev/null || true
  [ -n "${keep:-}" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
keep=${3:-}
fail() {
  echo "lab: FAILED: $*" >&2
  tail -n 20 "$work/lab.log" "$work/qemu.log" >&2 || true
  exit 1
}
# shellcheck source=scripts/await.sh
. "$(dirname "$0")/await.sh"

# shellcheck source=scripts/lab-machine.sh
. "$(dirname "$0")/lab-machine.sh"

rm -rf "$work/outer" "$work/inner"
mkdir -p "$work"/outer/{bin,dev,proc,sys,tmp,lab,modules,usr/bin,usr/share/qemu,usr/share/seabios} "$work"/inner/{bin,dev,proc,sys,modules}

# A network card with functions, where QEMU has a model of one and the kernel its driver.
if ! "$outer_qemu" -device help 2>/dev/null | grep -q '"igb"'; then
  echo "lab: no igb in this QEMU ($("$outer_qemu" --version | sed -n 's/.*version \([0-9.]*\).*/\1/p')): NIC part not run"
  nic=()
elif [ -z "$(find "$kernel_dir/lib/modules/$version" -name 'igb.ko*')" ]; then
  echo "lab: no driver for igb in this kernel ($version; linux-image-amd64 has it): NIC part not run"
  nic=()
else
  nic=(-device pcie-root-port,id=rp3,chassis=3,slot=3 -netdev user,id=net3 -device igb,bus=rp3,netdev=net3,romfile=)
fi

# The guest in the machine: it says which functions it sees, and ends.
cp "$busybox" "$work/inner/bin/busybox"
cat >"$work/inner/init" <<'INNER'
#!/bin/busybox sh
/bin/busybox mount -t sysfs none /sys
for function in /sys/bus/pci/devices/*; do
  echo "guest sees $(/bin/busybox cat $function/vendor):$(/bin/busybox cat $function/device) class $(/bin/busybox cat $function/class)"
  # A bridge has its windows below these.
  /bin/busybox head -n 6 $function/resource | while read -r first last flags; do
    [ $((last)) = 0 ] || echo "guest has $(/bin/busybox cat $function/vendor):$(/bin/busybox cat $function/device) at $first: $((last - first + 1)) bytes"
  done
done
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module.ko; done
for interface in /sys/class/net/*; do
  [ ! -e $interface/device/driver ] ||
    echo "guest's driver $(/bin/busybox basename $(/bin/busybox readlink $interface/device/driver)) has $(/bin/busybox cat $interface/address)"
done
echo "guest ends"
/bin/busybox reboot -f
INNER
chmod 755 "$work/inner/init"
with_modules "$work/inner/modules" ${nic:+igbvf}
echo "$order" >"$work/inner/modules/order"
pack "$work/inner" "$work/outer/lab/initrd"

# The machine.
cp "$busybox" "$work/outer/bin/busybox"
cp "$image" "$work/outer/lab/vmlinuz"
cp "$lab" "$work/outer/bin/bulkhead-lab"
with_libraries "$work/outer" "$lab"
with_programs "$work/outer" "$qemu"
with_thin_pools "$work/outer"
# A NIC in software that has functions, where the kernel has it (Debian's has not).
simulated=$(find "$kernel_dir/lib/modules/$version" -name 'netdevsim.ko*' | head -n 1)
with_modules "$work/outer/modules" irqbypass kvm kvm-amd vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci \
  ${simulated:+psample netdevsim} $thin ${nic:+dca i2c-algo-bit pps_core ptp igb} \
  crct10dif_common crc-t10dif crc64 crc64-rocksoft t10-pi nvme-common nvme-core nvme
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
"$outer_qemu" "${machine[@]}" -smp 1 -m 1024 -initrd "$work/lab.gz" -append "$append" -serial "file:$work/lab.log" \
  $(controller 1 ,sriov_max_vfs=4,sriov_vq_flexible=16,sriov_vi_flexible=8,max_ioqpairs=18,msix_qsize=10) $(controller 2 "") "${nic[@]}" \
  -device pcie-root-port,id=rp4,chassis=4,slot=4 -device pci-testdev,bus=rp4,membar=4G \
  </dev/null >"$work/qemu.log" 2>&1 &
machine_pid=$!
# It has so long from one word to the next.
ended() { ! kill -0 "$machine_pid"; }
said=0
says_more() { ended || [ "$(wc -l <"$work/lab.log")" -gt "$said" ]; }
until ended 2>/dev/null; do
  await "the machine's next word" 300 says_more
  now=$(wc -l <"$work/lab.log")
  sed -n "$((said + 1)),${now}p" "$work/lab.log"
  said=$now
done
tail -n "+$((said + 1))" "$work/lab.log"
machine_pid=""
grep -q '^lab: ok' "$work/lab.log" || fail "it does not say that all is well"
