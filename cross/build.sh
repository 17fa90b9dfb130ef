#!/usr/bin/env bash
# Builds ocellus for a board.
#
#   cross/build.sh TARGET [PROFILE] [CARGO ARGUMENTS…]
#
# TARGET   aarch64-unknown-linux-gnu      Raspberry Pi 3/4/5 and Zero 2 (64-bit), Jetson
#          armv7-unknown-linux-gnueabihf  Raspberry Pi 2/3/4 (32-bit)
# PROFILE  dist (default: small, link-time optimized) or release (builds faster)
#
# The binary asks for no glibc newer than 2.31 (JetPack 5, Debian 11): that is checked at the end.
# The Rust standard library for the target comes from rustup, or, where rustup can fetch nothing, from Debian's
# packages (rustc-web; as root). The linker is zig's, from PyPI, because it links against an older glibc.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-}
profile=${2:-dist}
shift $(( $# < 2 ? $# : 2 ))
case $target in
    aarch64-unknown-linux-gnu) deb_arch=arm64 ;;
    armv7-unknown-linux-gnueabihf) deb_arch=armhf ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
glibc=2.31
venv=target/cross-venv

say() { printf '%s\n' "cross/build.sh: $*" >&2; }

# 1. The standard library of the target.
if rustup target list --installed 2>/dev/null | grep -qx "$target" || rustup target add "$target" >/dev/null 2>&1; then
    say "standard library from rustup"
    target_dir=target
else
    target_dir=target/debian-rustc
    export RUSTC=/usr/bin/rustc
    lib=/usr/lib/rustlib/$target/lib
    if ! [ -d "$lib" ] || ! [ -x "$RUSTC" ]; then
        [ "$(id -u)" = 0 ] || { say "rustup has no $target; run as root once to install Debian's rustc-web"; exit 1; }
        say "installing Debian's rustc-web and the standard library for $deb_arch"
        dpkg --add-architecture "$deb_arch"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            rustc-web libstd-rust-web-dev:amd64 "libstd-rust-web-dev:$deb_arch" >/dev/null
    fi
    say "standard library from Debian's $("$RUSTC" --version)"
    rustflags="-L $lib"
fi

# 2. zig as C compiler and linker.
if ! [ -x "$venv/bin/cargo-zigbuild" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check ziglang==0.17.1 cargo-zigbuild==0.24.0
fi
export PATH="$PWD/$venv/bin:$PATH"

# 3. Build.
export CARGO_TARGET_DIR=$target_dir
[ -z "${rustflags:-}" ] || export RUSTFLAGS="$rustflags ${RUSTFLAGS:-}"
cargo zigbuild --locked --profile "$profile" --target "$target.$glibc" --bin ocellus "$@"
binary=$target_dir/$target/$profile/ocellus

# 4. It must start on the oldest board.
newest=$("$venv/bin/python" cross/glibc.py "$binary")
if [ "$(printf '%s\n%s\n' "$newest" "$glibc" | sort -V | tail -1)" != "$glibc" ]; then
    say "$binary asks for glibc $newest, newer than $glibc"
    exit 1
fi
say "$binary: $(stat -c %s "$binary") bytes, asks for glibc $newest"
