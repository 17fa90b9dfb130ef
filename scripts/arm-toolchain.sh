# shellcheck shell=bash
# For scripts to source: what cargo needs to build for ARM.
. scripts/packages.sh

has_target() {
    [ -d "$("$1" --print sysroot 2>/dev/null)/lib/rustlib/$2/lib" ]
}

# rust_target TARGET DEBIAN_ARCHITECTURE
# The standard library of the target: rustup's or, where rustup can fetch nothing or OCELLUS_CROSS_RUSTC=debian, Debian's
# (rustc-web). Then RUSTC is /usr/bin/rustc: a compiler takes no other's standard library, nor what another compiled.
rust_target() {
    local packages=()
    if [ "${OCELLUS_CROSS_RUSTC:-}" != debian ] && {
        has_target rustc "$1" || { command -v rustup >/dev/null && timeout 120 rustup target add "$1" >/dev/null 2>&1; }
    }; then
        return
    fi
    export RUSTC=/usr/bin/rustc
    if ! { [ -x "$RUSTC" ] && has_target "$RUSTC" "$1"; }; then
        command -v dpkg >/dev/null || { echo "no Rust standard library for $1: rustup target add $1" >&2; exit 1; }
        packages+=(rustc-web libstd-rust-web-dev:{"$(dpkg --print-architecture)","$2"})
        as_root dpkg --add-architecture "$2"
    fi
    command -v cargo >/dev/null || packages+=(cargo-web)
    install_packages "${packages[@]}"
    echo "rustup has no $1 here: Debian's $("$RUSTC" --version)" >&2
}

# static_toolchain TARGET DEBIAN_ARCHITECTURE GNU_NAME
# For programs that need no ARM C library to run, with Debian's cross compiler as linker.
static_toolchain() {
    local variable=${1^^}
    variable=CARGO_TARGET_${variable//-/_}
    rust_target "$1" "$2"
    install_missing "gcc-$3=/usr/bin/$3-gcc" "libc6-dev-$2-cross=/usr/$3/lib/libc.a"
    export "${variable}_RUSTFLAGS=-C target-feature=+crt-static" "${variable}_LINKER=$3-gcc" "CC_${1//-/_}=$3-gcc"
}
