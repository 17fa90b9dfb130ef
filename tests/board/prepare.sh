#!/usr/bin/env bash
# What the emulated board is made of: Debian's ARM kernel (tests/guest/prepare.sh) and a Debian root with systemd, mosquitto
# and v4l-utils, made by mmdebstrap with qemu-user running what is to run on ARM. Nothing of Ocellus is in it.
#
# Leaves target/guest/arm64/{vmlinuz,initramfs,root.ext4}, and keeps them until the list of packages
# (Debian's part) or these files (the rest) change.
# Needs root (or sudo) and the network, once: mmdebstrap changes root, and the kernel has to be told of qemu-user (binfmt_misc).
set -euo pipefail
cd "$(dirname "$0")/../.."
target=target/guest/arm64
packages=(
    systemd systemd-sysv dbus udev kmod iproute2 procps busybox-static
    mosquitto mosquitto-clients v4l-utils
)

tests/guest/prepare.sh arm64
debian=$(echo "${packages[*]}" | sha256sum)
all=$(cat "$0" tests/board/initramfs-init tests/board/agent.* "$target/made-of" <(echo "$debian") | sha256sum)
if [ "$(cat "$target/board-made-of" 2>/dev/null)" = "$all" ]; then exit 0; fi

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
command -v apt-get >/dev/null || { echo "the board is made of Debian packages: no apt-get here" >&2; exit 1; }
declare -A program=(
    [mmdebstrap]=/usr/bin/mmdebstrap [qemu-user-static]=/usr/bin/qemu-aarch64-static [binfmt-support]=/usr/sbin/update-binfmts
    [arch-test]=/usr/bin/arch-test [e2fsprogs]=/sbin/mke2fs [cpio]=/bin/cpio
)
missing=()
for package in "${!program[@]}"; do
    [ -e "${program[$package]}" ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]}"
    # A mirror that is just being renewed is no reason to stop; what cannot be installed says so.
    as_root apt-get update -qq || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
# Where nothing did it at boot: in a container.
if ! arch-test arm64 >/dev/null 2>&1; then
    [ -e /proc/sys/fs/binfmt_misc/status ] || as_root mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    as_root update-binfmts --enable qemu-aarch64
    arch-test arm64 >/dev/null || { echo "this kernel cannot be told to run ARM programs (binfmt_misc)" >&2; exit 1; }
fi

work=$(mktemp -d)
trap 'as_root rm -rf "$work"' EXIT
tar=$target/debian.tar
if [ "$(cat "$tar.made-of" 2>/dev/null)" != "$debian" ]; then
    echo "making a Debian root for the board: ${packages[*]}"
    rm -f "$tar.made-of"
    # Without manuals and translations; what is installed later may have them.
    as_root mmdebstrap --quiet --arch=arm64 --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='rm "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"; rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
        bookworm "$tar"
    echo "$debian" >"$tar.made-of"
fi

root=$work/root
mkdir "$root"
as_root tar -C "$root" --numeric-owner -xf "$tar"
as_root cp -r "$target/lib/modules" "$root/lib/"
as_root install -m 644 tests/board/agent.service "$root/etc/systemd/system/"
as_root install -m 644 tests/board/agent.sh "$root/usr/local/sbin/"
as_root install -D -m 644 tests/board/journald.conf "$root/etc/systemd/journald.conf.d/board.conf"
as_root systemctl --root="$root" --quiet enable agent.service
as_root systemctl --root="$root" --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    fstrim.timer getty@tty1.service serial-getty@ttyAMA0.service
echo board | as_root tee "$root/etc/hostname" >/dev/null
echo 127.0.0.1 localhost board | as_root tee "$root/etc/hosts" >/dev/null

# The initramfs only finds the disk: busybox and the modules that it takes.
mkdir -p "$work/initramfs"/{bin,proc,sys,dev,root,lib}
as_root cp "$root/bin/busybox" "$work/initramfs/bin/"
cp -r "$target/lib/modules" "$work/initramfs/lib/"
rm -rf "$work/initramfs/lib/modules"/*/kernel/{sound,drivers/media,drivers/usb}
cp tests/board/initramfs-init "$work/initramfs/init"
(cd "$work/initramfs" && find . | cpio --quiet -o -H newc -R 0:0) >"$target/initramfs"

rm -f "$target/root.ext4"
as_root mke2fs -q -t ext4 -L board -d "$root" "$target/root.ext4" 900M
as_root chown "$(id -u):$(id -g)" "$target/root.ext4"
echo "$all" >"$target/board-made-of"
echo "$target/root.ext4: $(du -h "$target/root.ext4" | cut -f 1)"
