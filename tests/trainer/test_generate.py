"""dstrain generate: text on stdout, the same with speculation, from any layout."""

import re
import subprocess

import pytest

from dstrain import BIN, dstrain


def generate(ckpt, *words, env=None):
    """The new bytes, and the line about them."""
    command = [f"{BIN}/dstrain", "generate", ckpt, *map(str, words)]
    done = subprocess.run(command, capture_output=True, timeout=60, env=env, check=True)
    (line,) = done.stderr.decode().splitlines()
    return done.stdout, line


@pytest.mark.parametrize("layout", ["1", "ep2"])
def test_generate(trainer, layout):
    """A model that has learnt a little repeats itself; speculation, threads and seeds do what they should."""
    trainer.write(steps=60, ckpt_every=60)
    run = trainer.run("run", layout=layout)
    ckpt = run.checkpoint(60)
    text, line = generate(ckpt, "--prompt", "static int ", "--max-new-tokens", 100)
    assert 0 < len(text) <= 100
    assert re.fullmatch(r"dstrain: \d+ tokens, [\d.]+ tokens/s", line)
    guessed, line = generate(ckpt, "--prompt", "static int ", "--max-new-tokens", 100, "--speculate")
    assert guessed == text
    match = re.search(r", (\d+) of (\d+) drafts accepted \(([\d.]+)%\)(, \d+ tokens without: it did not pay)?$", line)
    assert int(match[1]) <= int(match[2]) <= 100
    sampled = ["--prompt", "é", "--temperature", 1, "--top-p", 0.95, "--max-new-tokens", 60, "--seed"]
    one = generate(ckpt, *sampled, 1)[0]
    assert generate(ckpt, *sampled, 1, "--speculate", env={"OMP_NUM_THREADS": "2"})[0] == one
    assert generate(ckpt, *sampled, 1, env={"OMP_NUM_THREADS": "1"})[0] == one
    assert generate(ckpt, *sampled, 2)[0] != one
    text, line = generate(ckpt, "--prompt", "", "--max-new-tokens", 1000)
    assert len(text) <= 256  # max_position_embeddings


def test_refusals(trainer, model, tmp_path):
    """One line, and the status of what is wrong."""
    trainer.write(model={**model, "num_nextn_predict_layers": 0})
    ckpt = trainer.run("run").checkpoint(20)
    for words, status, what in [
        ([ckpt], 64, "--prompt"),
        ([ckpt, "--prompt", "a", "--temperature", "-1"], 64, "--temperature"),
        ([ckpt, "--prompt", "a", "--temperature", "nan"], 64, "--temperature"),
        ([ckpt, "--prompt", "a", "--top-p", "0"], 64, "--top-p"),
        ([ckpt, "--prompt", "a", "--max-new-tokens", "x"], 64, "--max-new-tokens"),
        ([ckpt, "--prompt", "a" * 256], 64, "max_position_embeddings"),
        ([ckpt, "--prompt", "a", "--speculate"], 78, "MTP"),
        (["/none", "--prompt", "a"], 66, "/none"),
        ([tmp_path, "--prompt", "a"], 83, "MANIFEST.json"),
    ]:
        done = dstrain("generate", *words, status=status)
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("dstrain: ") and what in line
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([f"{BIN}/dstrain", "generate", ckpt, "--prompt", "a"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 86 and "cannot write" in done.stderr
