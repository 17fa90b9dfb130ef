#!/usr/bin/env bash
# What a guest with a V4L2 camera needs: Debian packages on this machine, and Debian's kernel, which is unpacked and not
# installed. Needs the network once: what is there already is kept (delete target/guest to get a newer kernel).
#
# usage: tests/guest/prepare.sh [ARCH]     amd64 (default) or arm64
# Leaves target/guest/ARCH/{vmlinuz,lib/modules/VERSION}, with the modules of cameras only.
set -euo pipefail
arch=${1:-amd64}
# A virtual camera; USB cameras, and USB ports into which a program can plug one.
modules=(vivid uvcvideo vhci-hcd)
# A disk and a network, for a whole board.
[ "$arch" != arm64 ] || modules+=(virtio_mmio virtio_blk virtio_net ext4 crc32c_generic)
cd "$(dirname "$0")/../.."

. scripts/packages.sh

case $arch in
    amd64) emulator=qemu-system-x86=/usr/bin/qemu-system-x86_64 ;;
    arm64) emulator=qemu-system-arm=/usr/bin/qemu-system-aarch64 ;;
    *) echo "no guest for $arch: amd64 or arm64" >&2; exit 2 ;;
esac
# The guest's user space is this machine's: busybox, and udevd so that /dev/v4l's links are the real ones.
install_missing "$emulator" busybox-static=/bin/busybox udev=/lib/udev/v4l_id kmod=/sbin/modprobe v4l-utils=/usr/bin/v4l2-ctl \
    cpio=/bin/cpio
target=target/guest/$arch
if [ "$(cat "$target/made-of" 2>/dev/null)" = "${modules[*]}" ]; then exit 0; fi

command -v apt-get >/dev/null || { echo "the guest is made of Debian packages: no apt-get here" >&2; exit 1; }
if ! grep -qx "$arch" <<<"$(dpkg --print-architecture; dpkg --print-foreign-architectures)"; then
    as_root dpkg --add-architecture "$arch"
fi
# A mirror that is just being renewed is no reason to stop; what cannot be had says so.
as_root apt-get update -qq || true

# linux-image-ARCH only names the package of the current version.
package=$(apt-cache depends --important "linux-image-$arch:$arch" | sed -n 's/^ *Depends: \(linux-image-[0-9][^:]*\).*/\1/p' | head -n 1)
[ -n "$package" ] || { echo "apt knows no linux-image-$arch" >&2; exit 1; }
version=${package#linux-image-}
echo "fetching $package"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get -o APT::Sandbox::User="$(id -un)" download -qq "$package:$arch" && dpkg-deb -x ./*.deb kernel)
depmod -b "$work/kernel" "$version"
mkdir -p "$work/guest/lib/modules/$version"
for module in "${modules[@]}"; do
    modprobe -d "$work/kernel" -S "$version" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | sort -u | while read -r file; do
    path=${file#"$work/kernel/"}
    install -D -m 644 "$file" "$work/guest/$path"
done
cp "$work/kernel/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$work/guest/lib/modules/$version/"
depmod -b "$work/guest" "$version" 2>/dev/null
rm -rf "$target/lib"
mkdir -p "$target"
cp -r "$work/guest/lib" "$target/"
cp "$work/kernel/boot/vmlinuz-$version" "$target/vmlinuz"
# Last: it says that all is there.
echo "${modules[*]}" >"$target/made-of"
echo "$target: $version, $(find "$target" -name '*.ko*' | wc -l) modules"
