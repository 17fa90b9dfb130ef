#!/bin/sh
# Makes src/bindings.rs from the kernel's headers and compares it between architectures. Debian: apt-get install
# bindgen libclang-14-dev {linux-libc-dev,libc6-dev}-arm64-cross {linux-libc-dev,libc6-dev}-armhf-cross
set -eu
cd "$(dirname "$0")"
types='v4l2_(audio|audioout|buffer|capability|captureparm|control|crop|cropcap|edid|enc_idx|encoder_cmd|exportbuffer'
types="$types|ext_control|ext_controls|fmtdesc|format|fract|framebuffer|frequency|frmivalenum|frmivaltypes|frmsizeenum"
types="$types|frmsizetypes|input|jpegcompression|modulator|output|outputparm|pix_format|query_ext_ctrl|queryctrl"
types="$types|querymenu|requestbuffers|sliced_vbi_cap|standard|std_id|streamparm|tuner)|v4l2_ctrl_type|time_t"
header=$(mktemp --suffix=.h)
trap 'rm -f "$header" "$header".*' EXIT
echo '#include <linux/videodev2.h>' >"$header"

generate() { # target, whose headers, output
    bindgen "$header" --no-layout-tests --no-doc-comments --use-core --ctypes-prefix core::ffi \
        --allowlist-type "$types" --allowlist-var 'V4L2_(CTRL_FLAG|CID)_.*' -o "$3" \
        -- --target="$1" "-I/usr/$2/include"
}

generate aarch64-linux-gnu aarch64-linux-gnu src/bindings.rs
generate arm-linux-gnueabihf arm-linux-gnueabihf "$header.arm"
# The headers of the arm64 package, since this machine's own may be of another kernel.
generate x86_64-linux-gnu aarch64-linux-gnu "$header.x86"
cmp src/bindings.rs "$header.arm"
cmp src/bindings.rs "$header.x86"
echo "the same for arm64, armhf and x86-64"
