#!/usr/bin/env bash
# Installs the Debian packages that guests, tests, demo and bench need, if any is missing.
set -euo pipefail

# command:package
needs=(
  qemu-system-x86_64:qemu-system-x86 # guests
  qemu-img:qemu-utils                # judges writable layers in tests
  mkfs.ext4:e2fsprogs                # images
  busybox:busybox-static             # the demo's and the tests' root file system
  umoci:umoci                        # makes OCI images
  skopeo:skopeo                      # pushes them
  nvme:nvme-cli                      # functions of the hardware lab
  docker-registry:docker-registry    # a registry on loopback
  ip:iproute2                        # hosts of their own for the servers of make torture
  nft:nftables                       # the guests' network
  fsfreeze:util-linux                # disks that hang, there
  lvm:lvm2                           # volumes in a thin pool, in the hardware lab
  thin_check:thin-provisioning-tools # the same
  etcd:etcd-server                   # the yardstick of make bench
)

# The packages whose command is not there.
missing() {
  for need in "${needs[@]}"; do
    command -v "${need%%:*}" >/dev/null || echo "${need#*:}"
  done
}

command -v cargo-nextest >/dev/null || nextest=missing

sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
# In two rounds: a package may take one away that was there in another version.
for round in 1 2; do
  packages=$(missing)
  [ -n "$packages" ] || break
  echo "installing:" $packages
  [ $round = 2 ] || "${sudo[@]}" apt-get update -qq
  # One by one: an image that holds a newer version of one package must not keep the others away.
  for package in $packages; do
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$package" >/dev/null
  done
done
packages=$(missing)
if [ -n "$packages" ]; then
  echo "still missing, although they were installed:" $packages >&2
  exit 1
fi
if [ -n "${nextest:-}" ]; then
  cargo install --locked cargo-nextest
fi
