"""Text packed with a tokenizer.json, and everything that follows from that: training, evaluation, generation, export, import."""

import json
import os
import struct

import pytest

from dstrain import ROOT, Trainer, dstrain

TEXTS = [os.path.join(ROOT, name) for name in ("LICENSE", "lib/file.c", "trainer/data.c", "HACKING.md")]


def vectors(name):
    with open(os.path.join(ROOT, "tests", "reference", "vectors", "tokenizer", f"{name}.json"), encoding="utf-8") as f:
        return json.load(f)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tokenizer.json of 330 tokens and some, and a tokenizer_config.json that names the end of a document."""
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer = vectors("llama-3")["tokenizer"]
    special = next(t for t in tokenizer["added_tokens"] if t["special"] and not t["normalized"])
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": {"content": special["content"]}}))
    return path, special["id"], 1 + max(t["id"] for t in tokenizer["added_tokens"])


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory):
    prefix = str(tmp_path_factory.mktemp("packed") / "text")
    dstrain("pack", *TEXTS, "-o", prefix, "--tokenizer", folder[0], "--document-bytes", "1000", "--split-valid", "0.1")
    return prefix


@pytest.fixture(scope="module")
def checkpoint(packed, folder, tmp_path_factory):
    """A model of that vocabulary after two steps."""
    path = tmp_path_factory.mktemp("run")
    trainer = Trainer(path, packed)
    with open(os.path.join(ROOT, "etc", "models", "tiny.json"), encoding="utf-8") as f:
        model = json.load(f)
    trainer.write(steps=2, model={**model, "vocab_size": folder[2] + 5})
    return trainer.run("run").checkpoint(2)


def documents(prefix):
    """[[ids]] of a packed corpus."""
    with open(prefix + ".idx", "rb") as f:
        index = f.read()
    count = struct.unpack_from("<Q", index, 18)[0]
    lengths = struct.unpack_from(f"<{count}i", index, 34)
    with open(prefix + ".bin", "rb") as f:
        data = f.read()
    width, letter = (2, "H") if index[17] == 8 else (4, "i")
    out, at = [], 0
    for n in lengths:
        out.append(list(struct.unpack_from(f"<{n}{letter}", data, at)))
        at += width * n
    return out


@pytest.mark.parametrize("name", ["deepseek-v3", "gpt-2", "llama-3", "qwen2"])
def test_ids(name, tmp_path):
    """A file is a document: the ids of the package tokenizers, then the end."""
    made = vectors(name)
    (tmp_path / "t.json").write_text(json.dumps(made["tokenizer"]))
    end = made["tokenizer"]["added_tokens"][0]["id"]
    cases = [c for c in made["cases"] if c["text"]]
    for i, case in enumerate(cases):
        (tmp_path / str(i)).write_bytes(bytes.fromhex(case["text"]))
    dstrain("pack", *(tmp_path / str(i) for i in range(len(cases))), "-o", tmp_path / "c", "--tokenizer", tmp_path / "t.json",
            "--eod", end, "--add-special", "--document-bytes", "0")
    for case, got in zip(cases, documents(str(tmp_path / "c"))):
        assert got == (case["ids"] if case["ids"][-1:] == [end] else [*case["ids"], end])


def test_threads(folder, tmp_path):
    """The output does not depend on the number of threads."""
    for threads in (1, 2, 7):
        dstrain("pack", *TEXTS, *TEXTS, "-o", tmp_path / f"c{threads}", "--tokenizer", folder[0], "--threads", threads, "--document-bytes", "100",
                "--split-valid", "0.2")
    for end in (".bin", ".idx", "-valid.bin", "-valid.idx"):
        assert len({(tmp_path / f"c{threads}{end}").read_bytes() for threads in (1, 2, 7)}) == 1


def test_beside(packed, folder, tmp_path):
    """The tokenizer stays beside the corpus; packing again replaces it, and bytes leave none."""
    with open(packed + ".tokenizer.json", "rb") as f:
        assert f.read() == (folder[0] / "tokenizer.json").read_bytes()
    with open(packed + ".tokenizer_config.json", encoding="utf-8") as f:
        config = json.load(f)
    content = json.loads((folder[0] / "tokenizer_config.json").read_text())["eos_token"]
    assert config["eos_token"] == content["content"] and config["vocab_size"] == folder[2]
    prefix = str(tmp_path / "c")
    dstrain("pack", TEXTS[0], "-o", prefix, "--tokenizer", packed + ".tokenizer.json", "--eod", content["content"])
    first = documents(prefix)
    assert first[0][-1] == folder[1]
    dstrain("pack", TEXTS[0], "-o", prefix, "--tokenizer", prefix + ".tokenizer.json", "--eod", ",")
    assert [d[:-1] for d in documents(prefix)] == [d[:-1] for d in first] and documents(prefix)[0][-1] == vectors("llama-3")["tokenizer"]["model"]["vocab"][","]
    dstrain("pack", TEXTS[0], "-o", prefix)
    assert sorted(os.listdir(tmp_path)) == ["c.bin", "c.idx"]


def test_too_small_a_model(packed, folder, tmp_path, model):
    """A run whose model has fewer ids than the tokenizer is refused at once."""
    trainer = Trainer(tmp_path, packed)
    trainer.write(steps=1, model={**model, "vocab_size": folder[2] - 1})
    done = dstrain("run", trainer.spec, "--out", tmp_path / "out", status=78)
    assert str(folder[2] - 1) in done.stderr and "vocab_size" in done.stderr


def test_eval(checkpoint, packed):
    """Bits per byte count the bytes of text that the tokens stand for."""
    got = json.loads(dstrain("eval", checkpoint, "--data", packed + "-valid", "--json").stdout)
    tokens = sum(documents(packed + "-valid"), [])[1 : got["tokens"] + 1]
    tokenizer = vectors("llama-3")["tokenizer"]
    size = {i: len(t) for t, i in tokenizer["model"]["vocab"].items()}  # a character of the alphabet is a byte
    size.update({t["id"]: 0 if t["special"] else len(t["content"].encode()) for t in tokenizer["added_tokens"]})
    assert got["bytes"] == sum(size[t] for t in tokens) < 3 * len(tokens)
    assert got["bits_per_byte"] == pytest.approx(got["loss"] * got["tokens"] / 0.6931471805599453 / got["bytes"])


def test_generate(checkpoint, folder):
    """Text, as the checkpoint's tokenizer spells it; an empty prompt; the same under speculation."""
    plain = dstrain("generate", checkpoint, "--prompt", "the file ", "--max-new-tokens", 40).stdout
    assert plain == dstrain("generate", checkpoint, "--prompt", "the file ", "--max-new-tokens", 40, "--tokenizer", folder[0]).stdout
    assert plain != dstrain("generate", checkpoint, "--prompt", "the file ", "--max-new-tokens", 40, "--tokenizer", "bytes", errors="replace").stdout
    dstrain("generate", checkpoint, "--prompt", "", "--max-new-tokens", 3)
    done = dstrain("generate", checkpoint, "--prompt", "x", "--tokenizer", "words", status=66)
    assert "words" in done.stderr


def test_interchange(checkpoint, folder, tmp_path):
    """An export has the tokenizer and its end; an import keeps it, and generates the same."""
    dstrain("export", checkpoint, tmp_path / "hf", "--dtype", "fp32")
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == (folder[0] / "tokenizer.json").read_bytes()
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "hf" / name).read_text())["eos_token_id"] == folder[1]
    dstrain("import", tmp_path / "hf", tmp_path / "ckpt")
    args = ("--prompt", "struct ", "--max-new-tokens", 20)
    assert dstrain("generate", checkpoint, *args).stdout == dstrain("generate", tmp_path / "ckpt", *args).stdout


def test_refused(folder, tmp_path):
    """No end of a document, one that is no token, a file that is no tokenizer, one that uses what is not there: one line, no output."""
    (tmp_path / "bare.json").write_bytes((folder[0] / "tokenizer.json").read_bytes())
    (tmp_path / "unigram.json").write_text('{"model": {"type": "Unigram", "vocab": []}}')
    (tmp_path / "text.json").write_text("hello")
    for options, status, words in (
        ((tmp_path / "bare.json",), 64, "--eod"),
        ((tmp_path / "bare.json", "--eod", "<none>"), 64, "<none>"),
        ((tmp_path / "unigram.json", "--eod", "0"), 65, "Unigram"),
        ((tmp_path / "text.json", "--eod", "0"), 65, "text.json"),
    ):
        done = dstrain("pack", TEXTS[0], "-o", tmp_path / "c", "--tokenizer", *options, status=status)
        assert words in done.stderr and done.stderr.count("\n") == 1
    assert not [name for name in os.listdir(tmp_path) if name.startswith("c")]
