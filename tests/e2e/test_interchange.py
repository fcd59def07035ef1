"""Weights in and out of a cluster: a job's checkpoint as a Hugging Face folder, and a job that begins with such a folder's weights."""

import json
import os
import subprocess

from cluster import BIN
from specs import TINY_MODEL, train


def dstrain(*words):
    done = subprocess.run([f"{BIN}/dstrain", *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done


def test_out_and_in(cluster, corpus, tmp_path):
    """ckpt export writes the folder with the coordinator's facts; imported again, a second job begins with its weights, and resumes
    from its own checkpoints when it is restarted."""
    first = cluster.submit(train(cluster, corpus, steps=20, every=10))
    cluster.wait_job(first, "COMPLETED")
    newest = max((c for c in cluster.items("ckpt", "list", first) if c["state"] == "COMMITTED"), key=lambda c: c["step"])
    hf = tmp_path / "hf"
    cluster.ctl("ckpt", "export", newest["id"], "--format", "hf", "--dtype", "fp32", "-o", hf)
    with open(hf / "config.json", encoding="utf-8") as f:
        config = json.load(f)
    assert all(config[key] == value for key, value in TINY_MODEL.items())
    card = (hf / "README.md").read_text()
    usage = cluster.job(first)["usage"]
    assert f"| GPU-hours | {usage['gpu_ms'] / 3.6e6:.3f}, of which productive {usage['productive_gpu_ms'] / 3.6e6:.3f} |" in card
    assert f"| cost | ${usage['cost_micro_usd'] / 1e6:.6f} |" in card
    losses = {m["step"]: m for m in cluster.metrics(first)}
    for step in (1, 2, 5, 10, 20):
        assert f"| {step} | {step * 64 * 32:,} | {losses[step]['loss']:.4f} |" in card
    done = cluster.ctl("ckpt", "export", newest["id"], "-o", hf, check=False)
    assert done.returncode == 1 and "is there already" in done.stderr

    ckpt = tmp_path / "imported"
    dstrain("import", hf, ckpt)
    spec = train(cluster, corpus, steps=60, every=10, init_from=str(ckpt))
    second = cluster.submit(spec)
    cluster.wait_checkpoint(second, 10)
    for pid in cluster.ranks(second).values():
        os.kill(pid, 9)
        break
    shown = cluster.wait_job(second, "COMPLETED")
    assert len(shown["attempts"]) == 2 and shown["attempts"][-1]["resume_step"] >= 10
    series = {m["step"]: m for m in cluster.metrics(second)}
    assert abs(series[1]["loss"] - losses[20]["loss"]) < 0.5 < losses[1]["loss"] - series[1]["loss"]


def test_no_such_weights(cluster, corpus, tmp_path):
    """A job whose first weights are not there fails at once, and the reason names them: trying again would not help."""
    job = cluster.submit(train(cluster, corpus, steps=20, init_from=str(tmp_path / "nothing")))
    shown = cluster.wait_job(job, "FAILED")
    assert len(shown["attempts"]) == 1
    assert "train.init_from" in shown["reason"]["text"] and str(tmp_path / "nothing") in shown["reason"]["text"]
