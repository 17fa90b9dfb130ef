"""Prints Debian's copyright file for the binary: our licence, and those of every crate that is in it.

    python3 package/licences.py TARGET [CARGO FEATURE ARGUMENTS…]

A crate under no licence of ALLOWED is an error: then it is to be looked at before anything ships.
"""

import collections
import json
import re
import subprocess
import sys
from pathlib import Path

ALLOWED = {
    "MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unicode-3.0", "CC0-1.0", "0BSD", "Unlicense",
    "CDLA-Permissive-2.0", "BSL-1.0", "MIT-0", "Apache-2.0 WITH LLVM-exception", "bzip2-1.0.6", "NCSA",
}

target, *features = sys.argv[1:]
tree = subprocess.run(
    ["cargo", "tree", "--locked", "-p", "ocellus", "--edges", "normal", "--target", target, "--prefix", "none",
     "--no-dedupe", "--format", "{p}", *features],
    check=True, capture_output=True, text=True,
).stdout
used = {tuple(line.split()[:2]) for line in tree.splitlines()}
metadata = json.loads(subprocess.run(
    ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target],
    check=True, capture_output=True, text=True,
).stdout)


def allowed(expression: str) -> bool:
    """Whether one of the alternatives consists of allowed licences only."""
    alternatives = re.split(r"\s+OR\s+|/", expression)
    return any(
        all(part.strip("() ") in ALLOWED for part in re.split(r"\s+AND\s+", alternative)) for alternative in alternatives
    ) or all(part.strip() in ALLOWED for part in re.split(r"\s+(?:OR|AND)\s+|[()/]", expression) if part.strip())


def paragraph(text: str) -> str:
    """As a field of a control file: indented, blank lines as dots."""
    return "\n".join(f" {line.rstrip()}" if line.strip() else " ." for line in text.strip().splitlines())


crates, texts, refused = [], collections.defaultdict(list), []
for package in sorted(metadata["packages"], key=lambda p: (p["name"], p["version"])):
    if (package["name"], f"v{package['version']}") not in used or package["source"] is None:
        continue
    name = f"{package['name']} {package['version']}"
    licence = package["license"] or "not said"
    if not allowed(licence):
        refused.append(f"{name}: {licence}")
    crates.append(f"{name}: {licence}")
    folder = Path(package["manifest_path"]).parent
    for file in sorted(folder.iterdir()):
        is_licence = re.match(r"(?i)(licen[cs]e|copying|copyright|notice|unlicense)", file.name)
        if is_licence and file.is_file() and file.suffix not in {".rs", ".py", ".html"}:
            text = file.read_text(errors="replace").strip()
            if "Apache License" in text and "TERMS AND CONDITIONS" in text:
                text = "The Apache License 2.0: /usr/share/common-licenses/Apache-2.0"
            texts[text].append(name)
if refused:
    sys.exit("no allowed licence: " + "; ".join(refused))

ours = Path("LICENSE-MIT").read_text()
print(f"""Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: ocellus
Comment: The binary contains {len(crates)} crates of others:
{paragraph(chr(10).join(crates))}

Files: *
Copyright: The Ocellus authors
License: MIT or Apache-2.0
{paragraph(ours)}
 .
 Or, at your option, the Apache License 2.0: /usr/share/common-licenses/Apache-2.0
Comment: What the crates in the binary say of their licences follows.""")
for text, names in sorted(texts.items(), key=lambda item: item[1]):
    print(paragraph(f"\n=== {', '.join(names)}\n\n{text}"))
