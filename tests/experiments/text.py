"""The experiments' text, some 8 MB of English from Debian's packages bible-kjv, jargon-text and fortunes (DEMO_TEXT names another file), and
what it is packed with: a BPE vocabulary trained on it."""

import glob
import gzip
import hashlib
import os
import subprocess

import bpe
import corpus
from cluster import BIN

JARGON = "/usr/share/doc/jargon-text/jargon.txt.gz"
FORTUNES = "/usr/share/games/fortunes"


def read():
    """The text as bytes."""
    text = corpus.read()
    if os.environ.get("DEMO_TEXT"):
        return text
    cookies = [p for p in sorted(glob.glob(f"{FORTUNES}/*")) if "." not in os.path.basename(p)]  # beside them their indices
    if not os.path.exists(JARGON) or not cookies:
        raise corpus.NoText("the packages jargon-text and fortunes are not there: make deps, or set DEMO_TEXT to a text file")
    with gzip.open(JARGON) as f:
        text += f.read()
    for path in cookies:
        with open(path, "rb") as f:
            text += f.read()
    return text


def pack(out, vocabulary):
    """{"train": prefix, "valid": prefix} of packed data below out, made when it is not there. A text of one's own has a folder of its own."""
    text = read() if os.environ.get("DEMO_TEXT") else None
    folder = os.path.join(os.path.abspath(out), f"data-{hashlib.sha256(text).hexdigest()[:8]}" if text else "data")
    prefix = os.path.join(folder, "corpus")
    data = {"train": prefix, "valid": f"{prefix}-valid"}
    if os.path.exists(f"{prefix}-valid.idx"):
        return data
    text = text or read()
    os.makedirs(folder, exist_ok=True)
    source = os.path.join(folder, "text.txt")
    with open(source, "wb") as f:
        f.write(text)
    print(f"experiments: {len(text)} bytes of text, training a vocabulary of {vocabulary} tokens on it", flush=True)
    bpe.train(text, vocabulary, folder)
    command = [f"{BIN}/dstrain", "pack", source, "-o", prefix, "--tokenizer", folder, "--split-valid", str(corpus.VALID_SHARE)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise corpus.NoText(f"dstrain pack failed: {done.stderr.strip()}")
    print(done.stdout.strip(), flush=True)
    return data
