"""Checkpoints and the data they come from: damage is found, named, and stepped over; a full disk costs a retry, not the run."""

import glob
import json
import os
import signal
import struct

from cluster import wait_for
from disk import SmallDisk
from specs import train
from test_recovery import HASTY, check_series, kill


def run_until(cluster, corpus, steps, pause_at):
    """A training job that has a committed checkpoint at pause_at, and is held there: nothing of it runs."""
    job = cluster.submit(train(cluster, corpus, steps=steps, every=10))
    cluster.wait_checkpoint(job, pause_at)
    cluster.ctl("job", "hold", job)
    cluster.wait_job(job, "HELD")
    wait_for(lambda: not cluster.ranks(job), 10, "the ranks to be gone")
    return job


def committed(cluster, job):
    return sorted((c for c in cluster.items("ckpt", "list", job) if c["state"] == "COMMITTED"), key=lambda c: c["step"])


def shard_of(cluster, ckpt, rank):
    shown = cluster.json("ckpt", "show", ckpt["id"])
    entry = next(s for s in shown["shard_list"] if s["rank"] == rank)
    return os.path.join(shown["path"], entry["file"])


def test_listed_checkpoints_are_on_disk(make_cluster, corpus):
    """Each committed one has its manifest in place, with the digests the coordinator committed; `keep` bounds how many stay, beside those that the guard can go back to."""
    cluster = make_cluster(dsd_config=HASTY)
    job = cluster.submit(train(cluster, corpus, steps=60, every=10, keep=2, guard={"rollback": 10}))
    cluster.wait_job(job, "COMPLETED")
    wait_for(lambda: len(committed(cluster, job)) == 3, 10, "retention to leave three")
    listed = committed(cluster, job)
    assert [c["step"] for c in listed] == [40, 50, 60]
    for ckpt in listed:
        with open(os.path.join(ckpt["path"], "MANIFEST.json"), encoding="utf-8") as f:
            manifest = json.load(f)
        assert manifest["step"] == ckpt["step"] and len(manifest["shards"]) == ckpt["shards"] == 4
        assert sum(os.path.getsize(os.path.join(ckpt["path"], s["file"])) for s in manifest["shards"]) == ckpt["bytes"]
        assert cluster.ctl("ckpt", "verify", ckpt["id"]).returncode == 0
    wait_for(lambda: len(glob.glob(f"{cluster.checkpoints}/**/MANIFEST.json", recursive=True)) == 3, 10, "old folders to go")
    job_folder = os.path.dirname(os.path.dirname(listed[0]["path"]))
    assert glob.glob(f"{job_folder}/tb/events.out.tfevents.*"), "the curves outlive the attempt"


def damage(path, how):
    with open(path, "r+b") as f:
        size = os.path.getsize(path)
        if how == "truncated":
            f.truncate(size - 100)
        else:
            f.seek(size * 2 // 3)
            byte = f.read(1)[0]
            f.seek(size * 2 // 3)
            f.write(bytes([byte ^ 4]))


def check_damage(cluster, corpus, how):
    job = run_until(cluster, corpus, steps=80, pause_at=30)
    newest = committed(cluster, job)[-1]
    previous = committed(cluster, job)[-2]
    path = shard_of(cluster, newest, rank=2)
    damage(path, how)
    done = cluster.ctl("ckpt", "verify", newest["id"], check=False)
    assert done.returncode == 1
    assert os.path.basename(path) in done.stdout + done.stderr and "CORRUPT" in done.stdout + done.stderr
    assert cluster.json("ckpt", "show", newest["id"])["state"] == "CORRUPT"
    cluster.ctl("job", "release", job)
    shown = cluster.wait_job(job, "COMPLETED")
    assert shown["attempts"][-1]["resume_step"] == previous["step"]
    check_series(cluster, job, 80)


def test_flipped_bit_is_found_by_verify(make_cluster, corpus):
    """verify says CORRUPT and names the file; the job goes on from the checkpoint before."""
    check_damage(make_cluster(dsd_config=HASTY), corpus, "flipped")


def test_truncated_shard_is_found_by_verify(make_cluster, corpus):
    check_damage(make_cluster(dsd_config=HASTY), corpus, "truncated")


def test_damage_nobody_looked_for(make_cluster, corpus):
    """Without a verify the trainer finds the flipped bit when it loads: it exits with 83, and the job resumes from the one before."""
    cluster = make_cluster(dsd_config=HASTY)
    job = run_until(cluster, corpus, steps=80, pause_at=30)
    newest, previous = committed(cluster, job)[-1], committed(cluster, job)[-2]
    damage(shard_of(cluster, newest, rank=1), "flipped")
    cluster.ctl("job", "release", job)
    shown = cluster.wait_job(job, "COMPLETED")
    assert shown["attempts"][-1]["resume_step"] == previous["step"]
    assert cluster.json("ckpt", "show", newest["id"])["state"] == "CORRUPT"
    check_series(cluster, job, 80)


def test_data_index_out_of_range(make_cluster, corpus, tmp_path):
    """An index that points past the end of the data is wrong data: exit 65, one clear line, no retry."""
    for suffix in (".bin", ".idx"):
        with open(corpus["train"] + suffix, "rb") as f:
            (tmp_path / f"broken{suffix}").write_bytes(f.read())
    with open(tmp_path / "broken.bin", "r+b") as f:
        f.truncate(os.path.getsize(corpus["train"] + ".bin") // 2)
    cluster = make_cluster(dsd_config=HASTY)
    job = cluster.submit(train(cluster, {"train": str(tmp_path / "broken")}, steps=20, valid_every=0))
    shown = cluster.wait_job(job, "FAILED")
    assert shown["exit"]["code"] == 65 and shown["attempt"] == 1
    assert "broken" in cluster.ctl("job", "logs", job, "--stderr", check=False).stdout + shown["reason"]["text"]


def test_token_outside_the_vocabulary(make_cluster, corpus, tmp_path):
    """A token id that the model has no row for is wrong data, not a crash."""
    with open(corpus["train"] + ".idx", "rb") as f:
        (tmp_path / "odd.idx").write_bytes(f.read())
    with open(corpus["train"] + ".bin", "rb") as f:
        tokens = bytearray(f.read())
    for i in range(0, len(tokens) - 2, 2):
        struct.pack_into("<H", tokens, i, 60000)
    (tmp_path / "odd.bin").write_bytes(tokens)
    cluster = make_cluster(dsd_config=HASTY)
    job = cluster.submit(train(cluster, {"train": str(tmp_path / "odd")}, steps=20, valid_every=0))
    shown = cluster.wait_job(job, "FAILED")
    assert shown["exit"]["code"] == 65 and shown["attempt"] == 1


def test_full_disk_during_a_checkpoint(make_cluster, corpus):
    """The job is held with one clear line, the committed checkpoint stays good, and the job goes on when somebody made room."""
    cluster = make_cluster(dsd_config=HASTY)
    with SmallDisk(cluster.checkpoints, megabytes=64) as disk:
        spec = json.loads(train(cluster, corpus, steps=80, every=10, restart_max=1000))
        spec["env"] = disk.env
        job = cluster.submit(json.dumps(spec))
        good = cluster.wait_checkpoint(job, 10)
        disk.fill()
        shown = cluster.wait_job(job, "HELD")
        assert "No space left on device" in shown["reason"]["text"], shown["reason"]
        newest = committed(cluster, job)[-1]
        assert newest["step"] >= good["step"]
        assert cluster.ctl("ckpt", "verify", newest["id"]).returncode == 0
        disk.free()
        cluster.ctl("job", "release", job)
        cluster.wait_job(job, "COMPLETED")
        check_series(cluster, job, 80)
        cluster.close()


def test_resume_is_bit_exact(make_cluster, corpus):
    """Killed in the middle, the loss series is the undisturbed one to the last bit."""
    cluster = make_cluster(dsd_config=HASTY)
    series = []
    for disturbed in (False, True):
        job = cluster.submit(train(cluster, corpus, steps=60, every=10, precision="fp8"))
        if disturbed:
            cluster.wait_checkpoint(job, 20)
            kill(cluster.ranks(job)[0])
        cluster.wait_job(job, "COMPLETED")
        keys = ("step", "loss", "mtp_loss", "valid_loss", "grad_norm")
        series.append([tuple(m.get(k) for k in keys) for m in cluster.metrics(job)])
    assert series[0] == series[1]


def test_stop_signal_saves_first(make_cluster, corpus):
    """TERM to a rank's gang (here by suspending the worker politely through hold) writes a checkpoint before it leaves with 80."""
    cluster = make_cluster(dsd_config=HASTY)
    job = cluster.submit(train(cluster, corpus, steps=2000, every=1000))
    cluster.wait_step(job, 20)
    os.kill(cluster.ranks(job)[0], signal.SIGTERM)
    wait_for(lambda: cluster.job(job)["attempt"] >= 2, 60, "the second attempt")
    assert cluster.job(job)["attempts"][1]["resume_step"] >= 20
    cluster.ctl("cancel", job)
    cluster.wait_job(job, "CANCELLED")
