#!/bin/sh
# Installs the container clients that the tests of this directory drive, on Debian. It does nothing where they are
# there already, and may be run again. Whatever starts with its package (Docker, containerd) is left as the package
# leaves it: the tests run daemons of their own, on directories of their own.
set -eu

# Command and package. crane, containerd 2 and the registry are not here: the tests build them, at versions that go.mod
# and containerd2/go.mod fix.
wanted='dockerd:docker.io docker:docker.io containerd:containerd ctr:containerd runc:runc podman:podman conmon:conmon skopeo:skopeo mkfs.ext4:e2fsprogs mount:mount findmnt:util-linux ip:iproute2'

packages=
need() {
	case " $packages " in
	*" $1 "*) ;;
	*) packages="$packages $1" ;;
	esac
}

for pair in $wanted; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || need "${pair#*:}"
done

# Since Debian 13 Docker's command line is a package of its own, which docker.io only recommends.
if ! command -v docker >/dev/null 2>&1 && apt-cache show docker-cli >/dev/null 2>&1; then
	need docker-cli
fi

# Where the kernel enforces AppArmor, dockerd loads a profile before it runs anything, and needs the program to do so.
if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then
	command -v apparmor_parser >/dev/null 2>&1 || need apparmor
fi

if [ -z "$packages" ]; then
	echo 'e2e: all clients are installed'
	exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
	echo "e2e: this is no Debian. Install what these Debian packages hold, then run the tests:$packages" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "e2e: run as root, to install:$packages" >&2
	exit 1
fi

echo "e2e: installing$packages"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list, on purpose
apt-get install -qq -y --no-install-recommends $packages

for pair in $wanted; do
	if ! command -v "${pair%%:*}" >/dev/null 2>&1; then
		echo "e2e: ${pair%%:*} is still missing after installing ${pair#*:}" >&2
		exit 1
	fi
done
