#!/usr/bin/env bash
# Fetches Debian's cloud kernel with its modules into a directory, as any user:
#   scripts/fetch-kernel.sh <dir>   ->   <dir>/boot/vmlinuz-<version>, <dir>/lib/modules/<version>
# Does nothing when a kernel with its modules is already there. Nothing is installed on this machine.
set -euo pipefail

dir=${1:?usage: scripts/fetch-kernel.sh <dir>}
arch=$(dpkg --print-architecture)
meta="linux-image-cloud-$arch"

for image in "$dir"/boot/vmlinuz-*; do
  version=${image##*/vmlinuz-}
  if [ -s "$image" ] && [ -d "$dir/lib/modules/$version/kernel" ]; then
    echo "kernel $version is in $dir"
    exit 0
  fi
done

mkdir -p "$dir"
work=$(mktemp -d "$dir/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt downloads as its own user where it can

# The package that carries the kernel is a dependency of the one whose name never changes.
package=$(apt-cache depends --important "$meta" 2>/dev/null |
  sed -n 's/^ *|\?Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
if [ -z "$package" ]; then
  echo "apt knows no $meta; run 'apt-get update' as root, and see that /etc/apt/sources.list names a Debian mirror" >&2
  exit 1
fi
if ! (cd "$work" && apt-get download "$package"); then
  echo "cannot download $package; run 'apt-get update' as root and try again" >&2
  exit 1
fi
dpkg -x "$work"/*.deb "$work/root"
# Newer releases ship the modules under /usr/lib.
modules="$work/root/lib/modules"
[ -d "$modules" ] || modules="$work/root/usr/lib/modules"

mkdir -p "$dir/boot" "$dir/lib/modules"
for tree in "$modules"/*; do
  version=${tree##*/}
  rm -rf "$dir/lib/modules/$version"
  mv "$tree" "$dir/lib/modules/$version"
  # The image comes last: its presence says that the rest is complete.
  mv "$work/root/boot/vmlinuz-$version" "$dir/boot/vmlinuz-$version"
  echo "kernel $version is in $dir"
done
