#!/usr/bin/env bash
# Runs the tests of the integer kernels as ARM boards would, emulated: without dot products (cortex-a72), with sdot
# (cortex-a76), with smmla (max). Installs what is missing: qemu, a cross linker, and a Rust standard library for aarch64,
# from rustup or, where that fails, Debian's.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

has_target() {
    [ -d "$("$1" --print sysroot)/lib/rustlib/$target/lib" ]
}

packages=()
command -v qemu-aarch64-static >/dev/null || packages+=(qemu-user-static)
command -v aarch64-linux-gnu-gcc >/dev/null || packages+=(gcc-aarch64-linux-gnu)
[ -e /usr/aarch64-linux-gnu/lib/libc.a ] || packages+=(libc6-dev-arm64-cross)
if ! has_target rustc && ! { command -v rustup >/dev/null && timeout 120 rustup target add $target 2>/dev/null; }; then
    # Debian's compiler, because a compiler takes no other's standard library.
    export RUSTC=/usr/bin/rustc
    { [ -x $RUSTC ] && has_target $RUSTC; } || packages+=(rustc-web libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64)
fi
if [ ${#packages[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || { echo "please install: ${packages[*]}" >&2; exit 1; }
    echo "installing ${packages[*]}"
    as_root dpkg --add-architecture arm64
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# A static program needs no ARM C library to run.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
for cpu in cortex-a72 cortex-a76 max; do
    echo "kernels on $cpu"
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $cpu" \
        cargo test --quiet --release --locked --target $target --target-dir target/arm -p ocellus-int8-kernels --tests
done
