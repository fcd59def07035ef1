"""dsctl job report: what the coordinator knows of a job, as a page."""

import json
import os
import re
import signal
import xml.etree.ElementTree as ET

from specs import command, train

XHTML = "{http://www.w3.org/1999/xhtml}"
HASTY = "heartbeat: 500ms\nlease: 2s\nrecovering: 3s\nstop_grace: 1s\nrestart: {backoff_first: 100ms, backoff_max: 1s}\n"


def tables(text):
    """Of the page, which has to be well-formed, as lists of dictionaries."""
    root = ET.fromstring(text.replace("<!DOCTYPE html>", ""))
    found = []
    for table in root.iter(XHTML + "table"):
        rows = [["".join(cell.itertext()) for cell in row] for row in table.iter(XHTML + "tr")]
        found.append([dict(zip(rows[0], row)) for row in rows[1:]])
    return found


def table(text, *columns):
    return next(t for t in tables(text) if t and set(columns) <= set(t[0]))


def test_report_of_a_job(make_cluster, corpus):
    """Curves, attempts with causes, checkpoints, data and money are those of job show, job metrics, ckpt and cost."""
    cluster = make_cluster(dsd_config=HASTY)
    job = cluster.submit(train(cluster, corpus, steps=60, every=10))
    cluster.wait_checkpoint(job, 20)
    assert "The run goes on" in cluster.ctl("job", "report", job).stdout
    os.kill(cluster.ranks(job)[3], signal.SIGKILL)
    shown = cluster.wait_job(job, "COMPLETED")
    metrics = cluster.metrics(job)

    out = f"{cluster.folder}/run.html"
    assert out in cluster.ctl("job", "report", job, "--out", out).stdout
    with open(out, encoding="utf-8") as f:
        page = f.read()
    curve = next(row for row in table(page, "curve", "measured") if row["curve"] == "training")
    assert (curve["first"], curve["last"]) == (f"{metrics[0]['loss']:.4f}", f"{metrics[-1]['loss']:.4f}")
    assert curve["measured"] == "60" and curve["lowest"] == f"{min(m['loss'] for m in metrics):.4f}"
    rows = table(page, "attempt", "how it ended")
    assert [row["how it ended"] for row in rows] == [a["cause"] or "-" for a in shown["attempts"]]
    assert [row["lost steps"] for row in rows][0] == str(shown["attempts"][0]["lost_steps"])
    assert rows[0]["where"] == ", ".join(shown["attempts"][0]["nodes"])
    (source,) = table(page, "source", "sequences shown")
    assert source["source"] == corpus["train"] and source["sequences shown"] == str(60 * 64)
    assert {row["step"] for row in table(page, "size", "shards")} == {str(c["step"]) for c in shown["checkpoints"]}
    assert table(page, "time (UTC)", "event")

    facts = json.loads(cluster.ctl("job", "report", job, "-o", "json").stdout)
    assert facts["schema"] == "ds/report/v1" and facts["layout"]["step"] == 60
    bill = next(i for i in cluster.json("cost", "report", "--by", "job")["items"] if i["key"] == str(job))
    parts = {t["category"]: t["gpu_ms"] for t in facts["time"]}
    assert parts.pop("productive") == bill["productive_gpu_ms"] and parts == bill["badput"]
    assert sum(t["cost_micro_usd"] for t in facts["time"]) == bill["cost_micro_usd"] == facts["usage"]["cost_micro_usd"]
    assert facts["curves"]["loss"]["last"] == metrics[-1]["loss"] and facts["curves"]["balance_maxvio"]["measured"] == 60

    out = f"{cluster.folder}/run.md"
    cluster.ctl("job", "report", job, "--out", out)
    with open(out, encoding="utf-8") as f:
        markdown = f.read()
    pictures = re.findall(r"\]\((run-plots/[a-z-]+\.svg)\)", markdown)
    assert len(pictures) >= 6 and all(ET.parse(f"{cluster.folder}/{p}") for p in pictures)
    assert "▁" in cluster.ctl("job", "report", job, "-o", "md").stdout
    assert tables(cluster.ctl("job", "report", job, "-o", "html").stdout)


def test_report_of_a_command(cluster):
    """A job that reports no steps has a report, too, also before it starts; one that is not there has none."""
    job = cluster.submit(command("exit 3", name="no-steps", hold=True))
    assert "No step has been reported yet" in cluster.ctl("job", "report", job).stdout
    cluster.ctl("job", "release", job)
    cluster.wait_job(job, "FAILED")
    text = cluster.ctl("job", "report", job, "-o", "html").stdout
    assert "FAILED" in text and table(text, "attempt", "how it ended")
    cluster.ctl("job", "report", 999, status=3)
    cluster.ctl("job", "report", job, "-o", "pdf", status=2)
    cluster.ctl("job", "report", job, "-o", "json", "--out", "x", status=2)


def test_cost_of_one_job(cluster):
    """The items of a report add up to the job that was asked for, whoever else is on the bill."""
    jobs = [cluster.submit(command(f"sleep 0.{n}")) for n in (2, 5)]
    for job in jobs:
        cluster.wait_job(job, "COMPLETED")
    facts = [json.loads(cluster.ctl("job", "report", job, "-o", "json").stdout) for job in jobs]
    bill = {i["key"]: i for i in cluster.json("cost", "report", "--by", "job")["items"]}
    assert all(sum(t["gpu_ms"] for t in f["time"]) == bill[str(j)]["gpu_ms"] for f, j in zip(facts, jobs))
    assert cluster.json("cost", "report", "--by", "node")["total"]["gpu_ms"] == sum(b["gpu_ms"] for b in bill.values())
