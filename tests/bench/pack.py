#!/usr/bin/env python3
"""How fast `dstrain pack` is beside encode_batch of the package `tokenizers`: the same text, tokenizer, documents and number of threads.
pack reads files and writes a corpus within its time; encode_batch has its documents in memory and keeps its result there.

usage: pack.py [--bin build/bin] [--tokenizer TOKENIZER.json] [--megabytes 40] [--threads N] [FILE...]
  without files the text is the Python library's own source; without a tokenizer one of 32,000 tokens is trained on a part of it
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile
import time

PATTERN = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
           "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
           "\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
DOCUMENT_BYTES = 16384
RUNS = 3


def read(files, limit):
    out = []
    for path in files or sorted(glob.glob(os.path.dirname(os.__file__) + "/**/*.py", recursive=True)):
        with open(path, "rb") as f:
            out.append(f.read())
        limit -= len(out[-1])
        if limit <= 0:
            break
    return b"\n\n".join(out).decode(errors="replace")


def trained(text):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*(pre_tokenizers.Split(Regex(p), "isolated") for p in PATTERN),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=32000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([text[:20_000_000]], trainer)
    return tokenizer.to_str()


def documents(prefix):
    with open(prefix + ".idx", "rb") as f:
        head = f.read(34)
    return int.from_bytes(head[18:26], "little")


def cut(text):
    """At a blank line, in long text at any line, in longer text anywhere."""
    out, start = [], 0
    while start < len(text):
        blank = text.find("\n\n", start + DOCUMENT_BYTES, start + 2 * DOCUMENT_BYTES)
        line = text.find("\n", start + 2 * DOCUMENT_BYTES, start + 4 * DOCUMENT_BYTES)
        end = blank + 2 if blank >= 0 else line + 1 if line >= 0 else start + 4 * DOCUMENT_BYTES
        out.append(text[start:end])
        start = end
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.environ.get("DS_BIN", "build/bin"))
    parser.add_argument("--tokenizer")
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    try:
        from tokenizers import Tokenizer
    except ImportError:
        print("pack: left out: this Python has no package tokenizers")
        return
    text = read(args.files, args.megabytes * 1e6)
    size = len(text.encode())
    if args.tokenizer:
        with open(args.tokenizer, encoding="utf-8") as f:
            made = f.read()
    else:
        made = trained(text)
    tokenizer = Tokenizer.from_str(made)
    batch = cut(text)
    with tempfile.TemporaryDirectory() as folder:
        source, file, prefix = f"{folder}/text", f"{folder}/t.json", f"{folder}/c"
        with open(source, "w", encoding="utf-8", newline="") as f:
            f.write(text)
        with open(file, "w", encoding="utf-8") as f:
            f.write(made)
        command = [f"{args.bin}/dstrain", "pack", source, "-o", prefix, "--tokenizer", file, "--eod", "0", "--threads", str(args.threads)]
        ours, theirs = [], []
        for _ in range(RUNS):
            start = time.monotonic()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            ours.append(time.monotonic() - start)
            start = time.monotonic()
            encoded = tokenizer.encode_batch(batch, add_special_tokens=False)
            theirs.append(time.monotonic() - start)
        with open(prefix + ".idx", "rb") as f:
            width = 2 if f.read(18)[17] == 8 else 4
        count = os.path.getsize(prefix + ".bin") // width - documents(prefix)
    tokens = sum(len(e) for e in encoded)
    vocab = len(json.loads(made)["model"]["vocab"])
    print(f"pack: {size / 1e6:.1f} MB, {tokens / 1e6:.2f} M tokens (pack: {count / 1e6:.2f} M), {len(batch)} documents, vocabulary {vocab}, {args.threads} threads")
    print(f"  dstrain pack   {size / 1e6 / min(ours):8.1f} MB/s  {count / 1e6 / min(ours):7.2f} M tokens/s   (best of {RUNS}, files and start included)")
    print(f"  encode_batch   {size / 1e6 / min(theirs):8.1f} MB/s  {tokens / 1e6 / min(theirs):7.2f} M tokens/s")
    print(f"  ratio          {min(theirs) / min(ours):8.2f}        (target: at least 1)")


if __name__ == "__main__":
    sys.exit(main())
