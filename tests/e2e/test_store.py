"""The database is the truth: one coordinator at a time, of the same or an older schema, and nothing acknowledged is lost."""

import os
import random
import shutil
import sqlite3
import subprocess
import threading
import time

from cluster import BIN, CtlError, TookTooLong, wait_for
from disk import SmallDisk
from specs import command


def run_dsd(cluster, state, port_config=None):
    """Starts a dsd that is expected to refuse. (status, stderr)."""
    config = port_config or f"{cluster.folder}/dsd.yaml"
    done = subprocess.run(
        [f"{BIN}/dsd", "--config", config, "--state-dir", state, "--socket", f"{cluster.folder}/second.sock"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.returncode, done.stderr


def one_line(text):
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_second_coordinator_on_the_same_database(cluster):
    """It says so in one line and ends; the first is not disturbed."""
    status, text = run_dsd(cluster, cluster.state)
    assert status == 5 and "ds.db" in one_line(text) or cluster.state in one_line(text)
    cluster.ctl("job", "wait", cluster.submit(command("true")))


def test_newer_schema_is_refused(make_cluster):
    """A database of a newer version is left as it is."""
    cluster = make_cluster()
    job = cluster.submit(command("true"))
    cluster.ctl("job", "wait", job)
    cluster.dsd.stop()
    path = f"{cluster.state}/ds.db"
    with sqlite3.connect(path) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute(f"PRAGMA user_version = {version + 1}")
    db.close()
    status, text = run_dsd(cluster, cluster.state)
    assert status != 0 and str(version + 1) in one_line(text)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == version + 1
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    cluster.start_dsd()
    assert cluster.job(job)["state"] == "COMPLETED"


def test_foreign_and_damaged_files_are_refused(make_cluster, tmp_path):
    """A file that is no database, another program's database, and a damaged one: one line each, the file untouched."""
    cluster = make_cluster()
    cluster.ctl("job", "wait", cluster.submit(command("true")))
    cluster.dsd.stop()
    for name in ["text", "foreign", "damaged"]:
        state = tmp_path / name
        state.mkdir()
        path = state / "ds.db"
        if name == "text":
            path.write_text("this is not a database, it only has its name\n" * 100)
        elif name == "foreign":
            with sqlite3.connect(path) as db:
                db.execute("CREATE TABLE songs (title TEXT)")
            db.close()
        else:
            shutil.copy(f"{cluster.state}/ds.db", path)
            with open(path, "r+b") as f:
                f.seek(4096 * 2)
                f.write(b"\x5a" * 4096 * 3)
        before = path.read_bytes()
        status, text = run_dsd(cluster, str(state))
        assert status != 0 and "ds.db" in one_line(text), name
        assert path.read_bytes() == before, name


def test_database_answers_to_sqlite(cluster):
    """An operator can read the tables with any SQLite client."""
    job = cluster.submit(command("true", name="seen"))
    cluster.ctl("job", "wait", job)
    db = sqlite3.connect(f"file:{cluster.state}/ds.db?mode=ro", uri=True)
    assert db.execute("SELECT name, state FROM job WHERE id = ?", (job,)).fetchone() == ("seen", "COMPLETED")
    assert db.execute("PRAGMA quick_check").fetchone() == ("ok",)
    db.close()


def test_backup_and_restore(make_cluster):
    """A copy made with SQLite's own backup, while dsd works, is a database to start from: as the operator guide says."""
    cluster = make_cluster()
    job = cluster.submit(command("true", name="kept"))
    cluster.ctl("job", "wait", job)
    source = sqlite3.connect(f"file:{cluster.state}/ds.db?mode=ro", uri=True)
    copy = sqlite3.connect(f"{cluster.folder}/copy.db")
    source.backup(copy)
    source.close()
    copy.close()
    later = cluster.submit(command("sleep 600", name="later", nodes=2))
    cluster.wait_job(later, "RUNNING")
    cluster.dsd.stop()
    for suffix in ("-wal", "-shm"):
        if os.path.exists(f"{cluster.state}/ds.db{suffix}"):
            os.unlink(f"{cluster.state}/ds.db{suffix}")
    shutil.copy(f"{cluster.folder}/copy.db", f"{cluster.state}/ds.db")
    cluster.start_dsd()
    assert [j["name"] for j in cluster.items("jobs", "--all")] == ["kept"]
    wait_for(lambda: not cluster.ranks(), 60, "the ranks of the forgotten job to be stopped")
    cluster.wait_nodes(2)
    cluster.ctl("job", "wait", cluster.submit(command("true", nodes=2, gpus=2)))
    assert cluster.json("cost", "verify")["ok"]


def test_submit_storm_with_kills(make_cluster):
    """While clients submit without pause, dsd is killed again and again. Every acknowledged job is there afterwards, once."""
    cluster = make_cluster(workers=1, slots=1)
    blocker = cluster.submit(command("sleep 600", priority=1000))
    spec = f"{cluster.folder}/storm.yaml"
    with open(spec, "w", encoding="utf-8") as f:
        f.write(command("true"))
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"seed {seed} (SEED={seed} repeats the pauses)")
    rng = random.Random(seed)
    acknowledged = {}
    lock = threading.Lock()
    stop = threading.Event()

    def client(number):
        n = 0
        while not stop.is_set():
            key = f"client{number}-{n}"
            done = cluster.ctl("job", "submit", spec, "--key", key, "--parsable", "--set", f"name={key}", check=False)
            if done.returncode == 0:
                with lock:
                    acknowledged[key] = int(done.stdout)
                n += 1
            else:
                assert done.returncode in (6, 7), done
                # The same key again: whether it had arrived or not, there must be one job in the end.

    threads = [threading.Thread(target=client, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for _ in range(8):
        time.sleep(rng.uniform(0.1, 0.6))
        cluster.restart_dsd()
    stop.set()
    for t in threads:
        t.join()
    assert len(acknowledged) > 20
    db = sqlite3.connect(f"file:{cluster.state}/ds.db?mode=ro", uri=True)
    stored = dict(db.execute("SELECT submit_key, id FROM job WHERE submit_key IS NOT NULL"))
    db.close()
    missing = {k: v for k, v in acknowledged.items() if stored.get(k) != v}
    assert not missing
    assert len(set(acknowledged.values())) == len(acknowledged)
    assert cluster.job(blocker)["state"] in ("RUNNING", "STARTING", "PENDING")


def test_full_disk_under_the_database(make_cluster):
    """A commit that cannot be written ends dsd with one clear line; what was acknowledged before is there when there is room again."""
    cluster = make_cluster(workers=1, start=False)
    with SmallDisk(cluster.state, megabytes=2) as disk:
        cluster.dsd.env.update(disk.env)
        cluster.start()
        job = cluster.submit(command("true", name="before"))
        cluster.ctl("job", "wait", job)
        disk.fill()
        submitted = []
        for n in range(500):
            try:
                submitted.append(cluster.submit(command("true", name=f"n{n}" + "x" * 50)))
            except CtlError:
                break
        else:
            raise AssertionError("500 submits fitted on a full disk")
        try:
            cluster.dsd.popen.wait(10)
        except subprocess.TimeoutExpired:
            raise TookTooLong("dsd goes on without being able to commit") from None
        assert cluster.dsd.popen.returncode != 0
        assert "full" in cluster.dsd.log().splitlines()[-1] or "space" in cluster.dsd.log().splitlines()[-1]
        disk.free()
        cluster.start_dsd()
        known = {j["id"] for j in cluster.items("jobs", "--all", "--limit", 1000)}
        assert {job, *submitted} <= known
        cluster.close()
