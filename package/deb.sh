#!/usr/bin/env bash
# Makes target/deb/ocellus_VERSION_ARCH.deb, needing Debian's dpkg-deb and no root.
#
#   package/deb.sh ARCH [VERSION]     arm64, armhf
#
# Builds the binary for the board (cross/build.sh) and, for the manual page and the completions, for this machine
# (or takes $OCELLUS_HOST_BINARY).
# VERSION is Cargo.toml's unless given: a test makes an upgrade.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-}
case $arch in
    arm64) target=aarch64-unknown-linux-gnu ;;
    armhf) target=armv7-unknown-linux-gnueabihf ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
version=${2:-$(sed -n '/^\[workspace.package\]/,/^version/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
umask 022

cross/build.sh "$target"
binary=target/board/$target/ocellus
host=${OCELLUS_HOST_BINARY:-target/release/ocellus}
[ -n "${OCELLUS_HOST_BINARY:-}" ] || cargo build --release --locked --bin ocellus

root=target/deb/$arch
rm -rf "$root"
put() { install -D -m "$1" "$2" "$root/$3"; }
put 755 "$binary" usr/bin/ocellus
put 644 package/ocellus.toml etc/ocellus/ocellus.toml
put 644 systemd/ocellus.service usr/lib/systemd/system/ocellus.service
put 644 systemd/sysusers.conf usr/lib/sysusers.d/ocellus.conf
put 644 systemd/tmpfiles.conf usr/lib/tmpfiles.d/ocellus.conf
put 644 systemd/udev.rules usr/lib/udev/rules.d/70-ocellus.rules
for model in models/*/model.toml; do
    for file in "$(dirname "$model")"/*; do
        put 644 "$file" "usr/share/ocellus/$file"
    done
done
mkdir -p "$root"/usr/share/{man/man1,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
"$host" man | gzip -9n >"$root/usr/share/man/man1/ocellus.1.gz"
"$host" completions bash >"$root/usr/share/bash-completion/completions/ocellus"
"$host" completions zsh >"$root/usr/share/zsh/vendor-completions/_ocellus"
"$host" completions fish >"$root/usr/share/fish/vendor_completions.d/ocellus.fish"
doc=usr/share/doc/ocellus
for file in README.md docs/*.md; do
    put 644 "$file" "$doc/$(basename "$file")"
done
mkdir -p "$root/$doc/schema"
cp schema/*.json "$root/$doc/schema/"
for file in systemd/examples/*; do
    put 644 "$file" "$doc/examples/$(basename "$file")"
done
python3 package/licences.py "$target" >"$root/$doc/copyright"
gzip -9n <CHANGELOG.md >"$root/$doc/NEWS.gz"
# When the last change was made, so that the same sources give the same package.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
maintainer='The Ocellus authors <ocellus@example.org>'
gzip -9n >"$root/$doc/changelog.gz" <<END
ocellus ($version) unstable; urgency=medium

  * What changed for users: NEWS.gz beside this file.

 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END

# What the binary asks of the board. It links glibc alone, which cross/build.sh has looked at.
depends="libc6 (>= 2.31), systemd (>= 245), udev, passwd"
needed=$(readelf -d "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
for library in $needed; do
    case $library in
        libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | ld-linux-*) ;;
        libgcc_s.so.1) depends="$depends, libgcc-s1" ;;
        *) echo "the binary asks for $library: which package has it?" >&2; exit 1 ;;
    esac
done

mkdir -p "$root/DEBIAN"
install -m 755 package/postinst package/prerm package/postrm "$root/DEBIAN/"
echo /etc/ocellus/ocellus.toml >"$root/DEBIAN/conffiles"
size=$(du -sk --exclude=DEBIAN "$root" | cut -f 1)
cat >"$root/DEBIAN/control" <<END
Package: ocellus
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $size
Depends: $depends
Recommends: ca-certificates
Suggests: mosquitto, v4l-utils
Section: video
Priority: optional
Description: firmware for a camera that thinks
 Ocellus takes frames from a camera, runs quantized neural networks on the
 processor of a small board, and publishes what it sees over MQTT.
 .
 This package runs it as a service from the start; its configuration is
 /etc/ocellus/ocellus.toml.
END
(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
deb=target/deb/ocellus_${version}_$arch.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$deb" >/dev/null
rm -rf "$root"
echo "$deb: $(stat -c %s "$deb") bytes"
