"""Prints the newest glibc symbol version that an ELF binary asks for: `python glibc.py BINARY`."""

import re
import sys
from pathlib import Path

versions = re.findall(rb"\0GLIBC_(\d+(?:\.\d+)+)(?=\0)", Path(sys.argv[1]).read_bytes())
if not versions:
    sys.exit(f"{sys.argv[1]}: no glibc version found; is it dynamically linked?")
newest = max(versions, key=lambda v: tuple(map(int, v.split(b"."))))
print(newest.decode())
