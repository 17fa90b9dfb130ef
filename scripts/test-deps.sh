#!/usr/bin/env bash
# Installs what the tests need: mosquitto and ffmpeg from Debian's packages, onnxruntime and friends from PyPI
# into a virtual environment, a kernel with cameras for a virtual machine. Says what is missing where it may not install.
set -euo pipefail
venv=${1:?usage: scripts/test-deps.sh VENV}
cd "$(dirname "$0")/.."

missing=()
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
command -v mosquitto_sub >/dev/null || missing+=(mosquitto-clients)
command -v ffmpeg >/dev/null || missing+=(ffmpeg)
command -v lintian >/dev/null || missing+=(lintian)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "please install: ${missing[*]} (or run as root)" >&2; exit 1; }
        as_root=(sudo)
    fi
    echo "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

stamp=$venv/.installed
if [ ! -f "$stamp" ] || [ scripts/test-requirements.txt -nt "$stamp" ]; then
    mkdir -p "$(dirname "$venv")"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r scripts/test-requirements.txt
    touch "$stamp"
fi

# Elsewhere than on x86-64 there is no such test.
[ "$(uname -m)" != x86_64 ] || tests/guest/prepare.sh
