"""dstrain eval: the same numbers as validation during training, on one process, from any layout."""

import json
import math
import shutil

import pytest

from dstrain import dstrain


def evaluate(*words):
    return json.loads(dstrain("eval", *words, "--json").stdout)


@pytest.mark.parametrize("layout", ["1", "dp2xep2"])
def test_corpus(trainer, corpus, layout):
    """The loss is that of the validation after the last step; all windows unless told otherwise."""
    run = trainer.run("run", layout=layout)
    windows = 2 * 8  # valid_batches x global_batch
    got = evaluate(run.checkpoint(20), "--data", corpus + "-valid", "--batches", windows)
    assert got["windows"] == windows and got["tokens"] == windows * 32
    assert got["loss"] == pytest.approx(run.metrics()[20]["valid_loss"], abs=2e-5)
    assert got["perplexity"] == pytest.approx(math.exp(got["loss"]))
    whole = evaluate(run.checkpoint(20), "--data", corpus + "-valid")
    with open(corpus + "-valid.bin", "rb") as f:
        tokens = memoryview(f.read()).cast("H")
    assert whole["windows"] == (len(tokens) - 1) // 32
    scored = tokens[1 : 1 + whole["windows"] * 32]
    assert whole["bytes"] == sum(t < 256 for t in scored) < len(scored)
    assert whole["bits_per_byte"] == pytest.approx(whole["loss"] * len(scored) / whole["bytes"] / math.log(2))
    line = dstrain("eval", run.checkpoint(20), "--data", corpus + "-valid").stdout
    assert line.startswith(f"loss={whole['loss']:.6f} ") and "bits_per_byte=" in line


def test_longer_windows(trainer, corpus):
    """The windows' length can be chosen, up to what the model allows."""
    run = trainer.run("run")
    got = evaluate(run.checkpoint(20), "--data", corpus + "-valid", "--sequence-length", 100)
    assert got["sequence_length"] == 100 and got["tokens"] == got["windows"] * 100
    done = dstrain("eval", run.checkpoint(20), "--data", corpus, "--sequence-length", 1000, status=64)
    assert "max_position_embeddings 256" in done.stderr


def test_refusals(trainer, corpus, model, tmp_path):
    """One line, and the status of what is wrong."""
    run = trainer.run("run")
    ckpt = run.checkpoint(20)
    for words, status, what in [
        ([], 64, "CKPT"),
        ([ckpt], 64, "--data"),
        ([ckpt, "--data", corpus, "--batches", "0"], 64, "--batches"),
        ([ckpt, "--data", "/none"], 66, "/none.idx"),
        (["/none", "--data", corpus], 66, "/none"),
        ([tmp_path, "--data", corpus], 83, "MANIFEST.json"),
    ]:
        lines = dstrain("eval", *words, status=status).stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("dstrain: ")
        assert what in lines[0] or "checkpoint folder" in lines[0]
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**model, "rope_theta": 5000.0}))
    assert "other.json is not the configuration" in dstrain("eval", ckpt, "--data", corpus, "--model", other, status=78).stderr
    damaged = tmp_path / "damaged"
    shutil.copytree(ckpt, damaged)
    (shard,) = damaged.glob("shard-*")
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    assert shard.name in dstrain("eval", damaged, "--data", corpus, status=83).stderr


def ask(ckpt, path, *items):
    path.write_text("".join(json.dumps(item) + "\n\n" for item in items))
    return evaluate(ckpt, "--data", path)


def likelihood(ckpt, path, context, target):
    """Nats of the target, and whether it is the greedy one."""
    got = ask(ckpt, path, {"context": context, "target": target})
    assert got["cloze_items"] == 1
    return -math.log(got["cloze_perplexity"]), got["cloze_acc"] == 1


def test_questions(trainer, tmp_path):
    """Likelihoods are those of the corpus evaluation; choices are told apart by them; greedy targets are what generate gives."""
    trainer.write(steps=60, ckpt_every=60)
    ckpt = trainer.run("run", layout="ep2").checkpoint(60)
    path = tmp_path / "q.jsonl"
    text = "the number of bytes, é, in it: 32"[:32]
    (tmp_path / "t.txt").write_text(text)
    dstrain("pack", tmp_path / "t.txt", "-o", tmp_path / "t")
    packed = evaluate(ckpt, "--data", tmp_path / "t")
    assert packed["tokens"] == 32 and len(text.encode()) == 33
    assert -likelihood(ckpt, path, text[0], text[1:])[0] == pytest.approx(packed["loss"] * 32, rel=1e-4)

    context, choices = "return ", ["0;\n", "a long choice that is not likely", "é", "err_set"]
    nats = [likelihood(ckpt, path, context, c)[0] for c in choices]
    best = max(range(4), key=lambda i: nats[i])
    best_norm = max(range(4), key=lambda i: nats[i] / len(choices[i]))
    best_bytes = max(range(4), key=lambda i: nats[i] / len(choices[i].encode()))
    items = [{"context": context, "choices": choices, "answer": i} for i in (best, best_norm, 1)]
    got = ask(ckpt, path, *items)
    assert got["choice_items"] == 3
    assert got["acc"] == pytest.approx(sum(i["answer"] == best for i in items) / 3)
    assert got["acc_norm"] == pytest.approx(sum(i["answer"] == best_norm for i in items) / 3)
    assert got["acc_bytes"] == pytest.approx(sum(i["answer"] == best_bytes for i in items) / 3)

    moved = [likelihood(ckpt, path, *pair) for pair in (("return  ", "x"), ("return ", " x"), ("return", "  x"))]
    assert moved[0] == moved[1] == moved[2]
    wide = [likelihood(ckpt, path, *pair) for pair in (("return\u3000\u00a0", "x"), ("return", "\u3000\u00a0x"))]
    assert wide[0] == wide[1]
    greedy = dstrain("generate", ckpt, "--prompt", "return", "--max-new-tokens", "5").stdout
    assert likelihood(ckpt, path, "return", greedy)[1]
    assert not likelihood(ckpt, path, "return", greedy[:-1] + "\x07")[1]
    long = ask(ckpt, path, {"context": "x" * 100 + "abc " * 100, "target": "de"})
    assert long["truncated"] == 1
    short = ask(ckpt, path, {"context": ("abc " * 100)[-255:], "target": "de"})
    assert short["truncated"] == 0 and short["cloze_perplexity"] == long["cloze_perplexity"]
    empty = ask(ckpt, path, {"context": "", "target": "a"}, {"context": "a", "target": "b"})
    assert empty["cloze_items"] == 2 and "acc" not in empty
    assert dstrain("eval", ckpt, "--data", path).stdout.startswith("cloze_items=2 cloze_acc=")


@pytest.mark.parametrize(
    "line,words",
    [
        ("{", "q.jsonl:2: "),
        ("[1]", "q.jsonl:2: expected"),
        ('{"context":"a"}', "expected"),
        ('{"context":"a","target":"b","choices":["c"],"answer":0}', "expected"),
        ('{"context":"a","choices":["b"],"answer":1}', "answer"),
        ('{"context":"a","choices":["b"],"answer":"0"}', "answer"),
        ('{"context":"a","choices":["b",1],"answer":0}', "choices"),
        ('{"context":"a","target":""}', "empty"),
        (json.dumps({"context": "a", "target": "b" * 257}), "longer"),
    ],
)
def test_bad_questions(trainer, tmp_path, line, words):
    """A question that makes no sense is status 65 with file and line."""
    trainer.write(steps=1, optimizer={"lr": 3e-3}, ckpt_every=1, valid_every=0)
    ckpt = trainer.run("run").checkpoint(1)
    path = tmp_path / "q.jsonl"
    path.write_text('{"context":"a","target":"b"}\n' + line + "\n")
    done = dstrain("eval", ckpt, "--data", path, status=65)
    assert done.stdout == "" and "q.jsonl:2: " in done.stderr and words in done.stderr
    path.write_text("\n")
    assert "no question" in dstrain("eval", ckpt, "--data", path, status=65).stderr
    dstrain("eval", ckpt, "--data", tmp_path / "none.jsonl", status=66)
    dstrain("eval", ckpt, "--data", path, "--batches", 1, status=64)
