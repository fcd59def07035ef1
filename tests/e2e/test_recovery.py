"""Every program of the cluster may die at any instant. What then happens to a training job."""

import os
import re
import signal
import time

import pytest

from cluster import processes_of, wait_for
from specs import command, train

# A silent node is given up after two seconds instead of thirty, and retries do not wait.
HASTY = "heartbeat: 500ms\nlease: 2s\nrecovering: 3s\nstop_grace: 1s\nrestart: {backoff_first: 100ms, backoff_max: 1s}\n"


@pytest.fixture
def hasty(make_cluster):
    return make_cluster(dsd_config=HASTY)


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def attempts(cluster, job):
    return cluster.job(job)["attempts"]


def check_series(cluster, job, steps):
    """Every step has exactly one row."""
    assert [m["step"] for m in cluster.metrics(job)] == list(range(1, steps + 1))


@pytest.mark.parametrize("pipeline", [1, 2])
def test_killed_rank_resumes_from_the_checkpoint(hasty, corpus, pipeline):
    """Attempt 2 starts at the newest committed step, and the steps after it are counted as lost; data parallel, or a pipeline over the nodes."""
    job = hasty.submit(train(hasty, corpus, steps=80, every=10, parallel={"pipeline": pipeline, "expert": 2}))
    hasty.wait_checkpoint(job, 20)
    kill(hasty.ranks(job)[3])
    shown = hasty.wait_job(job, "COMPLETED")
    first, second = shown["attempts"]
    assert second["resume_step"] >= 20 and second["resume_step"] % 10 == 0
    assert second["first_step"] == second["resume_step"] + 1
    assert second["last_step"] == 80
    assert first["lost_steps"] == first["last_step"] - second["resume_step"]
    assert first["detect_ms"] is not None and second["restart_ms"] > 0
    assert first["cause"] == "rank_killed", first
    check_series(hasty, job, 80)
    assert hasty.json("cost", "verify")["ok"]


def test_killed_coordinator_is_not_noticed_by_the_job(hasty, corpus):
    """The job runs on while dsd is away; the same attempt completes; no step is missing."""
    job = hasty.submit(train(hasty, corpus, steps=80, every=10))
    hasty.wait_checkpoint(job, 10)
    ranks = hasty.ranks(job)
    hasty.dsd.kill()
    time.sleep(1)
    assert hasty.ranks(job) == ranks
    hasty.start_dsd()
    shown = hasty.wait_job(job, "COMPLETED")
    assert [a["attempt"] for a in shown["attempts"]] == [1] and shown["restarts"] == 0
    check_series(hasty, job, 80)


def test_last_call_of_a_killed_rank(hasty, corpus):
    """Of a rank that could say nothing itself its flight recorder says what it was doing."""
    job = hasty.submit(train(hasty, corpus, steps=80, every=10))
    hasty.wait_checkpoint(job, 10)
    kill(hasty.ranks(job)[1])
    hasty.wait_job(job, "COMPLETED")
    texts = " ".join(e["text"] for e in hasty.items("event", "list", "--limit", "0"))
    assert re.search(r"rank 1 on node1 .*\b(in|after|failed in) \w+ \d+ of (world|batch|expert|data)\d+, \d+ bytes", texts), texts


def test_job_that_ends_while_the_coordinator_is_away(hasty):
    """What happened meanwhile is reported when it is back, exactly once."""
    job = hasty.submit(command("sleep 1", nodes=2))
    hasty.wait_job(job, "RUNNING")
    hasty.dsd.kill()
    wait_for(lambda: not hasty.ranks(job), 10, "the ranks to end")
    hasty.start_dsd()
    shown = hasty.wait_job(job, "COMPLETED")
    assert shown["attempt"] == 1 and shown["exit"]["code"] == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_restarted_worker_adopts_the_job(hasty, corpus, how):
    """A worker that comes back finds its ranks and goes on: same processes, same attempt."""
    job = hasty.submit(train(hasty, corpus, steps=80, every=10))
    hasty.wait_checkpoint(job, 10)
    ranks = hasty.ranks(job)
    hasty.workers[1].kill(how)
    assert hasty.ranks(job) == ranks
    hasty.workers[1].start()
    shown = hasty.wait_job(job, "COMPLETED")
    assert [a["attempt"] for a in shown["attempts"]] == [1]
    check_series(hasty, job, 80)


def test_killed_shim_is_retried(hasty, corpus):
    """Without the shim nobody can tell how the ranks end: they are stopped, and the attempt is repeated."""
    job = hasty.submit(train(hasty, corpus, steps=80, every=10))
    hasty.wait_checkpoint(job, 10)
    before = set(hasty.ranks(job).values())
    kill(hasty.shims()[0])
    shown = hasty.wait_job(job, "COMPLETED")
    assert len(shown["attempts"]) == 2 and shown["attempts"][1]["resume_step"] >= 10
    assert not before & set(processes_of(hasty.folder))
    check_series(hasty, job, 80)


def test_node_lost_for_good(make_cluster, corpus):
    """A node that is silent for its lease is given up; its job goes on elsewhere from the checkpoint."""
    cluster = make_cluster(workers=3, dsd_config=HASTY)
    job = cluster.submit(train(cluster, corpus, steps=120, every=10))
    cluster.wait_checkpoint(job, 10)
    lost = cluster.job(job)["nodes"][1]
    worker = next(w for w in cluster.workers if w.name == lost)
    # The machine is gone: worker, shim and ranks.
    for pid in [p for p, (cmd, env) in processes_of(cluster.folder).items() if on_node(cluster, lost, cmd, env)]:
        try:
            kill(pid)
        except ProcessLookupError:
            pass
    worker.popen.wait()
    shown = cluster.wait_job(job, "COMPLETED")
    assert lost not in shown["nodes"] and len(shown["attempts"]) == 2
    assert cluster.json("node", "show", lost)["state"] == "FENCING"  # until it shows that the old ranks are gone
    check_series(cluster, job, 120)
    worker.start()
    wait_for(lambda: cluster.json("node", "show", lost)["state"] == "UP", 10, "the lost node to be UP again")
    assert cluster.json("cost", "verify")["ok"]


def on_node(cluster, name, cmd, env):
    place = f"{cluster.folder}/{name}"
    return any(place + "/" in part or part.endswith(place) or place + ".yaml" in part for part in cmd) or place + "/" in env.get(
        "DS_REPORT_SOCKET", ""
    )


def test_user_fault_is_not_retried(hasty):
    """A program that fails at once, before any checkpoint, would only fail again."""
    job = hasty.submit(command("echo cannot find my own file >&2; exit 1"))
    shown = hasty.wait_job(job, "FAILED")
    assert shown["attempt"] == 1 and shown["exit"]["code"] == 1
    assert "cannot find my own file" in shown["reason"]["text"] + str(shown["attempts"]) + hasty.ctl("job", "show", job).stdout


@pytest.mark.parametrize("code", [65, 78, 93])
def test_codes_that_ask_for_no_retry(hasty, code):
    """Wrong use, wrong data, do not requeue."""
    job = hasty.submit(command(f"exit {code}"))
    shown = hasty.wait_job(job, "FAILED")
    assert shown["attempt"] == 1 and shown["exit"]["code"] == code


def test_transient_failure_is_retried(hasty):
    """75 is tried again, and only as often as the job allows."""
    marker = f"{hasty.folder}/tried"
    job = hasty.submit(command(f"test -e {marker} && exit 0; touch {marker}; exit 75"))
    assert hasty.wait_job(job, "COMPLETED")["attempt"] == 2
    job = hasty.submit(command("exit 75", restart={"max": 2}))
    shown = hasty.wait_job(job, "FAILED")
    assert shown["attempt"] == 3 and shown["exit"]["code"] == 75


def test_one_rank_down_ends_the_others(hasty):
    """A gang lives and dies together: when one rank fails the others are stopped."""
    job = hasty.submit(command("if [ $RANK = 2 ]; then exit 93; fi; sleep 600", nodes=2, gpus=2))
    began = time.monotonic()
    assert hasty.wait_job(job, "FAILED")["exit"]["code"] == 93
    assert time.monotonic() - began < 30
    wait_for(lambda: not hasty.ranks(job), 10, "all ranks to be gone")


def test_cancel_ends_the_whole_process_tree(hasty):
    """Processes that ignore TERM, and children that were put in the background, are gone after the grace."""
    job = hasty.submit(command("trap '' TERM; sleep 600 & (trap '' TERM; setsid sleep 601) & wait; sleep 602", nodes=2))
    hasty.wait_job(job, "RUNNING")
    wait_for(lambda: len(sleeps(hasty)) >= 4, 10, "the sleepers")
    hasty.ctl("cancel", job)
    hasty.wait_job(job, "CANCELLED")
    wait_for(lambda: not sleeps(hasty), 10, "the process trees to be gone")


def sleeps(cluster):
    return [pid for pid, (command_line, _) in processes_of(cluster.folder).items() if command_line[0].endswith("sleep")]
