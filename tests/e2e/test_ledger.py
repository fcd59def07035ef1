"""The bill: every accelerator-millisecond in exactly one category, whatever happened, and a chain that shows tampering."""

import json
import shutil
import sqlite3

from specs import command
from test_recovery import HASTY
from test_store import run_dsd  # noqa: F401


def capacity_adds_up(cluster):
    """allocated + down + planned_down + idle = reported, to the millisecond."""
    verified = cluster.json("cost", "verify")
    assert verified["ok"] and not verified.get("problem"), verified
    for c in (verified["capacity"], cluster.json("cost", "report")["capacity"]):
        assert c["allocated"] + c["down"] + c["planned_down"] + c["idle"] == c["reported"], c
    return verified


def test_every_millisecond_is_booked_once(make_cluster):
    """After jobs that ended well and badly, a lost worker, a drained node and two restarts of dsd."""
    cluster = make_cluster(dsd_config=HASTY)
    for script in ("sleep 0.3", "exit 93", "sleep 0.2; exit 75"):
        cluster.wait_job(cluster.submit(command(script, nodes=2, gpus=2, restart={"max": 1})))
    capacity_adds_up(cluster)
    cluster.restart_dsd()
    cluster.workers[1].kill()
    cluster.ctl("node", "drain", "node1", "--reason", "test")
    from cluster import wait_for

    wait_for(lambda: cluster.json("node", "show", "node2")["state"] == "DOWN", 20, "node2 to be DOWN")
    cluster.workers[1].start()
    cluster.ctl("node", "resume", "node1")
    cluster.wait_nodes(2)
    cluster.restart_dsd()
    verified = capacity_adds_up(cluster)
    assert verified["capacity"]["down"] > 0 and verified["capacity"]["planned_down"] > 0
    assert verified["capacity"]["allocated"] > 4 * 300


def test_report_rolls_up(cluster):
    """The same milliseconds and dollars, whichever way they are added."""
    for name, account, stage in [("a", "red", "pretrain"), ("b", "red", "eval"), ("c", "blue", "eval")]:
        cluster.wait_job(cluster.submit(command("sleep 0.3", name=name, account=account, stage=stage, gpus=2)))
    totals = {}
    for by in ["job", "user", "account", "stage", "queue", "node"]:
        report = cluster.json("cost", "report", "--by", by)
        assert all(i["gpu_ms"] == i["productive_gpu_ms"] + sum(i["badput"].values()) for i in report["items"]), by
        totals[by] = sum(i["gpu_ms"] for i in report["items"]), sum(i["cost_micro_usd"] for i in report["items"])
    assert len(set(totals.values())) == 1, totals
    by_account = {i["key"]: i for i in cluster.json("cost", "report", "--by", "account")["items"]}
    assert set(by_account) >= {"red", "blue"}
    assert by_account["red"]["gpu_ms"] > by_account["blue"]["gpu_ms"] > 0


def test_usage_of_a_job_is_in_the_report(cluster):
    """job show and cost report say the same."""
    job = cluster.submit(command("sleep 0.5", nodes=2, gpus=2))
    shown = cluster.wait_job(job)
    item = next(i for i in cluster.json("cost", "report", "--by", "job")["items"] if str(job) in i["key"])
    assert shown["usage"]["gpu_ms"] == item["gpu_ms"] >= 4 * 500
    assert shown["usage"]["cost_micro_usd"] == item["cost_micro_usd"]


def test_tampering_is_found(cluster, tmp_path):
    """Somebody with write access to the file changes a closed interval: cost verify names the row."""
    cluster.wait_job(cluster.submit(command("sleep 0.3", nodes=2, gpus=2)))
    assert cluster.json("cost", "verify")["ok"]
    cluster.dsd.stop()
    path = f"{cluster.state}/ds.db"
    shutil.copy(path, tmp_path / "good.db")
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER ledger_no_update")
        db.execute("UPDATE ledger SET cost_micro_usd = cost_micro_usd + 1 WHERE seq = 3")
    db.close()
    cluster.start_dsd()
    done = cluster.ctl("cost", "verify", "-o", "json", check=False)
    verified = json.loads(done.stdout)
    assert done.returncode == 1 and not verified["ok"] and any("3" in p for p in verified["problem"]), verified
