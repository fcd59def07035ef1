"""Who starts when: gangs wait as a whole, priority goes before age, a drained node takes nothing new."""

from cluster import wait_for
from specs import command


def test_a_gang_waits_for_all_its_nodes(cluster):
    """A job of two nodes does not start on one; `why` says what it waits for, with counts."""
    small = cluster.submit(command("sleep 60", name="small", nodes=1, gpus=2))
    cluster.wait_job(small, "RUNNING")
    gang = cluster.submit(command("true", name="gang", nodes=2, gpus=2))
    assert cluster.job(gang)["state"] == "PENDING"
    reason = cluster.json("job", "why", gang)
    assert reason["code"] and "2" in reason["text"]
    cluster.ctl("job", "cancel", small)
    assert cluster.wait_job(gang, "COMPLETED")["state"] == "COMPLETED"


def test_priority_then_age(make_cluster):
    """With one slot, waiting jobs run by priority, and by age within it."""
    cluster = make_cluster(workers=1, slots=1)
    trace = f"{cluster.folder}/trace"
    blocker = cluster.submit(command("sleep 60"))
    cluster.wait_job(blocker, "RUNNING")
    jobs = {}
    for name, priority in [("old-low", 0), ("old-high", 10), ("new-low", 0), ("new-high", 10)]:
        jobs[name] = cluster.submit(command(f"echo {name} >> {trace}", name=name, priority=priority))
    cluster.ctl("job", "cancel", blocker)
    for job in jobs.values():
        cluster.wait_job(job, "COMPLETED")
    with open(trace, encoding="utf-8") as f:
        assert f.read().split() == ["old-high", "new-high", "old-low", "new-low"]


def test_two_jobs_never_share_an_accelerator(cluster):
    """Jobs of one accelerator fill the nodes; a fifth waits."""
    jobs = [cluster.submit(command("sleep 60")) for _ in range(5)]
    for job in jobs[:4]:
        cluster.wait_job(job, "RUNNING")
    assert cluster.job(jobs[4])["state"] == "PENDING"
    used = [(n["name"], g["index"], g["job"]) for n in cluster.items("nodes") for g in n["gpus"]]
    assert sorted(u[2] for u in used) == jobs[:4]


def test_drain_and_resume(cluster):
    """A draining node finishes what runs on it, takes nothing new, and returns with resume. The reason and who gave it stay."""
    running = cluster.submit(command("sleep 2", nodes=2, gpus=2))
    cluster.wait_job(running, "RUNNING")
    cluster.ctl("node", "drain", "node2", "--reason", "fan is loud")
    node = cluster.json("node", "show", "node2")
    assert node["state"] == "DRAINING" and node["reason"] == "fan is loud" and node["by"]
    cluster.wait_job(running, "COMPLETED")
    wait_for(lambda: cluster.json("node", "show", "node2")["state"] == "DRAINED", 10, "node2 to be DRAINED")
    single = cluster.submit(command("true", nodes=1))
    gang = cluster.submit(command("true", nodes=2))
    assert cluster.wait_job(single, "COMPLETED")["nodes"] == ["node1"]
    assert cluster.job(gang)["state"] == "PENDING"
    assert "drain" in cluster.ctl("job", "why", gang).stdout.lower()
    cluster.restart_dsd()
    assert cluster.json("node", "show", "node2")["state"] == "DRAINED"
    cluster.ctl("node", "resume", "node2")
    assert cluster.wait_job(gang, "COMPLETED")["state"] == "COMPLETED"


def test_a_late_worker_is_used(make_cluster):
    """A job that fits no node that is up waits for one that comes."""
    cluster = make_cluster(workers=2, slots=1)
    cluster.workers[1].stop()
    job = cluster.submit(command("true", nodes=2))
    assert cluster.job(job)["state"] in ("PENDING", "STARTING")
    cluster.workers[1].start()
    assert cluster.wait_job(job, "COMPLETED")["state"] == "COMPLETED"


def test_time_limit(cluster):
    """A job over its limit is stopped, and says so."""
    job = cluster.submit(command("sleep 60", time_limit="1s"))
    shown = cluster.wait_job(job)
    assert shown["state"] == "FAILED" and "limit" in shown["reason"]["text"], shown["reason"]
