#!/usr/bin/env bash
# Installs what the tests need: mosquitto and ffmpeg from Debian's packages, onnxruntime and friends and Home Assistant
# from PyPI into virtual environments, Prometheus and InfluxDB beside them, a kernel with cameras for a virtual machine. Says what is missing where it may not install.
set -euo pipefail
venv=${1:?usage: scripts/test-deps.sh VENV}
cd "$(dirname "$0")/.."
. scripts/packages.sh

missing=()
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
command -v mosquitto_sub >/dev/null || missing+=(mosquitto-clients)
command -v npm >/dev/null || missing+=(nodejs npm)
command -v ffmpeg >/dev/null || missing+=(ffmpeg)
command -v lintian >/dev/null || missing+=(lintian)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
install_packages "${missing[@]}"

stamp=$venv/.installed
if [ ! -f "$stamp" ] || [ scripts/test-requirements.txt -nt "$stamp" ]; then
    mkdir -p "$(dirname "$venv")"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r scripts/test-requirements.txt
    touch "$stamp"
fi

# Home Assistant, to show what it shows: 400 MB. It runs with Python 3.11 and 3.12 alone.
home=$(dirname "$venv")/home-assistant
if ! python3 -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])'; then
    echo "no Home Assistant 2024.3.3 for $(python3 --version): what needs it is not tested" >&2
elif [ ! -f "$home/.installed" ] || [ scripts/home-assistant-requirements.txt -nt "$home/.installed" ]; then
    python3 -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check --no-compile -r scripts/home-assistant-requirements.txt
    touch "$home/.installed"
fi

# Node-RED, whose flows are in docs/dashboards.md, its way to InfluxDB, and AsyncAPI's own schema.
node=$(dirname "$venv")/node
if [ ! -f "$node/.installed" ] || [ scripts/node-requirements.txt -nt "$node/.installed" ]; then
    mkdir -p "$node"
    # shellcheck disable=SC2046 # A word a package.
    npm install --prefix "$node" --silent --no-audit --no-fund $(grep -v '^#' scripts/node-requirements.txt)
    touch "$node/.installed"
fi

# unpack NAME PACKAGE…
# Unpacked, not installed, so that no service of theirs is started on this machine.
unpack() {
    local to
    to=$(dirname "$venv")/$1
    shift
    [ ! -f "$to/.installed" ] || return 0
    command -v apt-get >/dev/null || { echo "$* is unpacked from Debian's packages: no apt-get here" >&2; exit 1; }
    as_root apt-get update -qq || true
    rm -rf "$to"
    mkdir -p "$to"
    (cd "$to" && apt-get -o APT::Sandbox::User="$(id -un)" download -qq "$@"
        for package in ./*.deb; do dpkg-deb -x "$package" .; done
        rm ./*.deb)
    touch "$to/.installed"
}
# With its exporter for MQTT.
unpack prometheus prometheus prometheus-mqtt-exporter
unpack influxdb influxdb

# Elsewhere than on x86-64 there is no such test.
[ "$(uname -m)" != x86_64 ] || tests/guest/prepare.sh
