#!/usr/bin/env python3
"""Compares the trainer's tokenizer with the package `tokenizers`: ids of texts, with and without what the post-processor puts around
them, and texts of ids, with and without special tokens. Tokenizers of every kind are trained on random text and given random options
and added tokens; tokenizer.json files of your own are compared too. Then the pieces that regular expressions cut.

usage: check_tokenizer.py --tool build/tests/tools/tokenize [--seed N] [--rounds N] [--texts N] [--vectors DIR] [TOKENIZER.json...]
  --vectors  instead writes small tokenizers with texts, ids and decoded text for tests/unit/trainer/test_tokenizer.c
"""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

import tokenizer_texts as texts
from tokenizers import Regex, Tokenizer, pre_tokenizers, trainers

FAILED = 0xFFFFFFFF
CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
            "\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
LLAMA3 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LOWER, UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}?|\p{{N}}{{1,3}}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# Each must do the same as in the reference, or be refused when it is in the second list.
PATTERNS = [
    *DEEPSEEK, LLAMA3, QWEN2, O200K, r"\s+$", r"^b", r"$", r"\p{N}{1,3}+", r"(?:\p{N}{1,3})+", r"a{1,2}?", r"\s*", r"a*", r"a?", r"[^\S\n]+", r"\w+",
    r"[\w-]+", r"[\w]+", r"\W+", r"\d+", r"\D+", r"\h+", r"\S+", r"(?<=a)b", r"(?<!a)b", r"a++b", r"(?>a+)b", r"\bfoo\b", r"\B.", r"\p{Han}+",
    r"\p{^L}+", r"\P{L}+", r"[^\p{L}\p{N}]+", r"\p{Lu}?\p{Ll}+", r"[\p{M}]+", r".", r".+", r"\x41+", r"一", r"[一-龥]+", r"\p{Hiragana}+|\p{Katakana}+",
    r"a|", "", r"[^a]", r"\p{P}+|\p{S}+", r"\p{Z}+", r"\p{C}+", r"\p{Cn}", r"\p{Nd}|\p{No}|\p{Nl}", r"\p{Greek}+", r"\p{Hebrew}+", r"\p{Thai}+", r"\p{Hangul}+",
    r"(?:ab|a)(?:c|bcd)", r"(a|b)*c", r"x{2,}", r"\p{L}{,3}", r"[a-zA-Z]+(?=\s)", r"\r\n|\n", r"(?=[A-Z])", r"\A.", r".\z", r"\p{Letter}+", r"\p{LC}+",
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", r" ?\p{L}+", r"'(?i:[sdmt]|ll|ve|re)",
]
MAY_REFUSE = [
    r"[a[bc]]+", r"[a-z&&[^b]]+", r"[[:alpha:]]+", r"a(?i)b|c", r"\R", r"\X", r"(?i:ss)", r"(?i:é)", r"(?i:[a-zé])+", r"(a)\1", r"(?<x>a)", r"(?m:.)", r"\v",
    r"a{2}?", r"\pL+", r"\G", r"\K", r"[]a]+", r"a{", r"\u4e00", r"\p{Emoji}", r"\p{Alphabetic}+", r"[\W]+", r"(?i:k)", r"a**", r"\N", r"\Qa.b\E", r"(?~a)",
]


class Tool:
    """tests/tools/tokenize, many requests at a time."""

    def __init__(self, program, *tokenizer):
        self.command = [program, *tokenizer]

    def ask(self, requests):
        """[(letter, bytes or ids)] -> bytes or ids, or None where it failed."""
        out = bytearray()
        for letter, data in requests:
            out += struct.pack("<cI", letter.encode(), len(data))
            out += data if isinstance(data, bytes) else struct.pack(f"<{len(data)}I", *data)
        run = subprocess.run(self.command, input=bytes(out), capture_output=True)
        if run.returncode != 0:
            raise SystemExit(f"check_tokenizer: {' '.join(self.command)}: {run.stderr.decode(errors='replace')}")
        self.errors = run.stderr.decode(errors="replace").splitlines()
        answers, at = [], 0
        for letter, _ in requests:
            count = struct.unpack_from("<I", run.stdout, at)[0]
            at += 4
            if count == FAILED:
                answers.append(None)
            elif letter in "dDP":
                answers.append(run.stdout[at : at + count])
                at += count
            else:
                answers.append(list(struct.unpack_from(f"<{count}I", run.stdout, at)))
                at += 4 * count
        return answers


class Score:
    passed = failed = 0

    def count(self, good, what):
        self.passed += good
        self.failed += not good
        if not good and self.failed <= 20:
            print(f"FAILED {what}")


# ---- tokenizers

def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def byte_level(use_regex, prefix=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": use_regex}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


KINDS = {
    "deepseek-v3": {"pre_tokenizer": sequence(*map(split, DEEPSEEK), byte_level(False)), "normalizer": {"type": "Sequence", "normalizers": []}},
    "gpt-2": {"pre_tokenizer": byte_level(True)},
    "gpt-2-prefix": {"pre_tokenizer": byte_level(True, prefix=True)},
    "llama-3": {"pre_tokenizer": sequence(split(LLAMA3), byte_level(False)), "ignore_merges": True},
    "qwen2": {"pre_tokenizer": sequence(split(QWEN2), byte_level(False)), "normalizer": {"type": "NFC"}},
    "o200k": {"pre_tokenizer": sequence(split(O200K), byte_level(False))},
    "starcoder": {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, byte_level(True))},
    "nfkc": {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, byte_level(True)), "normalizer": {"type": "NFKC"}},
    "nfd": {"pre_tokenizer": byte_level(True), "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}]}},
    "merged": {"pre_tokenizer": sequence(split(" ", "MergedWithNext"), split(r"\p{P}", "Contiguous"), split("\n", "MergedWithPrevious"), byte_level(False))},
    "llama-2": {
        "pre_tokenizer": None,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                                                     {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "byte_fallback": True,
        "fuse_unk": True,
    },
}


def corpus(rng, count):
    """Without NUL, which would become a token: such a tokenizer.json is refused."""
    return [texts.text(rng, [], 40).decode(errors="replace").replace("\0", "") for _ in range(count)]


def trained(kind, rng, vocab):
    """The dictionary of a tokenizer.json."""
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": kind.get("normalizer"),
            "pre_tokenizer": kind["pre_tokenizer"], "post_processor": None, "decoder": kind.get("decoder", byte_level(True, prefix=True)),
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "vocab": {}, "merges": []}}
    tokenizer = Tokenizer.from_str(json.dumps(base))
    special, alphabet = [], pre_tokenizers.ByteLevel.alphabet()
    if "byte_fallback" in kind:
        special, alphabet = ["<unk>"] + [f"<0x{b:02X}>" for b in range(256)], []
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=alphabet, special_tokens=special, show_progress=False,
                                  limit_alphabet=300 if special else 1000, max_token_length=24)
    tokenizer.train_from_iterator(corpus(rng, 60), trainer)
    made = json.loads(tokenizer.to_str())
    made["pre_tokenizer"], made["added_tokens"] = kind["pre_tokenizer"], []
    for key in ("ignore_merges", "byte_fallback", "fuse_unk"):
        made["model"][key] = kind.get(key, False)
    if special:
        made["model"]["unk_token"] = "<unk>"
    return made


def add_tokens(made, rng):
    """Added tokens with random options: new ones, and some that the vocabulary has."""
    ids = len(made["model"]["vocab"])
    names = ["<|endoftext|>", "<|begin▁of▁sentence|>", "<｜User｜>", "<s>", "</s>", "<|im_start|>", "<|", "|>", "foo", "Foo", "é", "中", "\n\n", " the", "e\u0301x", "\U0001f600"]
    rng.shuffle(names)
    names = names[: rng.randrange(2, len(names))]
    in_vocab = [t for t in made["model"]["vocab"] if t.isascii() and len(t) > 1 and not t.startswith("<0x")]
    names += rng.sample(in_vocab, min(2, len(in_vocab)))
    rows = []
    spaced = any(name[0].isspace() for name in names)  # the reference dies of such a token in space that rstrip has taken
    for name in dict.fromkeys(names):
        known = made["model"]["vocab"].get(name)
        flag = lambda share: rng.random() < share
        rows.append({"id": ids if known is None else known, "content": name, "single_word": flag(0.2), "lstrip": flag(0.3), "rstrip": flag(0.3) and not spaced,
                     "normalized": flag(0.3), "special": flag(0.5)})
        ids += known is None
    made["added_tokens"] = sorted(rows, key=lambda row: row["id"])
    return [row["content"] for row in made["added_tokens"]]


def add_frame(made, rng):
    """What the post-processor puts around a text."""
    tokens = [row for row in made["added_tokens"] if row["special"]] or made["added_tokens"]
    def item(row):
        return {"SpecialToken": {"id": row["content"], "type_id": 0}}
    chosen = rng.sample(tokens, min(len(tokens), rng.randrange(1, 3)))
    single = [item(chosen[0]), {"Sequence": {"id": "A", "type_id": 0}}] + [item(row) for row in chosen[1:]]
    template = {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {row["content"]: {"id": row["content"], "ids": [row["id"]], "tokens": [row["content"]]} for row in chosen}}
    made["post_processor"] = rng.choice([template, {"type": "Sequence", "processors": [byte_level(True), template]}, byte_level(True)])


# ---- comparing

def random_ids(rng, size):
    top = rng.choice([300, size, size + 40])
    return [rng.randrange(top) for _ in range(rng.randrange(60))]


def cases(reference, rng, count, tokens):
    """[(text, ids, framed ids)], [(ids, text, text without special tokens)] as the reference has them."""
    raw = texts.whole(tokens) + [texts.text(rng, tokens, rng.choice([3, 10, 60])) for _ in range(count)]
    decoded = [t.decode(errors="replace") for t in raw]
    plain = [e.ids for e in reference.encode_batch(decoded, add_special_tokens=False)]
    framed = [e.ids for e in reference.encode_batch(decoded, add_special_tokens=True)]
    ids = plain + [random_ids(rng, reference.get_vocab_size()) for _ in range(count)]
    back = reference.decode_batch(ids, skip_special_tokens=False)
    bare = reference.decode_batch(ids, skip_special_tokens=True)
    return list(zip(raw, plain, framed)), list(zip(ids, back, bare))


def compare(score, tool, name, reference, rng, count, tokens):
    encoded, decoded = cases(reference, rng, count, tokens)
    requests = [(letter, row[0]) for row in encoded for letter in "eE"] + [(letter, row[0]) for row in decoded for letter in "dD"]
    wanted = [ids for row in encoded for ids in row[1:]] + [t.encode() for row in decoded for t in row[1:]]
    for (letter, data), got, want in zip(requests, tool.ask(requests), wanted):
        if got != want:
            differ = next((i for i, (a, b) in enumerate(zip(got or [], want)) if a != b), "the end")
            detail = f"{name} {letter} {data[:200]!r}: differs at {differ}: {(got or [])[:20]} {want[:20]}"
        score.count(got == want, detail if got != want else "")


def check_file(score, program, name, text, rng, count, tokens):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        f.write(text)
        f.flush()
        compare(score, Tool(program, f.name), name, Tokenizer.from_str(text), rng, count, tokens)


def check_patterns(score, program, rng, count):
    behaviors = ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
    some = [t.decode(errors="replace") for t in texts.whole([]) if len(t) < 9000]
    some += [texts.text(rng, [], 20).decode(errors="replace") for _ in range(count)]
    some += ["".join(rng.choice("aabbcABfo 1.\n") for _ in range(rng.randrange(30))) for _ in range(count)]
    for pattern in PATTERNS + MAY_REFUSE:
        behavior, invert = rng.choice(behaviors), rng.random() < 0.3
        tool = Tool(program)
        try:
            made = pre_tokenizers.Split(Regex(pattern), "".join("_" + c.lower() if c.isupper() else c for c in behavior).strip("_"), invert)
        except Exception:  # the reference refuses it: so must we
            made = None
        requests = [("P", json.dumps(split(pattern, behavior, invert)).encode())] + [("p", t.encode()) for t in some]
        answers = tool.ask(requests[:1])
        if answers[0] is None or made is None:
            score.count(answers[0] is None and (made is None or pattern in MAY_REFUSE), f"{pattern!r}: {tool.errors}")
            continue
        for t, got in zip(some, tool.ask(requests)[1:]):
            want = [n for _, (start, end) in made.pre_tokenize_str(t) for n in (len(t[:start].encode()), len(t[:end].encode())) if start < end]
            score.count(got == want, f"{pattern!r} {behavior} {invert} on {t[:60]!r}: {got and got[:20]} {want[:20]}")


# ---- vectors

def write_vectors(folder, seed):
    os.makedirs(folder, exist_ok=True)
    for name, kind in KINDS.items():
        rng = random.Random(f"{seed} {name}")
        made = trained(kind, rng, 560 if "byte_fallback" in kind else 330)
        tokens = add_tokens(made, rng)
        add_frame(made, rng)
        text = json.dumps(made, ensure_ascii=True)
        reference = Tokenizer.from_str(text)
        raw = [texts.text(rng, tokens, 12) for _ in range(40)] + [b"", b" ", b"\r\n \r\n", bytes(range(256))]
        decoded = [t.decode(errors="replace") for t in raw]
        rows = []
        for data, string in zip(raw, decoded):
            ids = reference.encode(string, add_special_tokens=True).ids
            rows.append({"text": data.hex(), "ids": ids, "decoded": reference.decode(ids, skip_special_tokens=False),
                         "bare": reference.decode(ids, skip_special_tokens=True)})
        with open(f"{folder}/{name}.json", "w") as f:
            f.write('{"tokenizer": ' + text + ',\n"cases": [\n' + ",\n".join(json.dumps(row) for row in rows) + "]}\n")


def main():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--tool", default="build/tests/tools/tokenize")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--vectors")
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    if args.vectors:
        write_vectors(args.vectors, args.seed)
        return 0
    print(f"check-tokenizer: seed {args.seed}")
    rng, score = random.Random(args.seed), Score()
    check_patterns(score, args.tool, rng, 60)
    for round in range(args.rounds):
        for name, kind in KINDS.items():
            made = trained(kind, rng, rng.randrange(600, 4000))
            tokens = add_tokens(made, rng)
            add_frame(made, rng)
            check_file(score, args.tool, f"{name} (round {round})", json.dumps(made), rng, args.texts, tokens)
    for path in args.files:
        text = open(path, encoding="utf-8").read()
        check_file(score, args.tool, path, text, rng, args.texts, [t["content"] for t in json.loads(text)["added_tokens"]])
    print(f"check-tokenizer: {score.passed} passed, {score.failed} failed")
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
