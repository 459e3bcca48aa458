#!/usr/bin/env bash
# The demo: three servers, two agents, a Deployment of guest VMs, a rollout, and a leader killed in its middle.
#   scripts/demo.sh <bulkhead>
# Ends with `demo: ok`, and leaves nothing running.
set -euo pipefail

bulkhead=$(realpath "${1:?usage: scripts/demo.sh <bulkhead>}")
root=$(cd "$(dirname "$0")/.." && pwd)
kernel_dir=${BULKHEAD_KERNEL_DIR:?run it as make demo}
guest=${BULKHEAD_GUEST:?run it as make demo}
work=$(mktemp -d -t bulkhead-demo.XXXXXX)
declare -A pids=()
started_ms=$(date +%s%3N)
timeline=()

say() { printf '\n== %s\n' "$*"; }
mark() { # what: noted with the log's last revision and the time since the start
  local ms=$(($(date +%s%3N) - started_ms)) revision
  revision=$("$bulkhead" --timeout 2s events -A --limit 1 --json 2>/dev/null | sed -n 's/.*"revision":\([0-9]*\).*/\1/p' | tail -n 1 || true)
  timeline+=("$(printf '%-52s %10s %9d' "$1" "${revision:--}" "$ms")")
}
fail() {
  echo "demo: failed: $*" >&2
  for log in "$work"/*.log; do
    echo "--- $(basename "$log")" >&2
    tail -n 20 "$log" >&2
  done
  exit 1
}

cleanup() {
  local status=$?
  trap - EXIT
  # Agents first: they end their guests only when told to, so the pods go before them (see the end).
  for name in "${!pids[@]}"; do kill -TERM "${pids[$name]}" 2>/dev/null || true; done
  for name in "${!pids[@]}"; do wait "${pids[$name]}" 2>/dev/null || true; done
  # Guests outlive their agents on purpose; the demo's own must not outlive it.
  for pid in $(pgrep -f "qemu-system.*$work/" || true); do
    kill -KILL "$pid" 2>/dev/null || true
    status=1
    echo "demo: a guest was left running ($pid)" >&2
  done
  rm -rf "$work"
  exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# shellcheck source=scripts/await.sh
. "$root/scripts/await.sh"

say "building an image on the spot"
"$root/scripts/demo-image.sh" "$work" >/dev/null
mark "image built"

say "starting three servers"
port=$((20000 + RANDOM % 8000))
addresses=()
for id in 1 2 3; do
  port=$(free_port "$port")
  addresses+=("127.0.0.1:$port")
  port=$((port + 1))
done
cluster="1=${addresses[0]},2=${addresses[1]},3=${addresses[2]}"
BULKHEAD_SERVER=$(IFS=,; echo "${addresses[*]}")
export BULKHEAD_SERVER
for id in 1 2 3; do
  "$bulkhead" server --id $id --data-dir "$work/server-$id" --listen "${addresses[$((id - 1))]}" \
    --initial-cluster "$cluster" >"$work/server-$id.log" 2>&1 &
  pids[server-$id]=$!
done
await "a leader" 60 "$bulkhead" get namespaces
mark "three servers, one leads"

say "starting two agents, and giving them the image"
for n in 1 2; do
  for tag in v1 v2; do
    "$bulkhead" image import "$work/layout" --tag $tag --name demo/web:$tag --data-dir "$work/agent-$n" >/dev/null
  done
  port=$(free_port "$port")
  "$bulkhead" agent --name node-$n --data-dir "$work/agent-$n" --listen "127.0.0.1:$port" --server "$BULKHEAD_SERVER" \
    --kernel-dir "$kernel_dir" --guest "$guest" --accel "${BULKHEAD_ACCEL:-auto}" --cpu 4 --memory 2Gi >"$work/agent-$n.log" 2>&1 &
  pids[agent-$n]=$!
  port=$((port + 1))
done
ready_nodes() { [ "$("$bulkhead" get nodes -o json | grep -c '"name": "node-')" -ge 2 ]; }
await "two nodes" 180 ready_nodes
"$bulkhead" get nodes
mark "two nodes joined"

say "applying examples/web.yaml"
"$bulkhead" apply -f "$root/examples/web.yaml"
"$bulkhead" rollout status deployment/web --timeout 180s || fail "the first rollout did not complete"
"$bulkhead" get pods -o wide
mark "web v1: two guests run"

say "what the guests say"
for pod in $("$bulkhead" get pods -o name); do
  says() { "$bulkhead" logs "${pod#*/}" | grep -q 'from web v1'; }
  await "output of $pod" 60 says
  "$bulkhead" logs --tail 2 "${pod#*/}"
done
mark "both guests' output"

say "rolling to v2 with maxUnavailable 0, and killing the leader in the middle"
sed 's|demo/web:v1|demo/web:v2|' "$root/examples/web.yaml" >"$work/web-v2.yaml"
"$bulkhead" apply -f "$work/web-v2.yaml"
mark "web v2 applied"
rolling() { [ "$("$bulkhead" get replicasets -o name | wc -l)" -ge 2 ]; }
await "the second ReplicaSet" 60 rolling
leader=$("$bulkhead" member list -o json | tr -d ' \n' | sed 's/},{/}\n{/g' | grep '"leader":true' | sed -n 's/.*"id":\([0-9]*\).*/\1/p' | head -n 1)
[ -n "$leader" ] || fail "nobody leads"
kill -KILL "${pids[server-$leader]}"
wait "${pids[server-$leader]}" 2>/dev/null || true
unset "pids[server-$leader]"
BULKHEAD_SERVER=$(for id in 1 2 3; do [ $id = "$leader" ] || echo "${addresses[$((id - 1))]}"; done | paste -sd,)
mark "leader (server $leader) killed with SIGKILL"
await "another leader" 60 "$bulkhead" get namespaces
mark "another leader answers"
"$bulkhead" rollout status deployment/web --timeout 240s || fail "the rollout did not complete"
"$bulkhead" get pods -o wide
mark "web v2: rollout complete"
# A rollout is complete when the new pods serve; old ones may still use up their grace.
only_new() { [ "$("$bulkhead" get pods -o name | wc -l)" -eq 2 ]; }
await "the end of the last old pod" 60 only_new
for pod in $("$bulkhead" get pods -o name); do
  says() { "$bulkhead" logs "${pod#*/}" | grep -q 'from web v2'; }
  await "output of $pod" 60 says
  "$bulkhead" logs --tail 1 "${pod#*/}"
done
mark "both new guests' output"

say "what the log says of it"
"$bulkhead" events --for deployment/web --limit 12
"$bulkhead" debug check
"$bulkhead" delete deployment web
gone() { [ -z "$("$bulkhead" get pods -o name)" ]; }
await "the end of the last pod" 120 gone
mark "everything deleted"

say "timeline"
printf '%-52s %10s %9s\n' WHAT REVISION MS
printf '%s\n' "${timeline[@]}"
for name in "${!pids[@]}"; do kill -TERM "${pids[$name]}"; done
for name in "${!pids[@]}"; do
  wait "${pids[$name]}" || fail "$name did not end well"
  unset "pids[$name]"
done
[ -z "$(pgrep -f "qemu-system.*$work/" || true)" ] || fail "a guest was left running"
echo
echo "demo: ok"
