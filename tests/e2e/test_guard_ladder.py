"""A trainer's guard and the coordinator: what is decided is told once, the job goes on from where it should, and the time is booked as lost."""

import glob
import json
import os
import signal
import sqlite3
import subprocess

import pytest

import frames
import wire
from cluster import BIN, wait_for
from specs import TINY_MODEL, command, train

HASTY = "heartbeat: 500ms\nlease: 4s\nrecovering: 3s\nstop_grace: 2s\nrestart: {backoff_first: 100ms, backoff_max: 1s}\n"
BATCH, STEPS = 4, 30
GUARD = {"settle": 8, "window": 8, "rollback": 6, "skip": 6, "factor": 1.2, "margin": 1.0, "patience": 50, "compare_every": 5}
LADDER = ["replay", "rollback", "lower", "hold"]


@pytest.fixture
def hasty(make_cluster):
    return make_cluster(dsd_config=HASTY)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A text that is learnt at once."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "text").write_bytes(b"abcdefgh" * 4000)
    subprocess.run([f"{BIN}/dstrain", "pack", folder / "text", "-o", folder / "packed"], check=True, capture_output=True)
    return {"train": str(folder / "packed")}


def job_file(cluster, corpus, ranks, fault, guard=None, restart_max=0, **more):
    """Some thirty steps of four sequences; each node has one rank."""
    more = {"optimizer": {"lr": 2e-2, "warmup_steps": 2}, "valid_every": 0, "global_batch": BATCH, **more}
    return train(
        cluster, corpus, steps=STEPS, every=3, keep=2, nodes=ranks, gpus=1, expert=1, model=TINY_MODEL, restart_max=restart_max,
        guard={**GUARD, **(guard or {})}, fault=fault, **more,
    )  # fmt: skip


def noise(first_step, batches):
    return {"noise_at": (first_step - 1) * BATCH, "noise_sequences": batches * BATCH}


def decisions(cluster, job):
    (path,) = glob.glob(f"{cluster.checkpoints}/job-{job:06d}-*/guard.jsonl")
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def told(cluster, job, kind="guard."):
    return [e for e in cluster.job(job)["events"] if e["kind"].startswith(kind)]


def check_told_once(cluster, job):
    """Each decision of the run is one event, in order, of the attempt that made it."""
    events = [e for e in told(cluster, job) if e["kind"] != "guard.skip"]
    found = decisions(cluster, job)
    assert [(e["kind"], e["epoch"]) for e in events] == [(f"guard.{d['action']}", d["epoch"]) for d in found]
    assert all(d["text"] in e["text"] for e, d in zip(events, found))
    skips = [e["epoch"] for e in told(cluster, job, "guard.skip")]
    assert skips == [d["epoch"] for d in found if d["action"] in ("rollback", "lower")]


def check_bill(cluster, job):
    """What was given up is lost progress, in the job's own share and in the report alike, and nothing is lost from the sum."""
    assert cluster.json("cost", "verify")["ok"]
    usage = cluster.job(job)["usage"]
    (item,) = [i for i in cluster.json("cost", "report", "--by", "job")["items"] if i["key"] == str(job)]
    assert item["gpu_ms"] == usage["gpu_ms"] == item["productive_gpu_ms"] + sum(item["badput"].values())
    assert item["productive_gpu_ms"] == usage["productive_gpu_ms"] and item["badput"]["lost_progress"] > 0
    return item


def without_time(found):
    return [{k: v for k, v in d.items() if k != "time_ms"} for d in found]


@pytest.mark.parametrize("ranks", [1, 2])
def test_ladder(hasty, plain, ranks):
    """Replay, two rollbacks, hold: every rung a restart by the coordinator at no cost to its budget; a release goes on, and passes the noise over."""
    job = hasty.submit(job_file(hasty, plain, ranks, noise(21, 12), {"settle": 4}))
    held = hasty.wait_job(job, "HELD")
    found = decisions(hasty, job)
    assert [d["action"] for d in found] == LADDER, found
    assert [(d["step"], d["trigger"]) for d in found[:2]] == [(21, "jump")] * 2 and found[1]["replayed"]
    check_told_once(hasty, job)
    # the reason is what a person needs
    why = hasty.json("job", "why", job)["text"]
    assert f"step {found[3]['step']}: loss" in why and f"dsctl job release {job}" in why and f"dsctl job show {job}" in why, why
    assert held["exit"]["class"] == "numeric"
    # where each attempt went on
    attempts = held["attempts"]
    assert [a["guard"] for a in attempts] == LADDER and [a["cause"] for a in attempts] == [f"guard_{a}" for a in LADDER]
    assert attempts[1]["resume_step"] == 18
    assert all(d["back_to"] <= d["step"] - GUARD["rollback"] for d in found[1:3])
    for before, after in zip(found[1:], attempts[2:]):
        assert after["resume_step"] == before["back_to"] and after["first_step"] in (before["back_to"] + 1, None)
    for attempt, after in zip(attempts, attempts[1:]):
        done = attempt["last_step"]
        assert attempt["lost_steps"] == (done - after["resume_step"] if done else None)
    # what lies behind a rollback is given up, and never resumed from
    for ckpt in (c for c in held["checkpoints"] if c["state"] == "COMMITTED"):
        gone = any(ckpt["epoch"] <= d["epoch"] and ckpt["step"] > d["back_to"] for d in found if d["action"] in ("rollback", "lower"))
        assert ckpt["given_up"] == gone and (not gone or "given up" in ckpt["reason"]), ckpt
    check_bill(hasty, job)
    table = hasty.ctl("job", "report", job).stdout.split("Decisions of the guard")[1]
    assert all(f"| {d['action']} | " in table for d in found) and found[3]["text"][:30] in table and "| trigger |" not in table, table
    hasty.ctl("job", "release", job)
    done = hasty.wait_job(job, "COMPLETED")
    assert [d["action"] for d in decisions(hasty, job)] == [*LADDER, "replay", "rollback"]
    check_told_once(hasty, job)
    check_bill(hasty, job)
    assert [m["step"] for m in hasty.metrics(job)] == list(range(1, STEPS + 1)) and done["progress"]["loss"] < 1
    if ranks == 1:
        again = hasty.submit(job_file(hasty, plain, ranks, noise(21, 12), {"settle": 4}))
        hasty.wait_job(again, "HELD")
        assert without_time(decisions(hasty, again)) == without_time(found)


def test_the_bill_of_a_rollback(hasty, plain):
    """The steps between the checkpoint that a rollback goes to and the spike are lost, also those that an earlier attempt had kept."""
    job = hasty.submit(job_file(hasty, plain, 1, noise(21, 1), sequence_length=256))
    hasty.wait_job(job, "COMPLETED")
    found = decisions(hasty, job)
    assert [d["action"] for d in found] == ["replay", "rollback"]
    shown = hasty.job(job)
    item = check_bill(hasty, job)
    # 21 - 18 by the replay, 21 - 15 by the rollback, of which 3 were kept by the first attempt
    assert found[1]["back_to"] == 15 and [a["lost_steps"] for a in shown["attempts"]] == [2, 5, None]
    with sqlite3.connect(f"file:{hasty.state}/ds.db?mode=ro", uri=True) as db:
        booked = dict(db.execute("SELECT category, sum(end_ms - start_ms) FROM ledger WHERE job_id = ? GROUP BY category", (job,)))
        ((from_ms, to_ms),) = db.execute("SELECT from_ms, to_ms FROM lost_work WHERE job_id = ?", (job,))
        kept = sum(
            min(end, to_ms) - max(start, from_ms)
            for start, end in db.execute("SELECT start_ms, end_ms FROM ledger WHERE job_id = ? AND category = 'productive'", (job,))
            if start < to_ms and end > from_ms
        )
        assert from_ms == db.execute("SELECT step_at_ms FROM checkpoint WHERE job_id = ? AND epoch = 1 AND step = 15", (job,)).fetchone()[0]
    assert kept > 0 and item["badput"]["lost_progress"] == booked["lost_progress"] + kept
    assert item["productive_gpu_ms"] == booked["productive"] - kept


def test_nothing_is_told_twice(hasty, plain):
    """Ranks, workers and the coordinator are killed between the decisions: still each is one event."""
    job = hasty.submit(job_file(hasty, plain, 2, noise(21, 4)))
    path = f"{hasty.checkpoints}/job-{job:06d}-*/guard.jsonl"
    wait_for(lambda: glob.glob(path), 60, "a decision", every=0.005)
    hasty.dsd.kill()
    hasty.start_dsd()
    wait_for(lambda: len(decisions(hasty, job)) >= 2, 60, "another decision", every=0.005)
    for pid in hasty.ranks(job).values():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    wait_for(lambda: len(decisions(hasty, job)) >= 3, 60, "a third one", every=0.005)
    hasty.workers[0].kill()
    hasty.workers[0].start()
    hasty.wait_job(job, ("HELD", "COMPLETED"))
    check_told_once(hasty, job)
    assert hasty.json("cost", "verify")["ok"]


@pytest.mark.parametrize("what", ["inf", "nan"])
def test_not_finite(hasty, plain, what):
    """A gradient that is not finite on one rank stops all ranks at that step: nothing is committed from there on."""
    job = hasty.submit(job_file(hasty, plain, 2, {f"{what}_step": 14, f"{what}_rank": 1, "attempts": 2}, precision="fp8"))
    shown = hasty.wait_job(job, "COMPLETED")
    found = decisions(hasty, job)
    assert [(d["action"], d["trigger"], d["step"]) for d in found] == [("replay", "not_finite", 14), ("rollback", "not_finite", 14)]
    assert all(c["step"] < 14 for c in shown["checkpoints"] if c["epoch"] <= 2)
    check_told_once(hasty, job)


def test_the_odd_replica(make_cluster, plain):
    """Of four ranks one has another bit: its node is drained with the reason, the job goes on without it."""
    cluster = make_cluster(dsd_config=HASTY, workers=5, slots=1)
    job = cluster.submit(job_file(cluster, plain, 4, {"flip_step": 10, "flip_rank": 2, "attempts": 1}, restart_max=1))
    shown = cluster.wait_job(job, "COMPLETED")
    (found,) = decisions(cluster, job)
    assert (found["action"], found["trigger"], found["step"], found["odd_rank"]) == ("corrupt", "replicas", 10, 2)
    assert "on rank 2 it differs" in found["text"]
    bad = shown["attempts"][0]["nodes"][2]
    assert bad not in shown["attempts"][1]["nodes"] and shown["attempts"][0]["cause"] == "guard_corrupt"
    node = cluster.json("node", "show", bad)
    assert node["state"] == "DRAINED" and node["by"] == "dsd" and "rank 2" in node["reason"]
    assert [e["node"] for e in cluster.items("event", "list") if e["kind"] == "node.quarantined"] == [bad]
    check_told_once(cluster, job)
    cluster.ctl("node", "resume", bad)
    assert cluster.json("node", "show", bad)["state"] == "UP"


def test_two_replicas_blame_nobody(hasty, plain):
    """With two ranks either may be wrong: the job goes on from the last checkpoint, no node is drained."""
    job = hasty.submit(job_file(hasty, plain, 2, {"flip_step": 5, "flip_rank": 1, "attempts": 1}, restart_max=1))
    hasty.wait_job(job, "COMPLETED")
    (found,) = decisions(hasty, job)
    assert found["odd_rank"] == -1 and "either may be wrong" in found["text"]
    assert all(n["state"] == "UP" for n in hasty.items("node", "list"))


class Worker:
    """A worker of a few lines: registers, and says about its attempts what the test wants."""

    def __init__(self, cluster, name, gpus):
        self.socket = frames.connect(cluster.port)
        self.name, self.sent = name, 0
        self.ask("HELLO", protocol=1, program="dsworkerd", version="0")
        gpus = [{"index": i, "uuid": f"{name}-{i}", "model": "cpu"} for i in range(gpus)]
        self.term = wire.decode("WorkerRegisterReply", self.ask("WORKER_REGISTER", name=name, boot_id="b", version="0", gpus=gpus, term_seen=0)[1])["term"]

    def ask(self, method, **values):
        """(kind, payload) of the answer; the coordinator's own orders are ignored."""
        self.sent += 1
        self.socket.sendall(wire.request(method, values, self.sent))
        while True:
            kind, request_id, payload = frames.receive(self.socket)
            if kind in (frames.REPLY, frames.ERROR) and request_id == self.sent:
                return kind, payload


def test_processes_that_survive_kill(cluster):
    """The node is fenced and drained with what it is, and the job does not wait for it; once they are gone the node is its owner's again."""
    worker = Worker(cluster, "bad", 3)
    job = cluster.submit(command("sleep 60", gpus=3, restart={"max": 5}))
    cluster.wait_job(job, "STARTING")
    exits = [{"rank": 0, "code": 75, "signal": 0, "at": 1}]
    stuck = {"job": job, "epoch": 1, "phase": 2, "exits": exits, "stuck": "process 77 (python) survives KILL"}
    for _ in range(2):
        assert worker.ask("ATTEMPT_REPORT", **stuck)[0] == frames.REPLY
    assert cluster.job(job)["state"] == "PENDING" and cluster.job(job)["attempts"][0]["state"] == "ENDED"
    node = cluster.json("node", "show", "bad")
    assert node["state"] == "FENCING" and node["by"] == "dsd" and "process 77 (python) survives KILL" in node["reason"]
    (event,) = [e for e in cluster.items("event", "list") if e["kind"] == "node.quarantined"]
    assert event["node"] == "bad" and "survives KILL" in event["text"]
    assert worker.ask("ATTEMPT_REPORT", job=job, epoch=1, phase=3, exits=exits)[0] == frames.REPLY
    assert cluster.json("node", "show", "bad")["state"] == "DRAINED"
    cluster.ctl("node", "resume", "bad")
    wait_for(lambda: cluster.job(job)["attempt"] == 2, 20, "the job to start again")
    assert cluster.json("cost", "verify")["ok"]


def test_reports_that_make_no_sense(cluster):
    """They are refused, and change nothing."""
    worker = Worker(cluster, "odd", 3)
    job = cluster.submit(command("sleep 60", gpus=3))
    cluster.wait_job(job, "STARTING")
    good = {"job": job, "epoch": 1, "decided": 1, "action": "replay", "step": 5, "text": "a jump"}
    bad = [{"action": "dance"}, {"decided": 2}, {"decided": 0}, {"epoch": 2}, {"job": job + 1}, {"text": "x" * 2000}, {"action": "rollback", "back_to": 6}, {"step": 2**63}]
    for change in bad:
        assert worker.ask("GUARD_REPORT", **{**good, **change})[0] == frames.ERROR, change
    assert told(cluster, job) == []
    for _ in range(3):
        assert worker.ask("GUARD_REPORT", **good)[0] == frames.REPLY
    assert [e["kind"] for e in told(cluster, job)] == ["guard.replay"]
