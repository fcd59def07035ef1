"""Models of a tokenizer.json: packing leaves it beside the text, and export, generate and eval find it there."""

import json
import math

import pytest

from dstrain import dstrain
from test_eval import evaluate

WORDS = ["int ", "return ", "static ", "char ", "    ", "/* ", " */", "struct "]


def character_of(byte):
    """GPT-2's character for a byte."""
    if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
        return chr(byte)
    return chr(256 + byte if byte <= 32 else 256 + 33 + byte - 127 if byte <= 160 else 256 + 67)


def tokenizer():
    """All bytes, a few words that merges build from them, and a token that ends a document."""
    vocab = {character_of(b): b for b in range(256)}
    merges = []
    for word in WORDS:
        parts = [character_of(b) for b in word.encode()]
        while len(parts) > 1:
            merged = parts[0] + parts[1]
            if merged not in vocab:
                vocab[merged] = len(vocab)
                merges.append([parts[0], parts[1]])
            parts[:2] = [merged]
    added = [{"id": len(vocab), "content": "<end>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {**model, "byte_fallback": False, "vocab": vocab, "merges": merges},
    }


@pytest.fixture
def trained(trainer, model, tmp_path):
    """(checkpoint, text of the validation corpus)."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "<end>"}}')
    text = "static int é(void)\n{\n    return 0; /* nothing */\n}\n\n" * 150
    (tmp_path / "t.c").write_text(text)
    (tmp_path / "v.c").write_text(text[:1600])
    for name in ("t", "v"):
        dstrain("pack", tmp_path / f"{name}.c", "-o", tmp_path / name, "--tokenizer", folder)
    data = {"train": str(tmp_path / "t"), "valid": str(tmp_path / "v")}
    trainer.write(model={**model, "vocab_size": 400}, steps=60, ckpt_every=60, data=data, optimizer={"lr": 6e-3, "warmup_steps": 5})
    return trainer.run("run").checkpoint(60), text[:1600]


def test_tokenizer(trained, tmp_path):
    """Text in, text out; the text of ids is the text; bits per byte count the text's bytes; the export's tokenizer is the text's."""
    ckpt, text = trained
    out = dstrain("generate", ckpt, "--prompt", "static int é(", "--max-new-tokens", 30).stdout
    assert "return" in out and "\ufffd" not in out
    ids = dstrain("generate", ckpt, "--prompt-ids", " ".join(map(str, encode("static int é("))), "--max-new-tokens", 30).stdout
    words = {i: token for token, i in tokenizer()["model"]["vocab"].items()}
    back = {character_of(b): b for b in range(256)}
    assert bytes(back[c] for i in ids.split() for c in words[int(i)]).decode() == out
    assert dstrain("generate", ckpt, "--prompt", "static int é(", "--max-new-tokens", 30, "--speculate").stdout == out

    got = evaluate(ckpt, "--data", tmp_path / "v", "--sequence-length", 40)
    tokens = encode(text)
    scored = tokens[1 : 1 + got["tokens"]]
    assert got["bytes"] == len("".join(words[i] for i in scored))
    assert got["bits_per_byte"] == pytest.approx(got["loss"] * got["tokens"] / got["bytes"] / math.log(2))

    path = tmp_path / "q.jsonl"
    path.write_text('{"context": "static int é(void)\\n{\\n    return ", "choices": ["0;", "é;", "static "], "answer": 0}\n{"context": "", "target": "static int"}\n')
    got = evaluate(ckpt, "--data", path)
    assert got["acc"] == got["acc_norm"] == got["acc_bytes"] == 1 and got["cloze_items"] == 1
    dstrain("export", ckpt, tmp_path / "hf")
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer" / "tokenizer.json").read_bytes()
    with open(tmp_path / "hf" / "config.json", encoding="utf-8") as f:
        assert json.load(f)["eos_token_id"] == tokenizer()["added_tokens"][0]["id"]
    with open(tmp_path / "hf" / "tokenizer_config.json", encoding="utf-8") as f:
        assert json.load(f)["eos_token"] == "<end>"
    dstrain("import", tmp_path / "hf", tmp_path / "again")
    assert dstrain("generate", tmp_path / "again", "--prompt", "static int é(", "--max-new-tokens", 5).stdout
    done = dstrain("generate", ckpt, "--prompt", "a", "--tokenizer", tmp_path / "none", status=66)
    assert "none" in done.stderr


def encode(text):
    """Greedy merges in their order, as BPE does them."""
    spec = tokenizer()["model"]
    rank = {tuple(pair): i for i, pair in enumerate(spec["merges"])}
    parts = [character_of(b) for b in text.encode()]
    while True:
        best = min((rank.get(pair, 1 << 30), i) for i, pair in enumerate(zip(parts, parts[1:])))
        if best[0] == 1 << 30:
            return [spec["vocab"][p] for p in parts]
        parts[best[1] : best[1] + 2] = [parts[best[1]] + parts[best[1] + 1]]
