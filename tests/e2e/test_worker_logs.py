"""Output of ranks: kept whole and in order over rotation, read while it is written, and in the end pruned."""

import os
import time

from cluster import wait_for


def read_all(node, job, rank=0, stream=1, offset=0, **values):
    """The stream from offset on, in as many reads as it takes, until it is final."""
    data = b""
    first = None
    while True:
        chunk = node.dsd.log(job, rank, stream, offset=offset, **values)
        first = chunk["offset"] if first is None else first
        data += chunk["data"]
        offset = chunk["next_offset"]
        if chunk["final"]:
            return first, data
        if chunk["end"]:
            time.sleep(0.02)


def test_follow_while_it_runs(node):
    """A reader at the heels of a rank sees every byte once, and is told when there will be no more."""
    node.dsd.start(1, "for i in $(seq 1 300); do echo line $i; sleep 0.003; done; printf end")
    _, data = read_all(node, 1)
    assert data == b"".join(b"line %d\n" % i for i in range(1, 301)) + b"end"


def test_streams_and_ranks_are_apart(node):
    """Each rank's two streams are files of their own; what was not written is empty, not an error."""
    node.dsd.start(1, "[ $RANK = 1 ] && echo only err >&2; true", gpus=2)
    node.dsd.wait_report(1)
    assert read_all(node, 1, rank=1, stream=2) == (0, b"only err\n")
    for rank, stream in [(0, 1), (0, 2), (1, 1)]:
        assert read_all(node, 1, rank=rank, stream=stream) == (0, b"")


def test_rotation(make_node):
    """The newest files are kept, offsets count from the very beginning, and reading what is gone starts at what is left."""
    node = make_node(config="logs: {file_mib: 1, files: 2}\n")
    node.dsd.start(1, "seq -w 1 1000000")  # 8 MB
    node.dsd.wait_report(1)
    folder = os.path.join(node.state, "logs", "1", "1")
    sizes = {name: os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)}
    assert len(sizes) <= 3 and sum(sizes.values()) < 4 << 20
    whole = b"".join(b"%07d\n" % i for i in range(1, 1000001))
    first, data = read_all(node, 1, limit_bytes=300000)
    assert first > 0 and data == whole[first:] and len(data) > 2 << 20
    chunk = node.dsd.log(1, offset=7_900_000, limit_bytes=100)
    assert chunk["data"] == whole[7_900_000:7_900_100] and not chunk["end"]


def test_tail(node):
    """The last lines, then the rest as it comes; more lines than there are is all of it."""
    node.dsd.start(1, "seq 1 1000; printf half")
    node.dsd.wait_report(1)
    assert node.dsd.log(1, tail_lines=3)["data"] == b"999\n1000\nhalf"
    assert node.dsd.log(1, tail_lines=1)["data"] == b"half"
    assert node.dsd.log(1, tail_lines=0)["data"] == b""
    assert len(node.dsd.log(1, tail_lines=5000)["data"]) == len(b"".join(b"%d\n" % i for i in range(1, 1001))) + 4


def test_the_newest_epoch_is_the_default(node):
    """Without an epoch, the newest attempt's output; with one, that attempt's."""
    for epoch in (1, 2):
        node.dsd.start(1, f"echo epoch {epoch}", epoch=epoch)
        node.dsd.wait_report(1, epoch)
    assert node.dsd.log(1)["data"] == b"epoch 2\n"
    assert node.dsd.log(1, epoch=1)["data"] == b"epoch 1\n"


def test_unknown_output(node):
    """Of a job that was never here, or whose logs are gone: not found, with a hint."""
    ok, error = node.dsd.order("LOG_READ", job=99, rank=0, stream=1, offset=0)
    assert not ok and error["code"] == -3 and "job 99" in error["text"]


def test_old_logs_go_first(make_node):
    """Over the total, the logs of the attempts that ended first are removed; those of live attempts and newer ones stay."""
    node = make_node(config="logs: {total_mib: 1}\n")
    node.dsd.start(100, "seq 1 50000; sleep 1000")
    for job in range(1, 8):
        node.dsd.start(job, "seq 1 40000")  # 230 KB
        node.dsd.wait_report(job)
        node.dsd.ordered("ATTEMPT_FORGET", job=job, epoch=1)
        wait_for(lambda job=job: not os.path.exists(node.attempt(job)), 10, f"job {job} to be forgotten")
    logs = os.path.join(node.state, "logs")
    wait_for(lambda: sorted(os.listdir(logs)) == ["100", "4", "5", "6", "7"], 10, "the oldest to go")
    node.restart()
    assert sorted(os.listdir(logs)) == ["100", "4", "5", "6", "7"]
    assert not node.dsd.order("LOG_READ", job=1, rank=0, stream=1, offset=0)[0]
    assert node.dsd.log(100)["data"].startswith(b"1\n2\n")


def test_last_words(node):
    """The end of a failed rank's stderr travels with its exit, cut to two kilobytes, whatever bytes it has."""
    node.dsd.start(1, r"i=0; while [ $i -lt 300 ]; do echo noise $i >&2; i=$((i+1)); done; printf 'bad \377\000 byte\nFATAL: it broke\n' >&2; exit 1")
    (end,) = node.dsd.wait_report(1)["exits"]
    assert end["last_words"].endswith("FATAL: it broke\n") and "noise 299" in end["last_words"]
    assert len(end["last_words"]) <= 2048


def test_a_full_pipe_does_not_block(node):
    """Megabytes to both streams at once, from two ranks, while nobody reads: all arrive."""
    node.dsd.start(1, "seq 1 300000 & seq 1 300000 >&2; wait", gpus=2)
    assert [e["code"] for e in node.dsd.wait_report(1)["exits"]] == [0, 0]
    whole = b"".join(b"%d\n" % i for i in range(1, 300001))
    for rank in (0, 1):
        for stream in (1, 2):
            assert read_all(node, 1, rank, stream, limit_bytes=1 << 20) == (0, whole)
