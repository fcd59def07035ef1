"""The run report: what is in its pages is what the run's files say, and nothing in those files breaks them."""

import html.parser
import json
import math
import os
import random
import re
import signal
import time
import xml.etree.ElementTree as ET

import pytest
from dstrain import dstrain

XHTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"


class Page(html.parser.HTMLParser):
    """Tags, addresses and tables of a page, as a browser would see them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.tables, self.headings, self.text = set(), [], [], [], []
        self.inside = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "data", "action") or k.startswith("on")]
        self.inside.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.headings.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if {"td", "th"} & set(self.inside):
            self.tables[-1][-1][-1] += data
        elif "h2" in self.inside:
            self.headings[-1] += data

    def table(self, *columns):
        """Rows as dictionaries of the first table with these columns."""
        found = next(t for t in self.tables if set(columns) <= set(t[0]))
        return [dict(zip(found[0], row)) for row in found[1:]]


def read(folder, name="report"):
    """Both pages; the HTML parsed twice, and all pictures of the Markdown."""
    with open(f"{folder}/{name}.html", encoding="utf-8") as f:
        text = f.read()
    with open(f"{folder}/{name}.md", encoding="utf-8") as f:
        markdown = f.read()
    root = ET.fromstring(text.replace("<!DOCTYPE html>", ""))
    page = Page(text)
    assert not page.links and "script" not in page.tags and "@import" not in text and "url(" not in text
    assert not page.inside
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", markdown)
    for picture in pictures:
        assert picture.startswith(f"{name}-plots/")
        assert ET.parse(f"{folder}/{picture}").getroot().tag == SVG + "svg"
    assert len(pictures) == sum(1 for _ in root.iter(SVG + "svg"))
    assert not re.search(r"[^a-z](nan|inf)[^a-z]", "".join(e.get("d", "") for e in root.iter()))
    return root, page, markdown



def curves(page):
    return {row["curve"]: row for table in page.tables if table[0][:2] == ["curve", "first"] for row in (dict(zip(table[0], r)) for r in table[1:])}


def made(folder, rows, torn="", spec=None):
    """A folder of a run, as if one had been here."""
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/metrics.jsonl", "w", encoding="utf-8") as f:
        f.writelines(json.dumps(r) + "\n" for r in rows)
        f.write(torn)
    if spec is not None:
        with open(f"{folder}/spec.json", "w", encoding="utf-8") as f:
            json.dump(spec, f)
    return str(folder)


def steps(first, last, epoch=1, loss=lambda s: 3.0):
    return [{"step": s, "epoch": epoch, "tokens": 256 * s, "loss": loss(s), "grad_norm": 1.0, "step_ms": 10} for s in range(first, last + 1)]


def test_end_of_a_run(trainer):
    """dstrain run leaves a report whose figures are those of metrics.jsonl, the guard's, the checkpoints' and the job's own."""
    trainer.write(ckpt_every=10, data={"train": [{"prefix": trainer.corpus, "weight": 3}, {"prefix": f"{trainer.corpus}-valid"}],
                                       "valid": f"{trainer.corpus}-valid"})  # fmt: skip
    run = trainer.run("run", layout="ep2")
    _, page, markdown = read(run.out)
    m = run.metrics()
    shown = curves(page)
    for name, key in [("training", "loss"), ("multi-token prediction", "mtp_loss"), ("validation", "valid_loss"),
                      ("gradient norm", "grad_norm"), ("training batch", "balance_maxvio"), ("validation set", "valid_maxvio")]:  # fmt: skip
        values = {s: row[key] for s, row in m.items() if key in row}
        assert int(shown[name]["measured"]) == len(values) > 0
        assert shown[name]["first"] == f"{values[min(values)]:.4f}" and shown[name]["last"] == f"{values[max(values)]:.4f}"
        assert shown[name]["lowest"] == f"{min(values.values()):.4f}" and shown[name]["highest"] == f"{max(values.values()):.4f}"
        assert shown[name]["lowest"] in markdown
    assert "COMPLETED" in markdown.splitlines()[0]
    (attempt,) = page.table("attempt", "how it ended")
    assert (attempt["from step"], attempt["to step"], attempt["how it ended"]) == ("1", "20", "all steps are done")
    assert [row["step"] for row in page.table("state", "size", "shards")] == ["10", "20"]
    sources = page.table("source", "sequences shown")
    assert [row["source"] for row in sources] == [trainer.corpus, f"{trainer.corpus}-valid"]
    counts = [int(row["sequences shown"]) for row in sources]
    assert sum(counts) == 20 * 8 and 90 <= counts[0] <= 150
    layers = page.table("layer", "MaxVio")
    assert sum(float(row["MaxVio"]) for row in layers) / len(layers) == pytest.approx(m[20]["balance_maxvio"], rel=1e-3)


def test_restart_and_kill(trainer):
    """Attempts, lost steps and the words of the end, after a kill and a stop; a report of a run that goes on says so."""
    trainer.write(ckpt_every=10, steps=100000)
    run = trainer.start("run")
    run.wait_step(25)
    out = dstrain("report", run.out, "--out", "-").stdout
    assert "RUNNING" in out.splitlines()[0] and "The run goes on" in out
    run.process.kill()
    run.process.wait()
    time.sleep(0.3)
    newest = max(run.metrics())
    dstrain("report", run.out)
    assert "FAILED" in read(run.out)[2].splitlines()[0]
    run = trainer.start("run", "--resume", "auto")
    run.wait_step(newest + 5)
    run.process.send_signal(signal.SIGTERM)
    run.wait(80)
    _, page, markdown = read(run.out)
    assert "SUSPENDED" in markdown.splitlines()[0]
    first, second = page.table("attempt", "how it ended")
    assert int(first["to step"]) == newest and int(first["lost steps"]) == newest - int(second["from step"]) + 1
    assert "killed" in first["how it ended"] and "stopped and saved" in second["how it ended"]
    facts = json.loads(dstrain("report", run.out, "--format", "json").stdout)
    assert facts["schema"] == "ds/report/v1" and facts["restarts"] == 1
    assert facts["lost_steps"] == int(first["lost steps"])
    assert facts["curves"]["loss"]["measured"] == max(run.metrics())


def test_failed_run_has_a_report(trainer):
    """However it ends: here, on data that is not there."""
    trainer.write(data={"train": f"{trainer.folder}/nowhere", "valid": f"{trainer.corpus}-valid"})
    run = trainer.start("run")
    run.process.wait()
    assert run.process.returncode != 0
    _, page, markdown = read(run.out)
    assert "FAILED" in markdown.splitlines()[0] and "No step has been reported yet." in markdown
    assert page.table("attempt", "how it ended")[0]["how it ended"].startswith("rank 0 ended with status")


def test_rollback_drops_what_was_given_up(tmp_path):
    """Steps beyond a rollback are no part of the run; those done again are there once."""
    folder = made(tmp_path / "run", steps(1, 250, 1, lambda s: 9.0) + steps(101, 150, 2, lambda s: 2.0))
    dstrain("report", folder)
    _, page, _ = read(folder)
    row = curves(page)["training"]
    assert (row["measured"], row["last"], row["highest"]) == ("150", "2.0000", "9.0000")
    assert [r["lost steps"] for r in page.table("attempt", "lost steps")] == ["150", "0"]


def test_spike_of_a_long_run_stays(tmp_path):
    """A single step among many is in the table, and the drawn band reaches it."""
    seed = int(os.environ.get("TEST_SEED", time.time()))
    print(f"seed {seed} (TEST_SEED repeats it)")
    at = random.Random(seed).randint(2, 29999)
    folder = made(tmp_path / "run", steps(1, 30000, 1, lambda s: 40.0 if s == at else 2.0))
    dstrain("report", folder, "--format", "html")
    with open(f"{folder}/report.html", encoding="utf-8") as f:
        root = ET.fromstring(f.read().replace("<!DOCTYPE html>", ""))
    assert os.path.getsize(f"{folder}/report.html") < 400_000
    figure = next(e for e in root.iter(XHTML + "figure") if e.get("id") == "loss")
    band = next(e for e in figure.iter(SVG + "path") if e.get("class") == "b f0")
    points = [tuple(map(float, p.split())) for p in re.findall(r"[ML]([\d.]+ [\d.]+)", band.get("d"))]
    top = min(points, key=lambda p: p[1])
    assert top[1] < 60 and abs(top[0] - (58 + (at - 1) / 29999 * (760 - 58 - 14))) < 3


HOSTILE = "x<script>alert('1')</script>&\"'|`*[a](b)\n# no\x07 ]]> \u2028 \ufffe"


def test_hostile_text_is_text(tmp_path):
    """Names, reasons and causes with markup in them are shown as they are, and become no markup of either page."""
    folder = made(tmp_path / "run", steps(1, 5), spec={"name": HOSTILE, "train": {"data": {"train": HOSTILE, "packing": HOSTILE}}})
    facts = {"reason": {"text": HOSTILE}, "user": HOSTILE, "account": HOSTILE, "state": "FAILED", "restarts": 1,
             "attempts": [{"attempt": 1, "epoch": 1, "nodes": [HOSTILE], "cause": HOSTILE, "started_at": "2026-01-01T00:00:00.000Z"}],
             "events": [{"kind": HOSTILE, "text": HOSTILE}], "guard": [{"step": 3, "action": HOSTILE, "text": HOSTILE}],
             "checkpoints": [{"step": 1, "path": HOSTILE, "state": HOSTILE}], "usage": {"gpu_ms": 5000, "cost_micro_usd": 7}}  # fmt: skip
    with open(tmp_path / "facts.json", "w", encoding="utf-8") as f:
        json.dump(facts, f)
    out = tmp_path / 'an "odd" <folder> (1)'
    dstrain("report", folder, "--facts", tmp_path / "facts.json", "--out", out)
    _, page, markdown = read(out)
    assert "alert('1')" in "".join(page.text)
    assert "<script" not in markdown and not re.search(r"^# no", markdown, re.M)
    markdown = re.sub(r"<pre>.*?</pre>", "", markdown, flags=re.S)
    assert all(line.startswith("|") or "|" not in line.replace("\\|", "") for line in markdown.split("\n") if "x&lt;" in line)


@pytest.mark.parametrize("rows", [[], steps(1, 1), [{"step": 1, "loss": 1e308}, {"step": 2, "loss": -1e308}, {"step": 3, "loss": 5e-324}],
                                  [{"step": 9223372036854775807, "tokens": 9223372036854775807, "loss": 1}],
                                  [{"step": 1, "loss": "nan"}, {"step": 2, "loss": "inf"}], [{"step": 1}], [{"no": 1}, 5, None]])  # fmt: skip
def test_odd_metrics(tmp_path, rows):
    """No step, one, the largest numbers there are, nothing finite, no step at all: there is a page, and it is well formed."""
    folder = made(tmp_path / "run", rows, spec={"name": "odd"})
    dstrain("report", folder)
    read(folder)
    dstrain("report", folder, "--out", "-", "--format", "html")


def test_broken_and_torn_lines(tmp_path):
    """A line that was cut at the end is none; others that cannot be read are said to be left out; bare nan is read."""
    folder = made(tmp_path / "run", steps(1, 3) + ["rubbish"], torn='{"step":4,"epoch":1,"loss":nan}\n{"step":5,"lo')
    facts = json.loads(dstrain("report", folder, "--format", "json").stdout)
    assert facts["curves"]["loss"]["measured"] == 4 and facts["curves"]["loss"]["not_finite"] == 1
    dstrain("report", folder)
    markdown = read(folder)[2]
    assert "1 line of the measures could not be read" in markdown and "not finite at 1 step, first at step 4" in markdown


def test_guard_and_passed_over(trainer):
    """What the guard decided is a table and a mark in the plots, a line of it that was cut is none; what the skip list took out is no data seen."""
    trainer.write(data={"train": [{"prefix": trainer.corpus, "weight": 2}, {"prefix": f"{trainer.corpus}-valid"}],
                        "valid": f"{trainer.corpus}-valid", "skip": [{"first": 10, "count": 30}, {"first": 100, "count": 7}]})  # fmt: skip
    run = trainer.run("run")
    with open(f"{run.out}/checkpoints/guard.jsonl", "w", encoding="utf-8") as f:
        f.write('{"action":"rollback","trigger":"jump","epoch":1,"step":12,"loss":"nan","limit":3.5,"grad_norm":9.5,"text":"back to step 10"}\n{"action":"lo')
    dstrain("report", run.out)
    root, page, markdown = read(run.out)
    (row,) = page.table("decided", "trigger")
    assert (row["step"], row["decided"], row["loss"], row["limit"], row["in words"]) == ("12", "rollback", "nan", "3.5", "back to step 10")
    assert sum(1 for e in root.iter(SVG + "path") if e.get("class") == "m1") == 5
    assert "The guard stepped in 1 time;" in markdown and "37 sequences were passed over" in markdown
    assert sum(int(r["sequences shown"]) for r in page.table("source", "sequences shown")) == 20 * 8


def test_price_gives_a_cost(tmp_path, trainer):
    """Rank-hours times the price; without one no dollar is made up."""
    run = trainer.run("run", layout="dp2")
    assert "$" not in read(run.out)[2]
    facts = json.loads(dstrain("report", run.out, "--format", "json", "--price", "3.6").stdout)
    assert facts["usage"]["cost_micro_usd"] == pytest.approx(facts["usage"]["gpu_ms"], abs=1)
    assert sum(t["gpu_ms"] for t in facts["time"]) == pytest.approx(facts["usage"]["gpu_ms"], abs=3)
    kept = sum(m["step_ms"] for m in run.metrics().values())
    assert facts["usage"]["productive_gpu_ms"] == 2 * kept and math.isfinite(kept)


def test_refusals(tmp_path):
    """What is no folder of a run, wrong options, facts that are none."""
    assert "not the --out folder of a run" in dstrain("report", tmp_path, status=66).stderr
    dstrain("report", tmp_path, "--format", "pdf", status=64)
    dstrain("report", tmp_path, "--price", "-1", status=64)
    dstrain("report", status=64)
    folder = made(tmp_path / "run", steps(1, 2))
    (tmp_path / "facts.json").write_text("[]")
    assert "no JSON object" in dstrain("report", folder, "--facts", tmp_path / "facts.json", status=78).stderr
    dstrain("report", folder, "--out", "-", "--format", "both", status=64)
