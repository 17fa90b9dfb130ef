#!/usr/bin/env bash
# What the emulated board is made of: Debian's ARM kernel (tests/guest/prepare.sh) and a Debian root with systemd, mosquitto
# and v4l-utils (tests/guest/arm-disk.sh). Nothing of Ocellus is in it.
#
# Leaves target/guest/arm64/{vmlinuz,initramfs,root.ext4}, and keeps them until the list of packages
# (Debian's part) or these files (the rest) change.
# Needs root (or sudo) and the network, once.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=target/guest/arm64
packages=(
    systemd systemd-sysv dbus udev kmod iproute2 procps busybox-static
    mosquitto mosquitto-clients v4l-utils
)

. tests/guest/arm-disk.sh

tests/guest/prepare.sh arm64
debian_tar "$target/debian.tar" "${packages[@]}"
all=$(cat "$0" tests/guest/{arm-disk.sh,initramfs-init} tests/board/agent.* tests/board/journald.conf "$target/made-of" "$target/debian.tar.made-of" | sha256sum)
if [ "$(cat "$target/board-made-of" 2>/dev/null)" = "$all" ]; then exit 0; fi

work=$(mktemp -d)
trap 'as_root rm -rf "$work"' EXIT
root=$work/root
mkdir "$root"
as_root tar -C "$root" --numeric-owner -xf "$target/debian.tar"
as_root cp -r "$target/lib/modules" "$root/lib/"
as_root install -m 644 tests/board/agent.service "$root/etc/systemd/system/"
as_root install -m 644 tests/board/agent.sh "$root/usr/local/sbin/"
as_root install -D -m 644 tests/board/journald.conf "$root/etc/systemd/journald.conf.d/board.conf"
as_root systemctl --root="$root" --quiet enable agent.service
as_root systemctl --root="$root" --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    fstrim.timer getty@tty1.service serial-getty@ttyAMA0.service
echo board | as_root tee "$root/etc/hostname" >/dev/null
echo 127.0.0.1 localhost board | as_root tee "$root/etc/hosts" >/dev/null

arm_disk "$root" "$target/lib/modules" "$target"
echo "$all" >"$target/board-made-of"
