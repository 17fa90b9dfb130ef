#!/usr/bin/env bash
# Builds ocellus for a board.
#
#   cross/build.sh TARGET [PROFILE] [CARGO ARGUMENTS…]
#
# TARGET   aarch64-unknown-linux-gnu      Raspberry Pi 3/4/5 and Zero 2 (64-bit), Jetson
#          armv7-unknown-linux-gnueabihf  Raspberry Pi 2/3/4 (32-bit)
# PROFILE  dist (default: stripped, link-time optimized) or release (builds faster)
#
# Leaves target/board/TARGET/ocellus. It asks for no glibc newer than 2.31 (JetPack 5, Debian 11): that is checked.
# The Rust standard library for the target comes from rustup, or, where rustup can fetch nothing, from Debian's packages
# (rustc-web; the first time as root, or with sudo). The C compiler and linker are zig's, from PyPI, because it links
# against an older glibc than this machine's. OCELLUS_CROSS_RUSTC=debian takes Debian's compiler although rustup would do.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/arm-toolchain.sh

target=${1:-}
profile=${2:-dist}
shift $(( $# < 2 ? $# : 2 ))
case $target in
    aarch64-unknown-linux-gnu) deb_arch=arm64 ;;
    armv7-unknown-linux-gnueabihf) deb_arch=armhf ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
glibc=2.31
venv=target/cross-venv

say() { printf '%s\n' "cross/build.sh: $*" >&2; }

# 1. The standard library of the target.
rust_target "$target" "$deb_arch"
target_dir=target
[ "${RUSTC:-}" != /usr/bin/rustc ] || target_dir=target/debian-rustc

# 2. zig as C compiler and linker.
if ! [ -e "$venv/.installed" ]; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || install_packages python3-venv
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check ziglang==0.17.1 cargo-zigbuild==0.24.0
    touch "$venv/.installed"
fi
export PATH="$PWD/$venv/bin:$PATH"

# 3. Build.
CARGO_TARGET_DIR=$target_dir cargo zigbuild --locked --profile "$profile" --target "$target.$glibc" --bin ocellus "$@"
binary=target/board/$target/ocellus
mkdir -p "$(dirname "$binary")"
cp "$target_dir/$target/$profile/ocellus" "$binary"

# 4. It must start on the oldest board.
newest=$(python3 cross/glibc.py "$binary")
if [ "$(printf '%s\n%s\n' "$newest" "$glibc" | sort -V | tail -1)" != "$glibc" ]; then
    say "$binary asks for glibc $newest, newer than $glibc"
    exit 1
fi
say "$binary: $(stat -c %s "$binary") bytes, asks for glibc $newest"
