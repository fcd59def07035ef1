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
