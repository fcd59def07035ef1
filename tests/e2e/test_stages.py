"""A training in stages, each a job that starts from the last one's checkpoint: the context is extended twice with YaRN."""

import json
import os
import re

from specs import TINY_MODEL, command, train

SHORT = {**TINY_MODEL, "max_position_embeddings": 32}
YARN = {"type": "yarn", "factor": 8, "mscale": 1, "mscale_all_dim": 1}


def stage(cluster, corpus, before, **more):
    """The job file of a stage after that job."""
    batch = 64 * 32 // more["sequence_length"]
    body = json.loads(train(cluster, corpus, steps=20, model=SHORT, global_batch=batch, init_from=f"job:{before}", **more))
    return json.dumps({**body, "name": f"context-{more['sequence_length']}", "stage": "context-extension"})


def newest(cluster, job):
    return max((c for c in cluster.items("ckpt", "list", job) if c["state"] == "COMMITTED"), key=lambda c: c["step"])


def test_context_extension(cluster, corpus, tmp_path):
    """Three jobs, submitted at once, run one after the other; each begins with the newest weights of the one before, whatever mesh made
    them; the second and third reach beyond the first one's positions; the bill has the stages apart."""
    first = cluster.submit(train(cluster, corpus, steps=60, model=SHORT))
    second = cluster.submit(stage(cluster, corpus, first, sequence_length=64, rope_scaling=YARN))
    third = cluster.submit(stage(cluster, corpus, second, sequence_length=256, rope_scaling=YARN, nodes=1, expert=1))
    assert cluster.job(third)["state"] == "PENDING" and f"{second}" in cluster.ctl("job", "why", third).stdout
    for job in (first, second, third):
        cluster.wait_job(job, "COMPLETED")
    for before, job in ((first, second), (second, third)):
        shown, start = cluster.job(job), newest(cluster, before)
        assert shown["stage"] == "context-extension" and len(shown["attempts"]) == 1
        assert shown["started_at"] >= cluster.job(before)["ended_at"]
        log = cluster.ctl("job", "logs", job).stdout
        assert re.search(rf"starts with the weights of {re.escape(start['path'])}, of step {start['step']} ", log), log
    series = {job: {m["step"]: m["loss"] for m in cluster.metrics(job)} for job in (first, second, third)}
    assert series[first][1] - series[second][1] > 0.5  # it did begin with them
    assert series[second][1] - series[third][1] > -0.5

    hf = tmp_path / "hf"
    cluster.ctl("ckpt", "export", newest(cluster, third)["id"], "--format", "hf", "-o", hf)
    with open(hf / "config.json", encoding="utf-8") as f:
        config = json.load(f)
    assert config["max_position_embeddings"] == 256
    assert config["rope_scaling"] == {**YARN, "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1}

    bill = {i["key"]: i for i in cluster.json("cost", "report", "--by", "stage")["items"]}
    assert bill["pretrain"]["gpu_ms"] == cluster.job(first)["usage"]["gpu_ms"] > 0
    assert bill["context-extension"]["gpu_ms"] == sum(cluster.job(j)["usage"]["gpu_ms"] for j in (second, third))


def test_weights_of_a_job(cluster, corpus):
    """init_from: job:ID of no job is refused; of a job without checkpoints it fails and names the folder; a context beyond the model's needs
    rope_scaling; the job file may say itself when to begin."""
    for option, said in [("train.init_from=job:77", "there is no job 77"), ("train.init_from=job:x", "x is not a whole number")]:
        done = cluster.ctl("job", "submit", cluster._write("a.yaml", train(cluster, corpus)), "--set", option, check=False)
        assert done.returncode != 0 and "train.init_from" in done.stderr and said in done.stderr, done.stderr
    without = stage(cluster, corpus, 1, sequence_length=64)
    done = cluster.ctl("job", "submit", cluster._write("b.yaml", without), check=False)
    assert done.returncode != 0 and "max_position_embeddings" in done.stderr, done.stderr
    failing = cluster.submit(command("exit 93"))
    cluster.wait_job(failing, "FAILED")
    body = {**json.loads(stage(cluster, corpus, failing, sequence_length=32)), "dependencies": {"afterany": failing}}
    shown = cluster.wait_job(cluster.submit(json.dumps(body)), "FAILED")
    assert len(shown["attempts"]) == 1
    assert "train.init_from" in shown["reason"]["text"] and os.path.join(cluster.checkpoints, f"job-{failing:06}-") in shown["reason"]["text"]
