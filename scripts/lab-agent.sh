#!/usr/bin/env bash
# The hardware lab with a whole cluster: a server here, and the agent in an emulated machine with an IOMMU and SR-IOV functions
# (QEMU's NVMe controllers, which stand for network cards), where it starts guests that get such functions.
#   scripts/lab-agent.sh <bulkhead> <kernel dir> <guest> [<work dir>]     ends with "lab: ok"
# Any user can run it: everything is emulated. Needs qemu-system-x86_64, qemu-img, mkfs.ext4, nvme, umoci and a static busybox.
set -euo pipefail

usage="usage: scripts/lab-agent.sh <bulkhead> <kernel dir> <guest> [<work dir>]"
program=$(realpath "${1:?$usage}")
kernel_dir=$(realpath "${2:?$usage}")
guest=$(realpath "${3:?$usage}")
root=$(cd "$(dirname "$0")/.." && pwd)
work=${4:-$(mktemp -d)}
[ -n "${4:-}" ] || remove=$work
# shellcheck source=scripts/lab-machine.sh
. "$root/scripts/lab-machine.sh"

started=$(date +%s)
say() { printf 'lab: %4d s  %s\n' $(($(date +%s) - started)) "$*"; }
exec 5>&2 # what is said of a failure is heard wherever it is found
fail() {
  echo "lab: FAILED: $*" >&5
  bulkhead get nodes,pods,sriovnetworknodestates -A >&5 || true
  for pod in $(bulkhead get pods -o name 2>/dev/null); do bulkhead describe "${pod%%/*}" "${pod#*/}" >&5 || true; done
  in_machine 'tail -n 40 /data/agent.log' >&5 || true
  tail -n 20 "$work/machine.log" "$work/server.log" >&5 || true
  exit 1
}
bulkhead() { "$program" --timeout 60s "$@"; }
# shellcheck source=scripts/await.sh
. "$root/scripts/await.sh"

pids=()
cleanup() {
  local status=$?
  trap - EXIT
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  [ -z "${remove:-}" ] || rm -rf "$remove"
  exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM
trap '' PIPE # who asks while nobody listens asks again

server_port=$(free_port $((20000 + RANDOM % 8000)))
agent_port=$(free_port $((server_port + 1)))
shell_port=$(free_port $((agent_port + 1)))
qmp_port=$(free_port $((shell_port + 1)))
export BULKHEAD_SERVER=127.0.0.1:$server_port

# One command line in the machine; its output, and whether it did what it should. Between two of them nobody listens for a moment.
in_machine() {
  local output tries
  for tries in $(seq 50); do
    exec 3<>"/dev/tcp/127.0.0.1/$shell_port" || return 1
    printf '{ %s\n} 2>&1; echo "ended with $?"; exit\n' "$1" >&3 2>/dev/null || true
    output=$(timeout 60 cat <&3 2>/dev/null) || true
    exec 3>&-
    case $output in
      *"ended with 0") printf '%s' "${output%ended with*}" && return 0 ;;
      *"ended with "*) printf '%s' "${output%ended with*}" && return 1 ;;
    esac
    sleep 0.1
  done
  return 1
}
# One command to the machine itself.
qmp() {
  exec 4<>"/dev/tcp/127.0.0.1/$qmp_port"
  printf '{"execute":"qmp_capabilities"}\n%s\n' "$1" >&4
  timeout 10 grep --line-buffered -m 2 -E '"(return|error)"' <&4 | tail -n 1 || true
  exec 4>&-
}

### The machine's disk: programs, kernel and image of the guests, what the agent keeps.
disk=$work/disk
rm -rf "$disk" "$work/server"
mkdir -p "$disk"/{dev,proc,sys,tmp,data,etc} "$disk"/usr/{bin,sbin,lib,lib64} "$disk/kernel/boot"
for name in bin sbin lib lib64; do ln -s "usr/$name" "$disk/$name"; done
cp "$busybox" "$disk/bin/busybox"
for applet in sh mount nc sleep tail cat kill pidof ls grep cp echo; do ln -s busybox "$disk/bin/$applet"; done
with_programs "$disk" "$qemu" "$(command -v qemu-img)" "$(command -v mkfs.ext4)" "$(command -v nvme)"
with_thin_pools "$disk"
with_libraries "$disk" "$program"
is_static() { ! ldd "$program" 2>/dev/null | grep -q '=>'; }
if is_static; then say "the agent is a static binary"; else say "the agent is no static binary: its libraries go with it"; fi
strip -o "$disk/bin/bulkhead" "$program"
cp "$guest" "$disk/bin/bulkhead-guest"
cp "$image" "$disk/kernel/boot/"
mkdir -p "$disk/kernel/lib/modules"
cp -r "$kernel_dir/lib/modules/$version" "$disk/kernel/lib/modules/"

# The guests' image: it says that an NVMe controller's driver has taken it, and waits.
mkdir -p "$work/bin"
cp "$busybox" "$work/bin/busybox"
ln -sf busybox "$work/bin/sh"
cat >"$work/bin/look" <<'LOOK'
#!/bin/sh
trap 'exit 0' TERM
is_live() {
  for file in /sys/class/nvme/nvme*/state; do
    if read -r state <"$file" && [ "$state" = live ]; then return 0; fi
  done 2>/dev/null
  return 1
}
until is_live; do /bin/busybox sleep 0.5; done
echo "driver nvme: a controller is live"
while :; do /bin/busybox sleep 3600 & wait $!; done
LOOK
chmod 755 "$work/bin/look"
rm -rf "$work/layout"
umoci init --layout "$work/layout" >/dev/null
umoci new --image "$work/layout:1" >/dev/null
umoci insert --image "$work/layout:1" "$work/bin" /bin >/dev/null
umoci config --image "$work/layout:1" --config.cmd /bin/look >/dev/null
"$program" image import "$work/layout" --tag 1 --name lab/look:1 --data-dir "$disk/data/agent" >/dev/null

# How busy the machine below this one is shall not decide whether a guest is taken for dead; and one whose agent died waits for nothing else.
# A guest boots in 3 to 30 s here; one that hung in its firmware, of two that booted at once on the emulated virtualization, was seen once,
# and is ended and started again as on any node.
patience="--guest-boot-deadline-ms 180000 --guest-silence-ms 600000 --guest-backoff-ms 500"
volumes=${thin:+--volume-group labvg/thin}
cat >"$disk/init" <<END
#!/bin/sh
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
mount -t cgroup2 none /sys/fs/cgroup
echo "+cpu +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
/bin/busybox hostname lab
/bin/busybox ip link set lo up
/bin/busybox ip addr add 10.0.2.15/24 dev eth0
/bin/busybox ip link set eth0 up
/bin/busybox ip route add default via 10.0.2.2
ulimit -l unlimited
: >/tmp/wishes
# A thin pool for volumes, which is there again after a boot; who writes when it is full is told so at once.
if [ -n "$thin" ]; then
  mount -t tmpfs none /run
  [ -e /data/pool.img ] || { /bin/busybox truncate -s 300M /data/pool.img; first=1; }
  /bin/busybox losetup /dev/loop0 /data/pool.img
  if [ -n "\$first" ]; then
    lvm vgcreate labvg /dev/loop0
    lvm lvcreate --type thin-pool --size 200M --name thin labvg
    lvm lvchange --errorwhenfull y labvg/thin
  fi
  lvm vgchange --activate y labvg
fi
while :; do nc -l -p 7600 -e /bin/sh; done &
# An agent that dies is started again, as an init system would. Each life writes down which steps it reaches, and ends at the one
# that the first line of /tmp/wishes names.
life=0
while :; do
  life=\$((life + 1))
  wish=\$(/bin/busybox head -n 1 /tmp/wishes)
  /bin/busybox sed -i 1d /tmp/wishes
  export BULKHEAD_TEST_STEP=log:/tmp/reached.\$life\${wish:+,die:\$wish}
  /bin/bulkhead agent --name lab --data-dir /data/agent --listen 0.0.0.0:7500 --advertise 127.0.0.1:$agent_port \\
    --server 10.0.2.2:$server_port --kernel-dir /kernel --guest /bin/bulkhead-guest --accel auto --cpu 2 --memory 768Mi \\
    --take-devices-from nvme --sriov-devices 1b36:0010 $volumes $patience >>/data/agent.log 2>&1 &
  echo "\$life \$! \${wish:-none}" >/tmp/life
  wait \$!
  echo "\$life \${wish:-none} \$?" >>/tmp/lives
  echo "the agent ended with \$?" >>/data/agent.log
done
END
chmod 755 "$disk/init"
truncate -s 3G "$work/disk.img"
mkfs.ext4 -q -F -E lazy_itable_init=1,root_owner=0:0 -d "$disk" "$work/disk.img"
rm -rf "$disk"

# The initramfs only gets to the disk.
rm -rf "$work/first"
mkdir -p "$work"/first/{bin,dev,proc,sys,modules,root}
cp "$busybox" "$work/first/bin/busybox"
with_modules "$work/first/modules" virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover \
  net_failover virtio_net irqbypass kvm kvm-amd vfio vfio_virqfd vfio_iommu_type1 vfio-pci-core vfio-pci tun $thin
cat >"$work/first/init" <<END
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
for module in$order; do /bin/busybox insmod /modules/\$module.ko; done
/bin/busybox mount -t ext4 /dev/vda /root || echo "no disk"
/bin/busybox umount /dev
exec /bin/busybox switch_root /root /init
END
chmod 755 "$work/first/init"
pack "$work/first" "$work/first.gz"

### The cluster.
"$program" server --id 1 --data-dir "$work/server" --listen "127.0.0.1:$server_port" \
  --initial-cluster "1=127.0.0.1:$server_port" --lease-ms 120000 >"$work/server.log" 2>&1 &
pids+=($!)
await "the server" 60 bulkhead get namespaces
# A controller with functions, on a bus of the second NUMA node, and a card without; both have their own port, so that they can be
# pulled out.
switch_on() {
  # shellcheck disable=SC2046
  "$outer_qemu" "${machine[@]}" -smp 2 -m 2048 $(numa 1024) -initrd "$work/first.gz" -append "$append" -serial "file:$work/machine.log" \
    -qmp "tcp:127.0.0.1:$qmp_port,server=on,wait=off" \
    -drive "file=$work/disk.img,format=raw,if=none,id=disk,cache=unsafe" -device virtio-blk-pci,drive=disk,bus=pcie.0 \
    -netdev "user,id=net,hostfwd=tcp:127.0.0.1:$agent_port-:7500,hostfwd=tcp:127.0.0.1:$shell_port-:7600" \
    -device virtio-net-pci,netdev=net,romfile=,bus=pcie.0 \
    $(controller 1 ,id=nic,sriov_max_vfs=4,sriov_vq_flexible=16,sriov_vi_flexible=8,max_ioqpairs=18,msix_qsize=10 far) \
    $(controller 2 ,id=card pcie.0) \
    </dev/null >>"$work/qemu.log" 2>&1 &
  machine_pid=$!
  pids+=($!)
  say "the machine boots"
}
switch_on
node_is_ready() {
  kill -0 $machine_pid || fail "the machine ended: $(tail -n 3 "$work/qemu.log")"
  bulkhead get nodes -o json | grep -q '"name": "lab"' && bulkhead describe node lab | grep -q Ready
}
await "the node" 600 node_is_ready
runs_on_kvm() { ! bulkhead describe node lab | grep -q 'guests run by emulation'; }
runs_on_kvm || fail "KVM runs no guest in the machine"
say "its agent has joined, and has found that KVM runs guests"

# Where a controller is, by its serial number.
address_of() {
  in_machine "/bin/busybox readlink \$(grep -lx '$1 *' /sys/class/nvme/*/serial | /bin/busybox sed 's|serial|device|')" | grep -o '[^/]*$'
}
nic=$(address_of lab1) && card=$(address_of lab2) || fail "a controller is missing"

### A policy makes functions.
policy() { # how many
  cat <<END
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkNodePolicy
metadata: {name: lab, namespace: default}
spec:
  resourceName: lab
  nodeSelector: {sriov: "true"}
  priority: 10
  numVfs: $1
  nicSelector: {vendor: "1b36", deviceID: "0010"}
  deviceType: vfio-pci
END
}
apply() { bulkhead apply -f - >/dev/null || fail "apply"; }
state() { bulkhead describe sriovnetworknodestate lab; }
state_is() { state | grep -q "$1"; }
printf '%s\n' 'apiVersion: v1' 'kind: ConfigMap' 'metadata: {name: supported-nic-ids, namespace: default}' \
  'data: {nvme: "1b36 0010 0010"}' | apply
bulkhead label node lab sriov=true >/dev/null
policy 2 | apply
await "two functions" 60 state_is Succeeded
state

say "a policy: two functions, bound to vfio-pci"

# Before a driver can use a function of this model, its controller gives it queues and interrupts and brings it online (NVMe base
# specification 1.4, section 8.5).
online() { # number of the function
  in_machine "cd /sys/bus/pci/devices/$nic/nvme; set -e; of=/dev/\$(echo nvme*)
    nvme virt-mgmt \$of -c $1 -a 7; nvme virt-mgmt \$of -c $1 -r 0 -n 2 -a 8; nvme virt-mgmt \$of -c $1 -r 1 -n 2 -a 8
    nvme virt-mgmt \$of -c $1 -a 9" >/dev/null || fail "function $1 cannot be brought online"
}
online 1
online 2

### A pod gets one.
pod() { # name, resource, CPUs of its own if it has any, and another restart policy than Never
  cat <<END
apiVersion: v1
kind: Pod
metadata: {name: $1, namespace: default, annotations: {${3:+cpuset-scheduler: \"true\"}}}
spec:
  restartPolicy: ${4:-Never}
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: lab/look:1
      resources: {limits: {cpu: ${3:-500m}, memory: 64Mi, $2: "1"}}
---
END
}
delete() { # name, and its grace in seconds if it is another than it has itself
  bulkhead delete pod "$1" --wait=false --ignore-not-found ${2:+--grace-period "$2"} >/dev/null || fail "$1 cannot be deleted"
}
sees() { bulkhead logs "$1" | grep -q 'a controller is live'; }
gone() { # not found, by its own exit code
  local code=0
  bulkhead get pod "$1" || code=$?
  [ $code = 3 ]
}
phase() { bulkhead get pod "$1" -o json | sed -n 's/.*"phase": "\([A-Za-z]*\)".*/\1/p' | head -n 1; }
phase_is() { [ "$(phase "$1")" = "$2" ]; }
driver() { in_machine "ls -l /sys/bus/pci/devices/$1/driver" | grep -o '[^/]*$' | head -n 1; }
guests() { in_machine 'pidof qemu-system-x86_64' | tr ' ' '\n' | sort -n | xargs; }
# shellcheck source=scripts/lab-kills.sh
. "$root/scripts/lab-kills.sh"

# The agent writes down what the life of one pod reaches. The pod has a CPU of its own, and so its memory where its function is.
before=$(reached)
pod near ecnf.io/lab 1 | apply
await "the first guest's view of its function" 600 sees near
say "a guest in the machine: its own driver has the function"
plan_start "$before"
bulkhead describe pod near | grep -iE 'cpus|numa' || true
far_memory=$(in_machine 'grep " bind:1 " /proc/$(pidof qemu-system-x86_64)/numa_maps') || fail "no memory of its guest is bound to NUMA node 1"
grep -q ' N1=' <<<"$far_memory" && ! grep -q ' N0=' <<<"$far_memory" || fail "the guest's memory is elsewhere: $far_memory"
say "its memory is on the function's NUMA node: $(grep -o 'N1=[0-9]*' <<<"$far_memory" | xargs) pages"
before=$(reached)
delete near
await "the end of near" 60 gone near
plan_end "$before"

first() { pod first ecnf.io/lab | apply; }
kills_of_start

### Two want the last one.
{ pod left ecnf.io/lab; pod right ecnf.io/lab; } | apply
bound() { bulkhead get pods -o wide | grep -cE '^(left|right) .* lab( |$)'; }
one_waits() { [ "$(bound)" = 1 ] && bulkhead get pods | grep -E '^(left|right) ' | grep -q Unschedulable; }
await "one of two pods" 60 one_waits
if bulkhead get pods -o wide | grep -E '^left ' | grep -q ' lab'; then winner=left loser=right; else winner=right loser=left; fi
bulkhead describe pod $loser | grep -i insufficient || fail "$loser does not say what it waits for"
delete $winner
await "the end of $winner" 60 gone $winner
await "the function of $winner in the guest of $loser" 600 sees $loser
say "two pods, one function: one waits, and gets it after the other, reset"

### An agent dies under its guests.
joins() { [ "$(grep -c 'agent joined' "$work/server.log")" -ge "$1" ]; }
before=$(guests)
joined=$(grep -c 'agent joined' "$work/server.log")
wish ""
await "the next agent" 120 joins $((joined + 1))
await "the first pod after it" 60 phase_is first Running
[ "$(guests)" = "$before" ] || fail "the guests were $before, and are $(guests)"
say "an agent that is killed leaves its guests running, and the next one has them"

### Another policy while functions are in use.
policy 3 | apply
await "a NIC that is blocked" 60 state_is Blocked
state_is first || fail "the state does not name who holds the functions"
[ "$(guests)" = "$before" ] || fail "a policy ended guests"
delete $loser
await "the end of $loser" 60 gone $loser
kills_of_end
await "three functions" 120 state_is ' 3/4 '
[ "$(driver ${nic%0}3)" = vfio-pci ] || fail "the third function is bound to $(driver ${nic%0}3)"
say "a policy waits for the pods that have functions, and then goes through"
check_lives

### A volume in the thin pool.
claim() { # name, size
  printf '%s\n' 'apiVersion: v1' 'kind: PersistentVolumeClaim' "metadata: {name: $1, namespace: default}" \
    "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: $2}}}" --- | apply
}
with_volumes() { # name, what it does, claims ...
  local name=$1 script=$2 claim volumes="" mounts=""
  shift 2
  for claim in "$@"; do
    volumes+="{name: $claim, persistentVolumeClaim: {claimName: $claim}}, "
    mounts+="{name: $claim, mountPath: /$claim}, "
  done
  cat <<END
apiVersion: v1
kind: Pod
metadata: {name: $name, namespace: default}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [$volumes]
  containers:
    - name: main
      image: lab/look:1
      command: [/bin/sh, -c, '$script']
      volumeMounts: [$mounts]
      resources: {limits: {cpu: 250m, memory: 64Mi}}
---
END
}
says() { bulkhead logs "$1" | grep -q "$2"; }
explains() { bulkhead describe pod "$1" | grep -q "$2"; }
volumes_of_lvm() { in_machine 'lvm lvs --noheadings --options lv_name labvg' | grep bulkhead; }
no_volumes() { [ -z "$(volumes_of_lvm)" ]; }
if [ -n "$thin" ]; then
  claim kept 64Mi
  size='set -- $(/bin/busybox df -k /kept | /bin/busybox tail -n 1)'
  stays='trap "exit 0" TERM; while :; do /bin/busybox sleep 1; done'
  with_volumes writes "echo kept >/kept/word; /bin/busybox sync; $size; echo wrote, of \$2; first=\$2; \
    while [ \$2 -lt \$((first + 30000)) ]; do /bin/busybox sleep 0.2; $size; done; echo grown to \$2; $stays" kept | apply
  await "a word in the volume" 300 says writes wrote
  claim kept 128Mi
  await "a volume that grows under its guest" 120 says writes grown
  delete writes
  await "the end of writes" 60 gone writes
  # What is written is more than the pool has, and not more than it may promise.
  claim one 120Mi
  claim two 120Mi
  fill='/bin/busybox dd if=/dev/zero of=/$to/all bs=1M count=100 conv=fsync || exit 1'
  with_volumes fills "read word </kept/word; echo found \$word; for to in one two; do $fill; done; echo filled" kept one two | apply
  await "the word in the next guest" 300 says fills 'found kept'
  await "a guest that stands still" 300 explains fills 'found no room on the node'
  phase_is fills Running || fail "the guest without room is $(phase fills)"
  in_machine 'lvm lvextend --size +60M labvg/thin' >/dev/null || fail "the pool cannot be extended"
  await "a guest that goes on" 120 says fills filled
  delete fills
  await "the end of fills" 60 gone fills
  for name in kept one two; do bulkhead delete pvc $name --wait=false >/dev/null; done
  await "a thin pool without volumes" 60 no_volumes
  say "volumes in a thin pool of LVM: grown under a guest, read by the next one, which stood still while the pool was full; gone with their claims"
fi

### A card is pulled out under its pod.
cat <<'END' | apply
apiVersion: bulkhead.io/v1
kind: DeviceClass
metadata: {name: lab-card}
spec: {extendedResourceName: lab.example.com/card, selector: {vendors: ["1b36"], classes: ["0108"]}}
END
pod card lab.example.com/card | apply
online 1
pod other ecnf.io/lab | apply
await "the card in its guest" 600 sees card
await "the function in the other guest" 600 sees other
[ "$(driver $card)" = vfio-pci ] || fail "the card is bound to $(driver $card)"
qmp '{"execute":"device_del","arguments":{"id":"card"}}' | grep -q return || fail "device_del"
await "the end of the pod with the card" 180 phase_is card Failed
bulkhead get pod card -o json | grep -i '"reason"' || true
phase_is other Running || fail "the other pod is $(phase other)"
node_is_ready || fail "the node is not ready"
say "a card that is pulled out fails its pod, and no other"

### The machine loses its power.
delete card
await "the end of card" 60 gone card
online 2
pod again ecnf.io/lab "" Always | apply
await "the function in a guest that is to come again" 120 sees again
joined=$(grep -c 'agent joined' "$work/server.log")
kill -KILL $machine_pid
wait $machine_pid 2>/dev/null || true
switch_on
await "the agent of the next boot" 300 joins $((joined + 1))
await "the end of the pod that is not started again" 120 phase_is other Failed
runs_again() { phase_is again Running && bulkhead describe pod again | grep -qE '^Guest restarts: +1$'; }
await "the pod that is started again" 300 runs_again
await "the functions after a boot" 120 state_is ' 3/4 '
state_is Succeeded || fail "the policy is not as it was: $(state)"
[ "$(guests | wc -w)" = 1 ] || fail "the machine has the guests $(guests)"
held=$(in_machine 'grep -ho "0000:[0-9a-f:.]*" /proc/$(pidof qemu-system-x86_64)/cmdline' | head -n 1)
[ -n "$held" ] && [ "$(driver "$held")" = vfio-pci ] || fail "the guest has no function"
say "after a power cut the machine's functions are there again, and the pod that is to run has one in a new guest"

### Everything is given back.
delete other
delete again
await "the end of other" 60 gone other
await "the end of again" 60 gone again
[ -z "$(guests)" ] || fail "guests are left: $(guests)"
left=$(in_machine 'ls /data/agent/pods /data/agent/devices; echo' | grep -v -e '^/' -e '^$' -e quarantine || true)
[ -z "$left" ] || fail "the agent keeps $left"
say "not done here: no network card (MTU, MAC, VLAN)"
echo "lab: ok"
