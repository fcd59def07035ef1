#!/usr/bin/env python3
"""Packed corpora against Megatron-LM's own reader and writer (megatron.core.datasets.indexed_dataset): corpora of every type that it
writes are read here, those of `dstrain pack` are read there, and what is no text is refused.

usage: check_megatron.py --bin build/bin --tool build/tests/tools/corpus [--seed N] [--vectors DIR]
  --vectors  instead writes small corpora and expected.json for tests/unit/trainer/test_data.c
"""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
import numpy
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

TYPES = [numpy.uint8, numpy.int8, numpy.int16, numpy.uint16, numpy.int32, numpy.int64]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def build(prefix, dtype, documents, multimodal=False):
    """documents: [[[token]]], each of some sequences."""
    builder = IndexedDatasetBuilder(prefix + ".bin", dtype=dtype, multimodal=multimodal)
    for i, sequences in enumerate(documents):
        if i % 2 and not multimodal:
            builder.add_document([t for s in sequences for t in s], [len(s) for s in sequences])
        else:
            for s in sequences:
                builder.add_item(torch.tensor(s, dtype=torch.int64))
            builder.end_document()
    builder.finalize(prefix + ".idx")


def random_documents(rng, dtype, count, longest):
    top = min(numpy.iinfo(dtype).max, 2**31 - 2) if dtype != numpy.float32 else 100
    token = lambda: rng.randrange(rng.choice([min(300, top), top + 1]))
    return [[[token() for _ in range(rng.randrange(longest))] for _ in range(rng.randrange(1, 4))] for _ in range(count)]


def read_here(tool, prefix):
    """(sequences, documents, tokens), or the complaint."""
    run = subprocess.run([tool, prefix], capture_output=True)
    if run.returncode != 0:
        return run.stderr.decode()
    return *struct.unpack_from("<QQ", run.stdout), list(numpy.frombuffer(run.stdout[16:], numpy.int32))


def flat(documents):
    return [t for d in documents for s in d for t in s]


class Score:
    passed = failed = 0

    def count(self, good, what):
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f"FAILED {what}")


def check_theirs(score, tool, folder, rng):
    for dtype in TYPES:
        for count, longest in ((1, 2), (5, 20), (300, 200)):
            prefix = f"{folder}/{dtype.__name__}-{count}"
            documents = random_documents(rng, dtype, count, longest)
            build(prefix, dtype, documents)
            got = read_here(tool, prefix)
            score.count(got == (sum(map(len, documents)), len(documents), flat(documents)), f"{prefix}: {str(got)[:200]}")
    build(f"{folder}/negative", numpy.int32, [[[1, 2, -3]]])
    score.count("-3" in str(read_here(tool, f"{folder}/negative")), "a negative token is refused")
    build(f"{folder}/float", numpy.float32, [[[1, 2]]])
    score.count("type code 7" in str(read_here(tool, f"{folder}/float")), "float32 is refused")
    build(f"{folder}/multimodal", numpy.int32, random_documents(rng, numpy.int32, 4, 9), multimodal=True)
    score.count("multimodal" in str(read_here(tool, f"{folder}/multimodal")), "a multimodal corpus is refused")


def check_ours(score, args, folder, rng, tokenizer):
    """dstrain pack's corpus: as many documents as Megatron-LM sees, with our tokens, in its order."""
    files = [f"{ROOT}/{name}" for name in ("LICENSE", "HACKING.md", "lib/file.c", "trainer/data.c")]
    prefix = f"{folder}/ours-{os.path.basename(tokenizer)}"
    command = [f"{args.bin}/dstrain", "pack", *files, "-o", prefix, "--tokenizer", tokenizer, "--document-bytes", str(rng.randrange(200, 4000))]
    subprocess.run(command + ([] if tokenizer == "bytes" else ["--eod", "0"]), check=True, stdout=subprocess.DEVNULL)
    theirs = IndexedDataset(prefix)
    sequences, documents, tokens = read_here(args.tool, prefix)
    score.count(len(theirs) == sequences and len(theirs.document_indices) == documents + 1, f"{prefix}: {len(theirs)} sequences")
    score.count([int(t) for i in range(len(theirs)) for t in theirs[i]] == tokens, f"{prefix}: tokens")
    ends = {int(theirs[i][-1]) for i in range(len(theirs))}
    score.count(ends == {256 if tokenizer == "bytes" else 0}, f"{prefix}: documents end with {ends}")
    if tokenizer == "bytes":
        text = b"".join(open(f, "rb").read() for f in files)
        score.count(bytes(t for t in tokens if t < 256) == text, f"{prefix}: the text")
    else:
        score.count(theirs.index.dtype == numpy.int32 and max(tokens) >= 65500, f"{prefix}: {theirs.index.dtype}")


def large_tokenizer(path):
    """One of 70,000 tokens, all but a few of them special, one of which stands in the text: the corpus needs int32."""
    with open(f"{ROOT}/tests/reference/vectors/tokenizer/deepseek-v3.json", encoding="utf-8") as f:
        made = json.load(f)["tokenizer"]
    made["added_tokens"] = []
    vocab = made["model"]["vocab"]
    while len(vocab) < 70000:
        vocab[f"unused {len(vocab)}"] = len(vocab)
    made["added_tokens"] = [{"id": len(vocab), "content": "return", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}]
    made["post_processor"] = None
    with open(path, "w", encoding="utf-8") as f:
        json.dump(made, f)


def write_vectors(folder, rng):
    os.makedirs(folder, exist_ok=True)
    expected = {}
    for dtype in TYPES:
        documents = random_documents(rng, dtype, 6, 14) + [[[1], [2, 3]]]
        build(f"{folder}/{dtype.__name__}", dtype, documents)
        expected[dtype.__name__] = flat(documents)
    build(f"{folder}/multimodal", numpy.int32, random_documents(rng, numpy.int32, 3, 5), multimodal=True)
    build(f"{folder}/float32", numpy.float32, [[[1, 2]]])
    with open(f"{folder}/expected.json", "w", encoding="utf-8") as f:
        json.dump(expected, f)
        f.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/bin")
    parser.add_argument("--tool", default="build/tests/tools/corpus")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--vectors")
    args = parser.parse_args()
    rng, score = random.Random(args.seed), Score()
    if args.vectors:
        write_vectors(args.vectors, rng)
        return 0
    print(f"check-megatron: seed {args.seed}")
    with tempfile.TemporaryDirectory() as folder:
        check_theirs(score, args.tool, folder, rng)
        check_ours(score, args, folder, rng, "bytes")
        large_tokenizer(f"{folder}/large.json")
        check_ours(score, args, folder, rng, f"{folder}/large.json")
    print(f"check-megatron: {score.passed} passed, {score.failed} failed")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
