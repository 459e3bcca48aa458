#!/usr/bin/env bash
# First figures: three local servers beside three local etcd members, with the same clients, concurrency and value
# size, in turn in one run; then pod start beside a bare boot of the same kernel and initramfs.
#   scripts/bench.sh <bulkhead> [name prefix]      results: target/bench/results.jsonl
# Names: log.unary.c1|c16|c64|c256.throughput|.p99, log.stream.throughput, failover.next_ack,
# pod_start.bound_to_output.
set -euo pipefail

bulkhead=$(realpath "${1:?usage: scripts/bench.sh <bulkhead> [prefix]}")
only=${2:-}
root=$(cd "$(dirname "$0")/.." && pwd)
results=$root/target/bench/results.jsonl
mkdir -p "$(dirname "$results")"
work=$(mktemp -d "$root/target/bench/run.XXXXXX") # the disk of the checkout, not a memory file system
declare -A pids=()

cleanup() {
  local status=$?
  trap - EXIT
  for name in "${!pids[@]}"; do kill -TERM "${pids[$name]}" 2>/dev/null || true; done
  for name in "${!pids[@]}"; do wait "${pids[$name]}" 2>/dev/null || true; done
  for pid in $(pgrep -f "qemu-system.*$work/" || true); do kill -KILL "$pid" 2>/dev/null || true; done
  [ $status = 0 ] || tail -n 5 "$work"/*.log >&2
  rm -rf "$work"
  exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

base=$((20000 + RANDOM % 8000))
servers="127.0.0.1:$((base + 1)),127.0.0.1:$((base + 2)),127.0.0.1:$((base + 3))"
cluster="1=127.0.0.1:$((base + 1)),2=127.0.0.1:$((base + 2)),3=127.0.0.1:$((base + 3))"
export BULKHEAD_SERVER=$servers

start_servers() {
  for id in 1 2 3; do
    # The same times as etcd's defaults: heartbeat 100 ms, election 1000 ms.
    "$bulkhead" server --id $id --data-dir "$work/server-$id" --listen "127.0.0.1:$((base + id))" \
      --initial-cluster "$cluster" --tick-ms 100 --election-ticks 10 >"$work/server-$id.log" 2>&1 &
    pids[server-$id]=$!
    echo $! >"$work/server-$id.pid"
  done
  until "$bulkhead" get namespaces >/dev/null 2>&1; do sleep 0.2; done
}

start_etcd() {
  local members=""
  for id in 1 2 3; do members+="${members:+,}m$id=http://127.0.0.1:$((base + 20 + id))"; done
  for id in 1 2 3; do
    etcd --name m$id --data-dir "$work/etcd-$id" --listen-client-urls "http://127.0.0.1:$((base + 10 + id))" \
      --advertise-client-urls "http://127.0.0.1:$((base + 10 + id))" --listen-peer-urls "http://127.0.0.1:$((base + 20 + id))" \
      --initial-advertise-peer-urls "http://127.0.0.1:$((base + 20 + id))" --initial-cluster "$members" \
      --initial-cluster-state new --log-level error >"$work/etcd-$id.log" 2>&1 &
    pids[etcd-$id]=$!
    echo $! >"$work/etcd-$((base + 10 + id)).pid"
  done
  for id in 1 2 3; do
    until (exec 3<>"/dev/tcp/127.0.0.1/$((base + 10 + id))") 2>/dev/null; do sleep 0.2; done
  done
}

start_servers
if [[ log. == "$only"* || failover. == "$only"* || $only == log* || $only == failover* ]]; then
  start_etcd
  etcd_servers="127.0.0.1:$((base + 11)),127.0.0.1:$((base + 12)),127.0.0.1:$((base + 13))"
  "$bulkhead" bench compare --etcd "$etcd_servers" --only "$only" --results "$results" \
    --kill-cmd "kill -KILL \$(cat $work/server-\$LEADER_ID.pid)" \
    --etcd-kill-cmd "kill -KILL \$(cat $work/etcd-\${LEADER_ADDRESS##*:}.pid)"
  for id in 1 2 3; do
    kill -TERM "${pids[etcd-$id]}" 2>/dev/null || true
    wait "${pids[etcd-$id]}" 2>/dev/null || true
    unset "pids[etcd-$id]"
  done
fi

if [[ pod_start. == "$only"* || $only == pod_start* ]]; then
  "$root/scripts/demo-image.sh" "$work" >/dev/null
  "$bulkhead" image import "$work/layout" --tag v1 --name demo/web:v1 --data-dir "$work/agent" >/dev/null
  "$bulkhead" agent --name bench --data-dir "$work/agent" --listen "127.0.0.1:$((base + 30))" --server "$servers" \
    --kernel-dir "${BULKHEAD_KERNEL_DIR:?run it as make bench}" --guest "${BULKHEAD_GUEST:?run it as make bench}" \
    --cpu 4 --memory 4Gi >"$work/agent.log" 2>&1 &
  pids[agent]=$!
  until "$bulkhead" get node bench >/dev/null 2>&1; do sleep 0.2; done
  # The bare boot: the same kernel, initramfs, kernel arguments and machine, until init's first line.
  asset() { find "$work/agent/boot" -type f -name "$1*" 2>/dev/null | head -n 1; }
  until [ -n "$(asset init)" ] && [ -n "$(asset vmlinuz)$(asset kernel)" ]; do sleep 0.2; done
  kernel=$(asset vmlinuz)
  kernel=${kernel:-$(asset kernel)}
  initrd=$(asset init)
  arguments=$(sed -n '/^pub const KERNEL_ARGS/,/;$/p' "$root/nodeagent/src/boot/mod.rs" | tr -d '\\\n' | sed 's/.*"\(.*\)".*/\1/; s/  */ /g')
  bare="exec qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 1 -m 162 -kernel $kernel -initrd $initrd \
    -append '$arguments' -nodefaults -no-user-config -nographic -serial stdio -no-reboot -device virtio-serial-pci \
    -chardev null,id=c0 -device virtserialport,chardev=c0,name=org.bulkhead.guest.0"
  "$bulkhead" bench pod-start --image demo/web:v1 --runs 5 --bare-cmd "$bare" --bare-marker "listening on" --results "$results"
fi
echo "results: $results"
