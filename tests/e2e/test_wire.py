"""Broken and hostile bytes on dsd's sockets: the connection goes, the coordinator stays, and the log gets a line."""

import os
import random
import struct

import pytest

import frames
from cluster import wait_for
from specs import command

OVER_HELLO = 16 * 1024 + 1
OVER_MAX = 4 * 1024 * 1024 + 1


@pytest.fixture(params=["unix", "tcp"])
def address(request, cluster):
    return cluster.socket if request.param == "unix" else cluster.port


def closed(s):
    """The peer hung up, perhaps after an error frame."""
    for _ in range(3):
        answer = frames.receive(s)
        if answer is None:
            return True
        assert answer[0] == frames.ERROR
    return False


def still_works(cluster):
    cluster.ctl("job", "wait", cluster.submit(command("true")))


BROKEN_FIRST = {
    "wrong magic": frames.frame(frames.HELLO, b"", magic=b"GET "),
    "wrong checksum": frames.frame(frames.HELLO, b"", checksum=1),
    "wrong kind": frames.frame(frames.HELLO, b"", kind=9),
    "flags": frames.frame(frames.HELLO, b"", flags=1),
    "oversized": frames.frame(frames.HELLO, b"", length=OVER_HELLO),
    "4 GiB": frames.frame(frames.HELLO, b"", length=0xFFFFFFFF),
    "not protobuf": frames.frame(frames.HELLO, b"\xff" * 64),
    "other protocol": frames.hello(protocol=99),
    "not a hello": frames.frame(11, b""),
    "no such method": frames.frame(60000, b""),
}


@pytest.mark.parametrize("what", BROKEN_FIRST)
def test_broken_first_frame(cluster, address, what):
    """Before HELLO nothing but a HELLO is answered."""
    with frames.connect(address) as s:
        s.sendall(BROKEN_FIRST[what])
        assert closed(s), what
    still_works(cluster)


def test_oversized_frame_is_one_log_line(cluster, address):
    """The size is known from the header: nothing is buffered, one line is logged, others are not disturbed."""
    before = cluster.dsd.log().count("\n")
    with frames.connect(address) as s:
        s.sendall(frames.hello())
        assert frames.receive(s)[0] == frames.REPLY
        s.sendall(frames.frame(10, b"", length=OVER_MAX))
        assert closed(s)
    lines = wait_for(lambda: cluster.dsd.log().splitlines()[before:], 5, "a log line")
    assert len(lines) == 1, lines
    still_works(cluster)


def test_corrupt_frame_after_hello(cluster, address):
    """One flipped bit in a payload: the stream is lost and closed with a line in the log; nothing is done by halves."""
    request = bytearray(frames.frame(11, field_all()))
    request[-1] ^= 1
    before = cluster.dsd.log().count("\n")
    with frames.connect(address) as s:
        s.sendall(frames.hello())
        assert frames.receive(s)[0] == frames.REPLY
        s.sendall(bytes(request))
        assert closed(s)
    assert len(wait_for(lambda: cluster.dsd.log().splitlines()[before:], 5, "a log line")) == 1


def field_all():
    return frames.field(4, 1)


def test_unknown_method_and_bad_message_are_answered(cluster):
    """A well-framed request that makes no sense gets an error, and the connection lives on."""
    with frames.connect(cluster.socket) as s:
        s.sendall(frames.hello())
        assert frames.receive(s)[0] == frames.REPLY
        for n, request in enumerate([frames.frame(60000, b"", request_id=5), frames.frame(12, b"\xff\xff", request_id=5)]):
            s.sendall(request)
            assert frames.receive(s)[:2] == (frames.ERROR, 5), n
        s.sendall(frames.frame(11, field_all(), request_id=6))
        assert frames.receive(s)[:2] == (frames.REPLY, 6)


def test_people_may_not_speak_for_workers(cluster):
    """A connection that did not register as a worker cannot report for one."""
    report = frames.field(1, 1) + frames.field(2, 1) + frames.field(3, 3)  # AttemptReport: job 1, epoch 1, ended
    job = cluster.submit(command("sleep 60"))
    cluster.wait_job(job, "RUNNING")
    with frames.connect(cluster.socket) as s:
        s.sendall(frames.hello())
        frames.receive(s)
        s.sendall(frames.frame(102, report, request_id=9))
        assert frames.receive(s)[0] == frames.ERROR
    assert cluster.job(job)["state"] == "RUNNING"


def test_random_bytes(cluster):
    """Two hundred connections of noise, some after a good HELLO, some cut in the middle of a frame."""
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"seed {seed} (SEED={seed} repeats it)")
    rng = random.Random(seed)
    for _ in range(200):
        with frames.connect(rng.choice([cluster.socket, cluster.port])) as s:
            noise = rng.randbytes(rng.randrange(1, 300))
            start = rng.choice([b"", frames.hello(), frames.MAGIC, frames.hello()[: rng.randrange(1, 40)]])
            if rng.random() < 0.3:
                noise = struct.pack("<4sI", frames.MAGIC, rng.randrange(2**16)) + noise
            try:
                s.sendall(start + noise)
            except (BrokenPipeError, ConnectionResetError):
                pass
    still_works(cluster)


def test_many_silent_connections(cluster):
    """Connections that never say anything do not keep others out."""
    silent = [frames.connect(cluster.socket) for _ in range(300)]
    still_works(cluster)
    for s in silent:
        s.close()
