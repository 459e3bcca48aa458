# What scripts wait with; they source it with fail() defined.
# shellcheck shell=bash

cores=$(nproc)

# Seconds of a quiet machine that passed since a time in microseconds, in microseconds: where more wants to run than there are cores, time
# counts in proportion. So a deadline tells of what does not come, and not of who else uses the machine.
quiet_us() { # since
  local load now=${EPOCHREALTIME/[.,]/}
  read -r load _ </proc/loadavg
  load=$((10#${load/./}))
  [ "$load" -gt $((cores * 100)) ] || load=$((cores * 100))
  echo $(((now - $1) * cores * 100 / load))
}

await() { # what, seconds of a quiet machine, command ...
  local what=$1 left_us=$(($2 * 1000000)) since
  shift 2
  since=${EPOCHREALTIME/[.,]/}
  until "$@" >/dev/null 2>&1; do
    left_us=$((left_us - $(quiet_us "$since")))
    [ "$left_us" -gt 0 ] || fail "$what did not come in time"
    since=${EPOCHREALTIME/[.,]/}
    sleep 0.2
  done
}

free_port() { # the first port from $1 on that nobody listens on
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}
