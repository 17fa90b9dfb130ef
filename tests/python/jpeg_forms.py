"""Every PNG of a directory as JPEGs of many forms, in a directory of the picture's name.

python jpeg_forms.py DIR
"""

import sys
from pathlib import Path

from PIL import Image

FORMS = {
    "444": dict(quality=90, subsampling="4:4:4"),
    "422": dict(quality=85, subsampling="4:2:2"),
    "420": dict(quality=75, subsampling="4:2:0"),
    "optimized": dict(quality=60, optimize=True),
    "restarts": dict(quality=85, restart_marker_blocks=7),
    "progressive-444": dict(quality=85, progressive=True, subsampling="4:4:4"),
    "progressive-422": dict(quality=85, progressive=True, subsampling="4:2:2"),
    "progressive-420": dict(quality=85, progressive=True, subsampling="4:2:0"),
    "rgb": dict(quality=85, keep_rgb=True),
}

for path in Path(sys.argv[1]).glob("*.png"):
    out = path.with_suffix("")
    out.mkdir(exist_ok=True)
    picture = Image.open(path).convert("RGB")
    for form, options in FORMS.items():
        picture.save(out / f"{form}.jpg", **options)
