#!/usr/bin/env bash
# Builds the demo's image on the spot, as an OCI layout with the tags v1 and v2:
#   scripts/demo-image.sh <dir>   ->   <dir>/layout
# The image is busybox and a script that prints a line every second.
set -euo pipefail

dir=${1:?usage: scripts/demo-image.sh <dir>}
rm -rf "$dir/layout" "$dir/root"
mkdir -p "$dir/root/bin"
cp "$(command -v busybox)" "$dir/root/bin/busybox"
ln -s busybox "$dir/root/bin/sh"
umoci init --layout "$dir/layout"
for version in v1 v2; do
  cat >"$dir/root/bin/web" <<SCRIPT
#!/bin/sh
trap 'echo "web $version ends"; exit 0' TERM
n=0
while :; do
  echo "\${GREETING:-hello} from web $version on \$(/bin/busybox hostname), line \$n"
  n=\$((n + 1))
  /bin/busybox sleep 1 &
  wait \$!
done
SCRIPT
  chmod 755 "$dir/root/bin/web"
  umoci new --image "$dir/layout:$version"
  umoci insert --image "$dir/layout:$version" "$dir/root/bin" /bin
  umoci config --image "$dir/layout:$version" --config.cmd /bin/web
done
rm -rf "$dir/root"
