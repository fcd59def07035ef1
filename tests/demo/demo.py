"""`make demo`: trains a small DeepSeek-V3-shaped model under the coordinator on loopback, kills a rank and then the coordinator in
mid-run, and shows what became of the job: attempts, losses, checkpoints, the bill. Every claim on the screen is checked; the first
that does not hold ends the demo with one line and status 1. However it ends, no process, socket or folder stays behind."""

import os
import shutil
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from cluster import ROOT, Cluster, CtlError, TookTooLong, processes_of, wait_for  # noqa: E402

import corpus  # noqa: E402
from screen import Screen  # noqa: E402

SPEC = os.path.join(ROOT, "etc", "demo.yaml")
# Half a minute of patience with a silent node is right for a cluster and dull in a demo.
DSD_CONFIG = "heartbeat: 1s\nlease: 10s\nrecovering: 15s\nstop_grace: 2s\nrestart: {backoff_first: 1s}\n"
# A slot is billed as if it were an H800 at the rate of the DeepSeek-V3 report: otherwise the bill would be a cent.
PRICES = "prices:\n  - {model: cpu, usd: 2.00}\n"
VALID_LOSS_FIRST, VALID_LOSS_LAST = 5.0, 2.6
PATIENCE = 600


class Failed(Exception):
    """What was promised and did not happen, in one line."""


def claim(holds, what):
    if not holds:
        raise Failed(what)


def well_after_a_checkpoint(job):
    """A third into the run, and between two checkpoints, which are twenty steps apart, so that something is lost."""
    at, saved = job["progress"], job["last_checkpoint"]
    return saved and at["step"] >= 0.3 * at["steps"] and 8 <= at["step"] - saved["step"] <= 14


class Demo:
    def __init__(self, folder, screen):
        self.folder = folder
        self.screen = screen
        prices = os.path.join(folder, "prices.yaml")
        with open(prices, "w", encoding="utf-8") as f:
            f.write(PRICES)
        self.cluster = Cluster(os.path.join(folder, "cluster"), dsd_config=DSD_CONFIG, prices=prices)
        self.job = None

    def show(self, *words):
        """Runs dsctl and shows it as a user would see it."""
        done = self.cluster.ctl(*words, check=False)
        self.screen.command([str(w) for w in words], done.stdout + done.stderr)
        claim(done.returncode == 0, f"dsctl {' '.join(map(str, words))} ended with status {done.returncode}")
        return done

    # ---- the acts
    def prepare(self):
        text = corpus.read()
        source = os.environ.get("DEMO_TEXT") or "Debian's bible-kjv"
        prefixes = corpus.pack(text, self.folder)
        self.screen.say("text", f"{len(text) / 1e6:.1f} MB of text ({source}), one byte a token, a twentieth of it held out for validation")
        self.cluster.start()
        self.screen.say("cluster", f"dsd and 2 workers with 2 slots each on 127.0.0.1:{self.cluster.port}")
        return prefixes

    def submit(self, prefixes):
        settings = [f"train.data.train={prefixes['train']}", f"train.data.valid={prefixes['valid']}"]
        options = [word for setting in settings for word in ("--set", setting)]
        self.job = int(self.cluster.ctl("job", "submit", SPEC, "--parsable", *options).stdout)
        self.screen.say("submitted", f"job {self.job}: FP8, mixture of experts, multi-token prediction, 4 ranks, expert parallel 2")

    def watch(self, until):
        """Shows progress until until(job) is true."""
        end = time.monotonic() + PATIENCE
        while True:
            job = self.cluster.job(self.job)
            at = job["progress"] or {}
            saved = (job["last_checkpoint"] or {}).get("step")
            if at.get("loss") is not None:
                self.screen.progress(
                    at["step"] or 0,
                    at["steps"] or 0,
                    f"loss {at['loss']:.3f}  mtp {at['mtp_loss'] or 0:.3f}  {at['tokens_per_s'] or 0:.0f} tok/s"
                    + (f"  checkpoint {saved}" if saved else ""),
                )
            else:
                self.screen.progress(0, 1, job["state"].lower())
            if until(job):
                return job
            claim(job["state"] not in ("FAILED", "CANCELLED"), f"the job is {job['state']}: {(job['reason'] or {}).get('text')}")
            claim(time.monotonic() < end, f"the job is not ready after {PATIENCE} s, it is {job['state']}")
            time.sleep(0.2)

    def kill_rank(self):
        job = self.watch(well_after_a_checkpoint)
        rank, pid = max(self.cluster.ranks(self.job).items())
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        self.screen.say("accident", f"kill -9 of rank {rank} (process {pid}) at step {job['progress']['step']}", "31")
        job = self.watch(lambda j: j["attempt"] == 2 and j["attempts"][1]["first_step"])
        resumed = job["attempts"][1]
        self.screen.say(
            "recovered",
            f"attempt 2 trains again after {time.monotonic() - began:.1f} s, from the checkpoint of step {resumed['resume_step']}: "
            f"{job['attempts'][0]['lost_steps']} steps are done again",
            "32",
        )
        self.resume_step = resumed["resume_step"]

    def kill_dsd(self):
        job = self.watch(lambda j: j["progress"]["step"] >= 0.65 * j["progress"]["steps"])
        before = job["progress"]["step"]
        ranks = self.cluster.ranks(self.job)
        self.cluster.dsd.kill()
        self.screen.say("accident", f"kill -9 of dsd (process {self.cluster.dsd.pid}) at step {before}; its {len(ranks)} ranks train on", "31")
        time.sleep(4)
        claim(self.cluster.ranks(self.job) == ranks, "the ranks did not survive the coordinator")
        self.cluster.start_dsd()
        job = self.watch(lambda j: j["progress"]["step"] > before)
        claim(self.cluster.ranks(self.job) == ranks or job["state"] == "COMPLETED", "the ranks were replaced when dsd came back")
        self.screen.say("recovered", f"dsd is back: attempt {job['attempt']} as before, now at step {job['progress']['step']}", "32")

    def finish(self):
        job = self.watch(lambda j: j["state"] == "COMPLETED")
        self.screen.say("completed", f"step {job['progress']['step']} of {job['progress']['steps']}", "32")
        return job

    # ---- what is left to look at, and whether it is true
    def check_attempts(self, job):
        self.show("job", "show", self.job)
        attempts = job["attempts"]
        claim(len(attempts) == 2, f"there are {len(attempts)} attempts, not 2")
        committed = {c["step"] for c in self.cluster.items("ckpt", "list", self.job)}
        claim(attempts[1]["resume_step"] == self.resume_step > 0, "attempt 2 did not resume from a checkpoint")
        claim(not committed or max(committed) == job["progress"]["steps"], "the newest checkpoint is not the last step's")
        lost = attempts[0]["last_step"] - attempts[1]["resume_step"]
        claim(attempts[0]["lost_steps"] == lost, f"attempt 1 lost {lost} steps, the table says {attempts[0]['lost_steps']}")

    def check_losses(self, job):
        self.show("job", "metrics", self.job, "--plot")
        series = self.cluster.metrics(self.job)
        steps = [m["step"] for m in series]
        claim(steps == list(range(1, job["progress"]["steps"] + 1)), "the loss series has a hole")
        valid = [m["valid_loss"] for m in series if m["valid_loss"] is not None]
        claim(len(valid) >= 2, "there are no validation losses")
        self.screen.say("losses", f"training {series[0]['loss']:.3f} -> {series[-1]['loss']:.3f}, validation {valid[0]:.3f} -> {valid[-1]:.3f} nats a byte")
        claim(valid[0] > VALID_LOSS_FIRST, f"the first validation loss is {valid[0]:.3f}, not about ln(256) = 5.5")
        if not os.environ.get("DEMO_TEXT"):
            claim(valid[-1] < VALID_LOSS_LAST, f"the last validation loss is {valid[-1]:.3f}, not below {VALID_LOSS_LAST}")
        claim(valid[-1] < 0.75 * valid[0], f"the validation loss went from {valid[0]:.3f} only to {valid[-1]:.3f}")
        claim(series[-1]["loss"] < series[0]["loss"], "the training loss did not fall")

    def check_checkpoints(self):
        self.show("ckpt", "list", self.job)
        newest = max((c for c in self.cluster.items("ckpt", "list", self.job) if c["state"] == "COMMITTED"), key=lambda c: c["step"])
        self.show("ckpt", "verify", newest["id"])

    def check_bill(self):
        self.show("cost", "report")
        self.show("cost", "verify")
        verified = self.cluster.json("cost", "verify")
        c = verified["capacity"]
        claim(verified["ok"], "the ledger does not verify")
        booked = c["allocated"] + c["down"] + c["planned_down"] + c["idle"]
        claim(booked == c["reported"], f"{booked} ms are booked, {c['reported']} ms were measured")
        self.show_bill(c)
        self.screen.say("bill", f"allocated + idle + down = reported = {c['reported'] / 1000:.3f} accelerator-seconds, to the millisecond")

    def show_bill(self, capacity):
        """The categories in seconds: GPU-hours are too large a unit for a minute of four slots."""
        total = self.cluster.json("cost", "report")["total"]
        rows = {"productive": total["productive_gpu_ms"], **total["badput"]}
        rows.update({name: capacity[name] for name in ("idle", "down", "planned_down")})
        claim(sum(rows.values()) == capacity["reported"], "the categories do not add up to what was reported")
        print()
        for name, ms in rows.items():
            if ms:
                print(f"  {name.replace('_', ' '):18}{ms / 1000:9.3f} s  {100 * ms / capacity['reported']:5.1f} %")
        print(f"  {'reported':18}{capacity['reported'] / 1000:9.3f} s  at $2.00 an hour: ${total['cost_micro_usd'] / 1e6:.4f} for the job")

    def run(self):
        self.submit(self.prepare())
        self.kill_rank()
        self.kill_dsd()
        job = self.finish()
        self.check_attempts(job)
        self.check_losses(job)
        self.check_checkpoints()
        self.check_bill()


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, interrupt)
    screen = Screen()
    folder = tempfile.mkdtemp(prefix="ds-demo-")
    status, demo = 1, None
    try:
        demo = Demo(folder, screen)
        demo.run()
        status = 0
    except KeyboardInterrupt:
        screen.clear_line()
        print("demo: interrupted", file=sys.stderr)
        status = 130
    except (Failed, corpus.NoText, CtlError, TookTooLong, OSError) as reason:
        screen.clear_line()
        print(f"demo: FAILED: {' '.join(str(reason).split())}", file=sys.stderr)
        keep_logs(demo)
    finally:
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, signal.SIG_IGN)
        if demo is not None:
            demo.cluster.close()
        wait_for(lambda: not processes_of(folder), 10, "the demo's processes to end")
        shutil.rmtree(folder, ignore_errors=True)
    if status == 0:
        screen.say("done", "everything above was checked; nothing was left running", "32")
    return status


def keep_logs(demo):
    """What the programs said, for whoever wants to know why."""
    if demo is None:
        return
    path = os.path.join(tempfile.gettempdir(), f"ds-demo-{os.getpid()}.log")
    with open(path, "w", encoding="utf-8") as f:
        for name, text in demo.cluster.logs().items():
            f.write(f"==== {name}\n{text}\n")
    print(f"demo: the programs' logs are in {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
