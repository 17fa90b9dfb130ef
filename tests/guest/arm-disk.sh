# shellcheck shell=bash
# For scripts to source: what an emulated ARM machine boots from. Needs root (or sudo) and the network, once: mmdebstrap
# changes root, and the kernel has to be told of qemu-user (binfmt_misc), which runs what is to run on ARM.
. scripts/packages.sh

# debian_tar TAR PACKAGE…
# A Debian root for 64-bit ARM with these packages. It is kept until their list changes.
debian_tar() {
    local tar=$1 packages
    shift
    packages=$(IFS=,; echo "$*")
    if [ "$(cat "$tar.made-of" 2>/dev/null)" = "$packages" ]; then return; fi
    install_missing mmdebstrap=/usr/bin/mmdebstrap qemu-user-static=/usr/bin/qemu-aarch64-static binfmt-support=/usr/sbin/update-binfmts \
        arch-test=/usr/bin/arch-test
    # Where nothing did it at boot: in a container.
    if ! arch-test arm64 >/dev/null 2>&1; then
        [ -e /proc/sys/fs/binfmt_misc/status ] || as_root mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
        as_root update-binfmts --enable qemu-aarch64
        arch-test arm64 >/dev/null || { echo "this kernel cannot be told to run ARM programs (binfmt_misc)" >&2; exit 1; }
    fi
    echo "making a Debian root: $packages"
    rm -f "$tar.made-of"
    # Without manuals and translations; what is installed later may have them.
    as_root mmdebstrap --quiet --arch=arm64 --variant=minbase --include="$packages" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='rm "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"; rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
        bookworm "$tar"
    echo "$packages" >"$tar.made-of"
}

# arm_disk ROOT MODULES DIRECTORY
# Leaves DIRECTORY/{initramfs,root.ext4} of a Debian root with busybox-static. The initramfs only finds the disk: busybox and
# the modules that it takes.
arm_disk() {
    local root=$1 modules=$2 out=$3 work
    install_missing cpio=/bin/cpio e2fsprogs=/sbin/mke2fs
    work=$(mktemp -d)
    mkdir -p "$work"/{bin,proc,sys,dev,root,lib}
    as_root cp "$root/bin/busybox" "$work/bin/"
    cp -r "$modules" "$work/lib/"
    rm -rf "$work/lib/modules"/*/kernel/{sound,drivers/media,drivers/usb}
    cp tests/guest/initramfs-init "$work/init"
    (cd "$work" && find . | cpio --quiet -o -H newc -R 0:0) >"$out/initramfs"
    as_root rm -rf "$work"

    rm -f "$out/root.ext4"
    as_root mke2fs -q -t ext4 -L root -d "$root" "$out/root.ext4" 900M
    as_root chown "$(id -u):$(id -g)" "$out/root.ext4"
    echo "$out/root.ext4: $(du -h "$out/root.ext4" | cut -f 1)"
}
