"""The ranks' socket: reports reach the coordinator and only then are acknowledged, rendezvous values outlive coordinator and worker,
and nobody speaks for another."""

import os
import socket
import struct
import subprocess
import threading
import time

import pytest

from cluster import wait_for
from frames import ERROR, ONEWAY, read
from wire import METHODS, NAMES, decode, request


class Rank:
    """The test in a rank's place, on DS_REPORT_SOCKET."""

    def __init__(self, node, job=1, epoch=1, rank=0, hello=True):
        self.job, self.epoch = job, epoch
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(os.path.join(node.state, "report.sock"))
        self.next_id = 1
        self.pushed = []
        if hello:
            ok, answer = self.call("RANK_HELLO", job=job, epoch=epoch, rank=rank, pid=os.getpid())
            assert ok, answer

    def send(self, method, **values):
        self.next_id += 1
        self.sock.sendall(request(method, values, self.next_id))
        return self.next_id

    def receive(self, request_id):
        while True:
            head = read(self.sock, 32)
            assert head is not None, "the worker closed the connection"
            _, length, number, kind, _, _, answered, _ = struct.unpack("<4sIHBBIQI", head[:28])
            payload = read(self.sock, length) if length else b""
            _, request_type, reply_type = METHODS[NAMES[number]]
            if kind == ONEWAY:
                self.pushed.append((NAMES[number], decode(request_type, payload)))
            elif answered == request_id:
                return kind != ERROR, decode("Error" if kind == ERROR else reply_type, payload)

    def call(self, method, **values):
        return self.receive(self.send(method, **values))

    def step(self, step):
        metric = {"step": step, "epoch": self.epoch, "tokens": 10 * step, "loss": 2.5}
        return self.send("STEP_REPORT", job=self.job, epoch=self.epoch, steps=100, metric=[metric], ckpt_stall_ms=0, data_wait_ms=0)

    def set(self, key, value):
        return self.call("STORE_SET", job=self.job, epoch=self.epoch, key=key, value=value)

    def get(self, key):
        return self.call("STORE_GET", job=self.job, epoch=self.epoch, key=key, wait_ms=1000)


@pytest.fixture
def running(node):
    """A node with job 1, ranks 0 and 1, sleeping."""
    node.dsd.start(1, "sleep 1000", gpus=2)
    node.dsd.wait_report(1, phase=2)
    return node


def steps(node):
    return [m["metric"][0]["step"] for method, m in node.dsd.heard if method == "STEP_REPORT"]


def test_reports_go_to_the_coordinator(running):
    """As they are, in order, and the coordinator's answer comes back, refusals too."""
    rank = Rank(running)
    for step in (1, 2, 3):
        assert rank.receive(rank.step(step)) == (True, {})
    assert steps(running) == [1, 2, 3]
    running.dsd.refuse["STEP_REPORT"] = (-16, "this epoch is over")
    assert rank.receive(rank.step(4)) == (False, {"code": -16, "text": "this epoch is over"})


def test_values_meet(running):
    """What one rank sets another gets."""
    assert Rank(running, rank=0).set("addr/0", b"\x00\x01") == (True, {})
    assert Rank(running, rank=1).get("addr/0") == (True, {"value": b"\x00\x01"})


def test_nobody_speaks_for_another(running):
    """Unknown attempts, ranks of other nodes, other attempts and unannounced speakers are refused; so are methods of others."""
    stranger = Rank(running, hello=False)
    assert stranger.call("STORE_GET", job=1, epoch=1, key="x", wait_ms=0)[1]["text"] == "RANK_HELLO comes first"
    for job, epoch, rank in [(2, 1, 0), (1, 2, 0), (1, 1, 2)]:
        ok, error = stranger.call("RANK_HELLO", job=job, epoch=epoch, rank=rank, pid=1)
        assert not ok and "node" in error["text"]
    rank = Rank(running)
    rank.job = 2
    ok, error = rank.set("x", b"1")
    assert not ok and "this connection is of job 1" in error["text"]
    assert not rank.call("HEARTBEAT", term=1)[0]
    assert running.dsd.count("STORE_SET") == 0


def test_garbage_is_cut_off(running):
    """A corrupt frame ends that connection and no other."""
    good = Rank(running)
    bad = Rank(running)
    bad.sock.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 64)
    assert read(bad.sock, 1) is None
    bad = Rank(running, hello=False)
    bad.sock.sendall(request("STORE_SET", {"job": 1, "epoch": 1, "key": "k", "value": b"x" * 20000}))
    assert read(bad.sock, 1) is None  # too large before HELLO
    assert good.set("k", b"v")[0]


def test_reports_wait_for_the_coordinator(running):
    """While there is none they wait, unacknowledged; then they arrive, in order."""
    rank = Rank(running)
    running.dsd.close()
    wait_for(lambda: "lost the coordinator" in running.process.log(), 10, "the worker to notice")
    ids = [rank.step(step) for step in (1, 2, 3)]
    rank.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        rank.receive(ids[0])
    rank.sock.settimeout(20)
    running.dsd.open()
    assert all(rank.receive(i)[0] for i in ids)
    assert steps(running) == [1, 2, 3]


def test_a_report_under_way_when_the_link_breaks(running):
    """Is said again after the registration."""
    rank = Rank(running)
    running.dsd.hold.add("STEP_REPORT")
    under_way = rank.step(1)
    running.dsd.wait_heard("STEP_REPORT")
    running.dsd.hold.clear()
    running.dsd.drop()
    assert rank.receive(under_way)[0]
    assert steps(running) == [1, 1]


def test_a_coordinator_that_forgot_the_worker(running):
    """Answers `again`: the worker registers once more, and says what was refused so again. The rank only sees the end of it."""
    rank = Rank(running)
    running.dsd.refuse["SHARD_REPORT"] = (-15, "register first")
    shard = {"rank": 0, "file": "f", "bytes": 1, "xxh3": "0" * 32, "sha256": "0" * 64}
    under_way = rank.send("SHARD_REPORT", job=1, epoch=1, step=5, world_size=2, shard=shard, layout="{}")
    running.dsd.wait_heard("WORKER_REGISTER", 3)
    running.dsd.refuse.clear()
    assert rank.receive(under_way) == (True, {})
    assert running.dsd.count("SHARD_REPORT") >= 2


def test_values_outlive_the_coordinator_and_the_worker(running):
    """The coordinator keeps values in memory only: after each registration the worker says those of its live ranks again, the newest of
    each key, also those that an earlier worker took."""
    rank = Rank(running)
    rank.set("a", b"1")
    rank.set("b", b"2")
    rank.set("a", b"3")
    for how in (running.dsd.drop, running.restart):
        running.dsd.store.clear()
        how()
        wait_for(lambda: running.dsd.store == {(1, 1, "a"): b"3", (1, 1, "b"): b"2"}, 10, f"the values after {how.__name__}")


def test_the_end_waits_for_what_was_said(running):
    """A rank's exit and the end are told only after the last report of the rank was acknowledged, also in the registration."""
    rank = Rank(running, rank=1)
    running.dsd.hold.add("STEP_REPORT")
    rank.step(100)
    running.dsd.wait_heard("STEP_REPORT")
    rank.sock.close()
    running.dsd.stop(1)
    wait_for(lambda: not running.pids("dsshim"), 10, "the shim to end")
    time.sleep(0.3)
    assert running.dsd.reports(1)[-1]["phase"] == 2
    assert [e["rank"] for e in running.dsd.reports(1)[-1]["exits"]] in ([], [0])
    running.dsd.drop()
    running.dsd.wait_heard("WORKER_REGISTER", 2)
    assert running.dsd.reports(1)[-1]["phase"] == 2
    wait_for(lambda: running.dsd.count("STEP_REPORT") == 2, 10, "the report again")
    running.dsd.hold.clear()
    running.dsd.drop()
    assert len(running.dsd.wait_report(1)["exits"]) == 2
    order = [method for method, m in running.dsd.heard if method == "STEP_REPORT" or m.get("phase") == 3]
    assert order.index("ATTEMPT_REPORT") > order.index("STEP_REPORT") and order.count("STEP_REPORT") == 3


def test_a_connection_that_outlives_its_rank(running):
    """Does not hold the exit back for long: the test keeps it open."""
    rank = Rank(running)
    running.dsd.stop(1)
    began = time.monotonic()
    assert len(running.dsd.wait_report(1)["exits"]) == 2
    assert time.monotonic() - began < 10
    assert read(rank.sock, 1 << 16) is None


def test_stop_is_pushed(running):
    """Ranks hear RANK_STOP with the reason besides TERM."""
    rank = Rank(running)
    threading.Timer(0.2, lambda: running.dsd.ordered("ATTEMPT_STOP", job=1, epoch=1, grace_ms=3000, reason="drained")).start()
    with pytest.raises(AssertionError):
        rank.receive(-1)  # until it is closed
    assert rank.pushed == [("RANK_STOP", {"reason": "drained"})]


def test_a_flood_is_held_back(running):
    """A rank that sends without waiting is slowed down, not dropped, and loses nothing."""
    rank = Rank(running)
    running.dsd.close()
    wait_for(lambda: "lost the coordinator" in running.process.log(), 10, "the worker to notice")
    count = 1000
    sender = threading.Thread(target=lambda: [rank.step(i) for i in range(count)])
    sender.start()
    time.sleep(0.5)
    running.dsd.open()
    sender.join(30)
    wait_for(lambda: len(steps(running)) == count, 30, "all reports")
    assert steps(running) == list(range(count))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_users_are_turned_away(node):
    """The socket is open to all users' ranks, but the kernel says who speaks."""
    os.chmod(node.folder, 0o711)
    node.dsd.start(1, "sleep 1000", user="nobody", workdir="/tmp")
    node.dsd.wait_report(1, phase=2)
    script = (
        "import os, socket, sys; os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]));"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(bytes.fromhex(sys.argv[3]));"
        "print(s.recv(4096)[10])"
    )
    hello = request("RANK_HELLO", {"job": 1, "epoch": 1, "rank": 0, "pid": 1}).hex()
    for uid, kind in [(65534, 2), (4242, 3)]:  # reply, error
        command = ["/usr/bin/python3", "-c", script, os.path.join(node.state, "report.sock"), str(uid), hello]
        assert subprocess.run(command, capture_output=True, text=True).stdout == f"{kind}\n"
