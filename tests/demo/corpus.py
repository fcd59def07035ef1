"""The demo's text: the file DEMO_TEXT names, else 4 MB of English prose from Debian's bible-kjv package. A share of it, spread evenly, is kept for validation."""

import os
import re
import subprocess

from cluster import BIN

VALID_SHARE = 0.05
MIN_BYTES = 1_000_000


class NoText(Exception):
    pass


def read():
    """The text as bytes, at least a million."""
    path = os.environ.get("DEMO_TEXT")
    if path:
        try:
            with open(path, "rb") as f:
                text = f.read()
        except OSError as e:
            raise NoText(f"cannot read DEMO_TEXT={path}: {e.strerror}") from None
    else:
        text = king_james()
        path = "the bible-kjv package"
    if len(text) < MIN_BYTES:
        raise NoText(f"{path} has {len(text)} bytes: at least {MIN_BYTES} are wanted (set DEMO_TEXT to a longer text file)")
    return text


def king_james():
    command = ["bible", "-f", "-l100000", "gen1:1-rev22:21"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    except FileNotFoundError:
        raise NoText("the program bible is not there: install bible-kjv, or set DEMO_TEXT to a text file") from None
    if done.returncode != 0:
        raise NoText(f"{' '.join(command)} failed with status {done.returncode} (set DEMO_TEXT to a text file)")
    return re.sub(rb"(?m)^\w+\d+:\d+ ", b"", done.stdout)  # prose without chapter and verse


def pack(text, folder):
    """{"train": prefix, "valid": prefix} of packed data below folder."""
    source = os.path.join(folder, "text.txt")
    prefix = os.path.join(folder, "corpus")
    with open(source, "wb") as f:
        f.write(text)
    command = [f"{BIN}/dstrain", "pack", source, "-o", prefix, "--tokenizer", "bytes", "--split-valid", str(VALID_SHARE)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoText(f"dstrain pack failed: {done.stderr.strip()}")
    return {"train": prefix, "valid": f"{prefix}-valid"}
