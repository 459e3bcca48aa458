# The part of scripts/lab-agent.sh in which the agent dies at every step of a pod's start and end; that script sources it.
# shellcheck shell=bash disable=SC2154
#
# Which steps there are says the agent itself: it writes down what it reaches (nodeagent/src/steps.rs). As a nested guest takes its time, one
# pod goes through as many deaths as it can: the next life goes on from where the last one ended. Where a life goes past its step, as one that
# finds a guest does not start it again, it gets another pod.

# What the agent's present life reached: its number, process and wish, and then a line for each step.
life() { in_machine 'read n rest </tmp/life; echo "$n $rest"; cat /tmp/reached.$n 2>/dev/null; true'; }
is_life() { [ "$(life | head -n 1 | cut -d " " -f 1)" -ge "$1" ]; }
# Ends this life, and the next one has the first of these wishes; its number is in $number.
wish() {
  number=$(in_machine "printf '%s\n' $* >/tmp/wishes; read n pid rest </tmp/life; kill -9 \$pid && echo \$((n + 1))") ||
    fail "the agent cannot be killed"
  await "life $number of the agent" 120 is_life "$number"
}

# Steps, in the order in which they were reached, as <step>:<count>.
counted() { awk 'NF == 2 { print $1 ":" ++seen[$1] }'; }
# All of them, or with LAB_KILLS_OF=4 every fourth: others for every LAB_KILLS_BY, such as a commit.
some() {
  local of=${LAB_KILLS_OF:-1}
  awk -v of="$of" -v at=$(($(cksum <<<"${LAB_KILLS_BY:-}" | cut -d ' ' -f 1) % of)) 'NR % of == at'
}
# The same where what one life did needs no doing by the next: each time is the first one.
each_first() { sed 's/:.*/:1/'; }

# Waits until each wish was a life's last. A life that goes past its step has a pod made for it that it can begin with; that is told by a
# command of a wish and of what was reached.
chain() { # command that tells, command that makes such a pod
  local is_past=$1 again=$2 now last="" number pid wished reached of_step left_us=0 since
  local of_life=0 from=0
  pods=1
  while :; do
    since=${EPOCHREALTIME/[.,]/}
    now=$(life) || now=$last
    read -r number pid wished <<<"$now"
    [ "$wished" != none ] || return 0
    [ "$now" = "$last" ] || left_us=300000000
    last=$now
    reached=$(tail -n +2 <<<"$now" | tail -n "+$((1 + (number == of_life ? from : 0)))" | cut -d ' ' -f 1)
    # A life that has reached its step as often as it was told to is dying.
    of_step=$(tail -n +2 <<<"$now" | cut -d ' ' -f 1 | grep -cx "${wished%%:*}") || true
    if [ "$of_step" -lt "${wished##*:}" ] && $is_past "$wished" "$reached"; then
      [ "$number" != "$of_life" ] || fail "no life reaches $wished; this one reached: $now"
      delete first 1
      await "the end of first" 300 gone first
      of_life=$number
      from=$(reached)
      pods=$((pods + 1))
      $again
    else
      sleep 0.3
    fi
    left_us=$((left_us - $(quiet_us "$since")))
    [ "$left_us" -gt 0 ] || fail "life $number of the agent neither reaches $wished nor gets past it; it reached: $now"
  done
}

# A guest that runs is found and watched, and not started again; and one whose container runs is at its path's end.
start_is_past() { # wish, what was reached
  if grep -qxF "${1%%:*}" <<<"$watched_only"; then
    return 1 # it comes with the guest
  elif grep -qxF "$1" <<<"$starting"; then
    grep -qxF "$watched_only" <<<"$2"
  else
    grep -qx container-runs <<<"$2"
  fi
}
end_is_past() { # wish, what was reached
  grep -qx record-forgotten <<<"$2" || gone first >/dev/null 2>&1
}

# How much this life has reached.
reached() { echo $(($(life | wc -l) - 1)); }
# What a pod's start has reached by now: in $starting until its guest is watched, from then on in $watching.
plan_start() { # how much was reached before
  local reached
  reached=$(life | tail -n "+$((2 + $1))" | counted)
  starting=$(sed '/^start-told:/q' <<<"$reached")
  watching=$(sed '1,/^start-told:/d' <<<"$reached")
  watched_only=$(cut -d : -f 1 <<<"$watching" | grep -vxF "$(cut -d : -f 1 <<<"$starting")" | sort -u)
  grep -q '^start-told:' <<<"$starting" && grep -q '^container-runs:' <<<"$watching" ||
    fail "the agent tells of a start: $reached"
}
# What its end has reached, when nothing is left of it, in $ending.
plan_end() { # how much was reached before
  forgotten() { life | grep -q '^record-forgotten '; }
  await "the last step of a pod's end" 120 forgotten
  ending=$(life | tail -n "+$((2 + $1))" | sed '/^record-forgotten /q' | counted)
  grep -q '^stop-asked:' <<<"$ending" || fail "the agent tells of an end: $ending"
}

# The agent dies at every step of the start of pod "first", of which there is one guest then, whose driver has the function.
kills_of_start() {
  killed_starts=$(some <<<"$starting"$'\n'"$watching")
  # shellcheck disable=SC2086
  wish $killed_starts
  first
  chain start_is_past first
  await "the function in a guest whose start met deaths" 600 sees first
  [ "$(guests | wc -w)" = 1 ] || fail "the pod has the guests $(guests)"
  say "an agent that dies at each of $(wc -w <<<"$killed_starts") steps of a start (of $(wc -w <<<"$starting $watching")), $pods pods: one guest"
}

# The agent dies at every step of its end.
kills_of_end() {
  killed_ends=$(some <<<"$ending")
  # shellcheck disable=SC2046
  wish $(each_first <<<"$killed_ends")
  # However many agents ask, its guest may end by itself.
  delete first 600
  chain end_is_past another_end
  await "the end of first" 300 gone first
  say "an agent that dies at each of $(wc -w <<<"$killed_ends") steps of an end (of $(wc -w <<<"$ending")), $pods pods: nothing is left"
}
# Of a pod whose guest need not boot.
another_end() {
  watches() { life | tail -n "+$((2 + from))" | grep -q '^channel-open '; }
  first
  await "the watch over its guest" 300 watches
  delete first 1
}

# Each step of both ways was the last of a life, and no life ended otherwise.
check_lives() {
  local lives step
  lives=$(in_machine 'while read life wish status; do
    grep -q "^${wish%%:*} " /tmp/reached.$life 2>/dev/null && reached=yes || reached=no
    echo "$life $wish $status $reached"
  done </tmp/lives')
  [ -z "$(awk 'NF == 4 && $3 != 137' <<<"$lives")" ] || fail "an agent ended by itself: $lives"
  [ -z "$(awk '$2 != "none" && $4 != "yes"' <<<"$lives")" ] || fail "an agent ended before its step: $lives"
  for step in $killed_starts $killed_ends; do
    grep -q " ${step%%:*}:" <<<"$lives" || fail "no agent died at $step: $lives"
  done
  say "$(grep -c yes <<<"$lives") lives of the agent ended at a step of theirs"
}
