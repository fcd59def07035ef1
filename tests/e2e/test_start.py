"""The first things a user does: submit, look, wait, read logs, cancel, hold."""

import json

import pytest

from cluster import wait_for
from specs import command

JOB_KEYS = """id name user account queue stage state reason priority nodes_requested gpus_per_node nodes submitted_at started_at
    ended_at attempt epoch restarts exit progress last_checkpoint usage""".split()


def test_a_command_runs_to_its_end(cluster):
    """A gang of two nodes runs a command once per accelerator; its output can be read rank by rank."""
    job = cluster.submit(command("echo rank $RANK of $WORLD_SIZE on node $NODE_RANK; echo oops >&2", nodes=2, gpus=2))
    assert cluster.ctl("job", "wait", job).returncode == 0
    shown = cluster.job(job)
    assert shown["schema"] == "ds/job/v1"
    assert [key for key in JOB_KEYS if key not in shown] == []
    assert shown["state"] == "COMPLETED" and shown["attempt"] == 1 and shown["restarts"] == 0
    assert shown["nodes"] == ["node1", "node2"]
    assert shown["exit"]["code"] == 0
    for rank in range(4):
        assert f"rank {rank} of 4 on node {rank // 2}" in cluster.ctl("job", "logs", job, "--rank", rank).stdout


def test_environment_of_a_rank(cluster):
    """What launchers usually set is set, so that other trainers run unchanged."""
    job = cluster.submit(command("env | sort", nodes=2, gpus=2))
    cluster.ctl("job", "wait", job)
    for rank in range(4):
        lines = cluster.ctl("job", "logs", job, "--rank", rank).stdout.splitlines()
        env = dict(line.split("=", 1) for line in lines if "=" in line)
        expected = {
            "DS_JOB_ID": str(job),
            "DS_ATTEMPT": "1",
            "DS_EPOCH": "1",
            "RANK": str(rank),
            "WORLD_SIZE": "4",
            "LOCAL_RANK": str(rank % 2),
            "LOCAL_WORLD_SIZE": "2",
            "NODE_RANK": str(rank // 2),
        }
        assert {key: env.get(key) for key in expected} == expected
        for key in ["MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "DS_CHECKPOINT_DIR", "DS_REPORT_SOCKET"]:
            assert env.get(key), key


def test_lists_and_short_forms(cluster):
    """jobs, nodes, submit and cancel are short for the noun and verb; lists stand under items."""
    assert [n["name"] for n in cluster.items("nodes")] == ["node1", "node2"]
    node = cluster.json("node", "show", "node1")
    assert node["state"] == "UP" and [g["index"] for g in node["gpus"]] == [0, 1]
    job = cluster.submit(command("sleep 60", name="long"))
    assert [j["id"] for j in cluster.items("jobs")] == [job]
    assert "long" in cluster.ctl("jobs").stdout
    cluster.wait_job(job, "RUNNING")
    cluster.ctl("cancel", job)
    assert cluster.wait_job(job, "CANCELLED")["state"] == "CANCELLED"
    assert cluster.items("jobs", "--state", "RUNNING") == []
    assert [j["id"] for j in cluster.items("jobs", "--all")] == [job]
    wait_for(lambda: not cluster.shims(), 20, "the shim to be gone")


def test_submit_says_what_it_did(cluster, tmp_path):
    """`submitted job 1 (name)`; --dry-run queues nothing; --wait gives the job's own outcome as the exit status."""
    path = tmp_path / "job.yaml"
    path.write_text(command("true", name="one"))
    assert "nothing was queued" in cluster.ctl("job", "submit", path, "--dry-run").stdout.lower() or cluster.items("jobs", "--all") == []
    assert cluster.items("jobs", "--all") == []
    assert cluster.ctl("job", "submit", path).stdout.strip() == "submitted job 1 (one)"
    assert cluster.ctl("job", "submit", path, "--wait").returncode == 0
    path.write_text(command("exit 3", name="bad"))
    assert cluster.ctl("job", "submit", path, "--wait", status=1).returncode == 1


def test_the_same_key_is_the_same_job(cluster, tmp_path):
    """A retry with the same key returns the same job; the same key with another request is a conflict."""
    path = tmp_path / "job.yaml"
    path.write_text(command("true", name="one"))
    first = cluster.ctl("job", "submit", path, "--key", "k1", "--parsable").stdout.strip()
    cluster.restart_dsd()
    assert cluster.ctl("job", "submit", path, "--key", "k1", "--parsable").stdout.strip() == first
    path.write_text(command("true", name="two"))
    cluster.ctl("job", "submit", path, "--key", "k1", status=5)
    assert len(cluster.items("jobs", "--all")) == 1


def test_hold_and_release(cluster):
    """A held job does not start until it is released, and says why."""
    blocker = cluster.submit(command("sleep 60", nodes=2, gpus=2))
    cluster.wait_job(blocker, "RUNNING")
    job = cluster.submit(command("true"))
    cluster.ctl("job", "hold", job)
    assert cluster.job(job)["state"] == "HELD"
    assert "held" in cluster.ctl("job", "why", job).stdout.lower()
    cluster.ctl("job", "cancel", blocker)
    cluster.wait_job(blocker, "CANCELLED")
    assert cluster.job(job)["state"] == "HELD"
    cluster.ctl("job", "release", job)
    assert cluster.wait_job(job, "COMPLETED")["state"] == "COMPLETED"


@pytest.mark.parametrize(
    "args,status",
    [
        (["job", "show", "999"], 3),
        (["node", "show", "nobody"], 3),
        (["ckpt", "show", "999"], 3),
        (["job", "cancel", "999"], 3),
        (["job", "explode"], 2),
        (["job", "show"], 2),
        (["job", "submit", "/nowhere/job.yaml"], 1),
    ],
)
def test_errors_are_one_line_with_a_status(cluster, args, status):
    """Errors go to stderr as one line that starts with the program's name."""
    done = cluster.ctl(*args, check=False)
    assert done.returncode == status, done
    assert done.stderr.startswith("dsctl: ") and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""


def test_unreachable_coordinator(cluster):
    """Status 6, one line, when nobody listens."""
    cluster.dsd.stop()
    done = cluster.ctl("jobs", check=False)
    assert done.returncode == 6 and len(done.stderr.strip().splitlines()) == 1


def test_events_and_status(cluster):
    """Every step of a job's life is an event, in order; the status counts nodes and jobs."""
    job = cluster.submit(command("true"))
    cluster.ctl("job", "wait", job)
    events = cluster.items("event", "list")
    assert [e["seq"] for e in events] == sorted(e["seq"] for e in events)
    assert any(e["job"] == job for e in events)
    status = cluster.json("cluster", "status")
    assert status["gpus"] == 4 and status["gpus_allocated"] == 0
    assert {"state": "UP", "count": 2} in status["nodes"]


def test_stop_leaves_nothing(make_cluster):
    """Daemons end on TERM by themselves; ranks of running jobs go on without their worker, as promised, until the shim is told."""
    cluster = make_cluster()
    cluster.ctl("job", "wait", cluster.submit(command("true")))
    assert [p.stop() for p in cluster.workers] == [0, 0]
    assert cluster.dsd.stop() == 0
    assert not cluster.shims()
    json.dumps(cluster.logs())
