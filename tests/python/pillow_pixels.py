"""The reference for the preprocessing tests: Pillow's decoding and antialiased bilinear resize.

python pillow_pixels.py tensors IMAGES_DIR OUT → little-endian f32 [N, 3, 224, 224], the images sorted by name, normalized.
python pillow_pixels.py variants IMAGE OUT_DIR → one picture as JPEGs of many forms and as raw frames: NAME and, beside it,
NAME.rgb: the whole picture stretched to 96×96, u8 [96, 96, 3].
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from imagenet_top1 import input_tensor
from PIL import Image


def tensors(images: Path, out: Path) -> None:
    with open(out, "wb") as f:
        for path in sorted(images.iterdir()):
            f.write(input_tensor(path).astype("<f4").tobytes())


def variants(image: Path, out: Path) -> None:
    picture = Image.open(image).convert("RGB")
    # Sizes: odd, not a multiple of an MCU, small and large beside the input, so that every reduced scale is met.
    for width, height in ((97, 61), (333, 250), (640, 480), (1023, 771), (2048, 1536)):
        sized = picture.resize((width, height), Image.Resampling.BICUBIC)
        forms = {
            "444": dict(quality=90, subsampling="4:4:4"),
            "422": dict(quality=85, subsampling="4:2:2"),
            "420": dict(quality=75, subsampling="4:2:0"),
            "optimized": dict(quality=60, optimize=True),
            "progressive": dict(quality=85, progressive=True),
            "restarts": dict(quality=85, restart_marker_blocks=7),
        }
        for form, options in forms.items():
            path = out / f"{form}-{width}x{height}.jpg"
            sized.save(path, **options)
            expected(Image.open(path), path)
        path = out / f"grey-{width}x{height}.jpg"
        sized.convert("L").save(path, quality=85)
        expected(Image.open(path), path)
    raw(picture.resize((640, 480), Image.Resampling.BICUBIC), out)


def raw(picture: Image.Image, out: Path) -> None:
    """Raw frames of 640×480, by OpenCV's conversions (BT.601, limited range)."""
    rgb = np.asarray(picture)
    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    y, u, v = np.split(i420, [640 * 480, 640 * 480 * 5 // 4])
    # The same chroma in every format, so that all of them have one expected picture.
    rows = lambda plane: plane.reshape(240, 320).repeat(2, 0)
    yuyv = np.stack([y.reshape(480, 320, 2)[..., 0], rows(u), y.reshape(480, 320, 2)[..., 1], rows(v)], -1)
    frames = {
        "rgb24": rgb,
        "bgr24": rgb[..., ::-1],
        "grey": np.asarray(picture.convert("L")),
        "yu12": i420,
        "nv12": np.concatenate([y, np.stack([u, v], -1).reshape(-1)]),
        "yuyv": yuyv,
        "uyvy": yuyv[..., [1, 0, 3, 2]],
    }
    back = Image.fromarray(cv2.cvtColor(i420.reshape(720, 640), cv2.COLOR_YUV2RGB_I420))
    for name, data in frames.items():
        path = out / f"{name}.raw"
        path.write_bytes(np.ascontiguousarray(data).tobytes())
        seen = {"rgb24": picture, "bgr24": picture, "grey": picture.convert("L")}.get(name, back)
        expected(seen, path)


def expected(picture: Image.Image, beside: Path) -> None:
    small = picture.convert("RGB").resize((96, 96), Image.Resampling.BILINEAR)
    Path(f"{beside}.rgb").write_bytes(np.asarray(small).tobytes())


if __name__ == "__main__":
    command, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    {"tensors": tensors, "variants": variants}[command](source, target)
