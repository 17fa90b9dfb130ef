# shellcheck shell=bash
# For scripts to source: Debian packages on this machine.

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
    [ $# -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null || ! { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }; then
        echo "please install: $* (as root, or with sudo, this script does on Debian)" >&2
        exit 1
    fi
    echo "installing $*" >&2
    # A mirror that is just being renewed is no reason to stop; what cannot be installed says so.
    as_root apt-get update -qq || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# install_missing PACKAGE=FILE…
# Those whose file is not there.
install_missing() {
    local missing=() pair
    for pair in "$@"; do
        [ -e "${pair#*=}" ] || missing+=("${pair%%=*}")
    done
    install_packages "${missing[@]}"
}
