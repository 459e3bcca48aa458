#!/usr/bin/env bash
# First figures: three local servers beside three local etcd members, with the same clients, concurrency and value
# size, in turn in one run; then one server with a million pods, the reconcilers alone, the simulator's speed, and pod start beside a bare
# boot of the same kernel and initramfs.
#   scripts/bench.sh <bulkhead> [name prefix]      results: target/bench/results.jsonl
# Names: log.unary.c1|c16|c64|c256.throughput|.p99, log.stream.throughput, failover.next_ack, recover.restart_1m_pods,
# recover.replay, snapshot.apply_pause_1m_pods, memory.per_pod_1m, reconcile.one_change_100k_pods, reconcile.rollout_1000,
# sched.*, e2e.bind_100k_pods_5k_nodes, sim.speed, agent.start_100_stub, agent.memory_per_vm, pod_start.bound_to_output,
# pod_start.from_pool, pod_start.from_template.
set -euo pipefail

bulkhead=$(realpath "${1:?usage: scripts/bench.sh <bulkhead> [prefix]}")
only=${2:-}
root=$(cd "$(dirname "$0")/.." && pwd)
results=$root/target/bench/results.jsonl
mkdir -p "$(dirname "$results")"
work=$(mktemp -d "$root/target/bench/run.XXXXXX") # the disk of the checkout, not a memory file system
kills=9 # of each leader; the figure is the median
restart_after=4 # seconds: longer than any election

# Every process is started by a file of its own, so that a killed one can be started again the same way. The file
# says the process id, which outlives the shell that started it.
start() {
  local name=$1
  shift
  printf '%q ' "$@" >"$work/$name.cmd"
  cat >"$work/$name.start" <<END
exec >>"$work/$name.log" 2>&1
echo \$\$ >"$work/$name.pid"
exec $(cat "$work/$name.cmd")
END
  sh "$work/$name.start" &
}

# The shell command that kills a process and starts it again a while later.
kill_command() {
  echo "kill -KILL \$(cat $work/$1.pid) || exit 1
    (sleep $restart_after; [ -e $work/stopping ] || exec sh $work/$1.start) >/dev/null 2>&1 </dev/null &"
}

stop() {
  local name pid
  for name in "$@"; do
    [ ! -e "$work/$name.pid" ] || kill -TERM "$(cat "$work/$name.pid")" 2>/dev/null || true
  done
  for name in "$@"; do
    [ -e "$work/$name.pid" ] || continue
    pid=$(cat "$work/$name.pid")
    # One that ended may stay as a zombie until somebody waits for it.
    for _ in $(seq 200); do grep -qs '^State:[[:space:]]*[^Z]' "/proc/$pid/status" || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
  done
}

cleanup() {
  local status=$?
  trap - EXIT
  touch "$work/stopping"
  stop server-{1,2,3} etcd-{1,2,3} stub-agent agent
  wait 2>/dev/null || true
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

wants() { # whether a figure whose name begins so is asked for
  [[ $1 == "$only"* || $only == "$1"* ]]
}

start_servers() {
  for id in 1 2 3; do
    # The same times as etcd's defaults: heartbeat 100 ms, election 1000 ms.
    start server-$id "$bulkhead" server --id $id --data-dir "$work/server-$id" --listen "127.0.0.1:$((base + id))" \
      --initial-cluster "$cluster" --tick-ms 100 --election-ticks 10
  done
  until "$bulkhead" get namespaces >/dev/null 2>&1; do sleep 0.2; done
}

start_etcd() {
  local members=""
  for id in 1 2 3; do members+="${members:+,}m$id=http://127.0.0.1:$((base + 20 + id))"; done
  for id in 1 2 3; do
    start etcd-$id etcd --name m$id --data-dir "$work/etcd-$id" \
      --listen-client-urls "http://127.0.0.1:$((base + 10 + id))" \
      --advertise-client-urls "http://127.0.0.1:$((base + 10 + id))" --listen-peer-urls "http://127.0.0.1:$((base + 20 + id))" \
      --initial-advertise-peer-urls "http://127.0.0.1:$((base + 20 + id))" --initial-cluster "$members" \
      --initial-cluster-state new --log-level error
  done
  for id in 1 2 3; do
    until (exec 3<>"/dev/tcp/127.0.0.1/$((base + 10 + id))") 2>/dev/null; do sleep 0.2; done
  done
}

if wants log. || wants failover.; then
  start_servers
  start_etcd
  etcd_servers="127.0.0.1:$((base + 11)),127.0.0.1:$((base + 12)),127.0.0.1:$((base + 13))"
  # shellcheck disable=SC2016 # the benchmark sets both variables
  "$bulkhead" bench compare --etcd "$etcd_servers" --only "$only" --results "$results" --kills $kills \
    --kill-cmd "$(kill_command 'server-$LEADER_ID')" \
    --etcd-kill-cmd "$(kill_command 'etcd-$((${LEADER_ADDRESS##*:} - '$((base + 10))'))')"
  sleep $((restart_after + 1)) # the last one that was killed comes back first
  stop etcd-{1,2,3}
fi

if wants recover. || wants snapshot. || wants memory.; then
  stop server-{1,2,3}
  "$bulkhead" bench scale --work-dir "$work/scale" --only "$only" --results "$results"
  rm -rf "$work/scale"
fi

if wants reconcile.; then
  "$bulkhead" bench reconcile --only "$only" --results "$results"
fi

if wants sched.; then
  "$bulkhead" bench sched --only "$only" --results "$results"
fi

if wants e2e.; then
  stop server-{1,2,3}
  rm -rf "$work"/server-{1,2,3}
  start_servers
  "$bulkhead" bench bind --results "$results"
  # What follows shall not find its nodes.
  stop server-{1,2,3}
  rm -rf "$work"/server-{1,2,3}
fi

if wants sim.; then
  speed=$("${CARGO:-cargo}" run --quiet --release --locked -p simulations -- --speed --quiet | tee /dev/stderr |
    sed -nE 's/.*[^0-9.]([0-9][0-9.]*) *(x|×|times) real time.*/\1/p' | tail -n 1)
  [ -n "$speed" ] || { echo "the simulator did not print its speed" >&2; exit 1; }
  printf '{"name":"sim.speed","value":%s,"unit":"x real time","peer":null,"peer_value":null,"ratio":null,"cores":%s,"date":"%s"}\n' \
    "$speed" "$(nproc)" "$(date -u +%F)" | tee -a "$results"
fi

if wants agent.; then
  # A hundred guests without machines: the stand-in has QEMU's switches and sockets, and says what a guest would.
  "${CARGO:-cargo}" build --quiet --release --locked -p bulkhead-tests --bin stand-in-qemu
  ln -sf "$(dirname "$bulkhead")/stand-in-qemu" "$work/qemu-system-stand-in" # by this name they are found and ended
  stop server-{1,2,3}
  rm -rf "$work"/server-{1,2,3}
  start_servers
  "$root/scripts/demo-image.sh" "$work" >/dev/null
  "$bulkhead" image import "$work/layout" --tag v1 --name demo/web:v1 --data-dir "$work/stub-agent" >/dev/null
  start stub-agent "$bulkhead" agent --name stub --data-dir "$work/stub-agent" --listen "127.0.0.1:$((base + 31))" \
    --server "$servers" --kernel-dir "${BULKHEAD_KERNEL_DIR:?run it as make bench}" --guest "${BULKHEAD_GUEST:?run it as make bench}" \
    --qemu "$work/qemu-system-stand-in" --accel tcg --cpu 64 --memory 64Gi
  until "$bulkhead" get node stub >/dev/null 2>&1; do sleep 0.2; done
  "$bulkhead" bench agent-start --pid "$(cat "$work/stub-agent.pid")" --image demo/web:v1 --results "$results"
  # What follows shall not find its node.
  stop stub-agent server-{1,2,3}
  rm -rf "$work"/server-{1,2,3}
fi

if wants pod_start.; then
  [ -e "$work/server-1.pid" ] && kill -0 "$(cat "$work/server-1.pid")" 2>/dev/null || start_servers
  "$root/scripts/demo-image.sh" "$work" >/dev/null
  "$bulkhead" image import "$work/layout" --tag v1 --name demo/web:v1 --data-dir "$work/agent" >/dev/null
  start agent "$bulkhead" agent --name bench --data-dir "$work/agent" --listen "127.0.0.1:$((base + 30))" --server "$servers" \
    --kernel-dir "${BULKHEAD_KERNEL_DIR:?run it as make bench}" --guest "${BULKHEAD_GUEST:?run it as make bench}" \
    --cpu 4 --memory 4Gi
  until "$bulkhead" get node bench >/dev/null 2>&1; do sleep 0.2; done
  # The bare boot: the same kernel, initramfs, kernel arguments and machine, until init's first line; its disk is empty and its network
  # card leads nowhere.
  asset() { find "$work/agent/boot" -type f -name "$1*" 2>/dev/null | head -n 1; }
  until [ -n "$(asset init)" ] && [ -n "$(asset vmlinuz)$(asset kernel)" ]; do sleep 0.2; done
  kernel=$(asset vmlinuz)
  kernel=${kernel:-$(asset kernel)}
  initrd=$(asset init)
  arguments=$(sed -n '/^pub const KERNEL_ARGS/,/;$/p' "$root/nodeagent/src/boot/mod.rs" | tr -d '\\\n' | sed 's/.*"\(.*\)".*/\1/; s/  */ /g')
  qemu-img create -q -f qcow2 "$work/bare.qcow2" 1G
  bare="exec qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp cpus=1,maxcpus=8 -m size=195M,maxmem=5315M \
    -kernel $kernel -initrd $initrd -append '$arguments' -nodefaults -no-user-config -nographic -serial stdio -no-reboot \
    -device virtio-serial-pci -chardev null,id=c0 -device virtserialport,chardev=c0,name=org.bulkhead.guest.0 \
    -blockdev driver=qcow2,node-name=file0,file.driver=file,file.filename=$work/bare.qcow2 -device virtio-blk-pci,drive=file0 \
    -netdev user,restrict=on,id=net0 -device virtio-net-pci,netdev=net0,romfile= \
    -object memory-backend-ram,id=vmem0-ram,size=4096M,reserve=off -device virtio-mem-pci,id=vmem0,memdev=vmem0-ram,requested-size=0 \
    -device virtio-balloon-pci"
  "$bulkhead" bench pod-start --image demo/web:v1 --runs 5 --bare-cmd "$bare" --bare-marker "listening on" --results "$results"
  if wants pod_start.from_pool; then
    stop agent
    start agent "$bulkhead" agent --name bench --data-dir "$work/agent" --listen "127.0.0.1:$((base + 30))" --server "$servers" \
      --kernel-dir "$BULKHEAD_KERNEL_DIR" --guest "$BULKHEAD_GUEST" --cpu 4 --memory 4Gi --vm-pool 1
    "$bulkhead" bench pod-start --image demo/web:v1 --runs 5 --pool "$work/agent/vm-pool" --bare-cmd "$bare" \
      --bare-marker "listening on" --results "$results"
  fi
  if wants pod_start.from_template; then
    stop agent
    start agent "$bulkhead" agent --name bench --data-dir "$work/agent" --listen "127.0.0.1:$((base + 30))" --server "$servers" \
      --kernel-dir "$BULKHEAD_KERNEL_DIR" --guest "$BULKHEAD_GUEST" --cpu 4 --memory 4Gi --memory-sharing template
    "$bulkhead" bench pod-start --image demo/web:v1 --runs 5 --templates "$work/agent/vm-templates.json" --bare-cmd "$bare" \
      --bare-marker "listening on" --results "$results"
  fi
fi
echo "results: $results"
