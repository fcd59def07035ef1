"""dev.py start|stop: a loopback cluster to play with, left running in build/dev: one dsd, two workers with two declared accelerators
each. Its state survives a stop; remove the folder to begin anew."""

import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from cluster import BIN, ROOT, Cluster, TookTooLong, processes_of, wait_for  # noqa: E402

import corpus  # noqa: E402

FOLDER = os.path.join(os.path.dirname(BIN), "dev")
SOCKET = os.path.join(FOLDER, "dsd.sock")
DSD_CONFIG = "restart: {backoff_first: 1s}\n"


def daemons():
    return [pid for pid, (command, _) in processes_of(FOLDER).items() if os.path.basename(command[0]) in ("dsd", "dsworkerd")]


def data():
    """Packs the demo's text once."""
    folder = os.path.join(FOLDER, "data")
    if not os.path.exists(os.path.join(folder, "corpus-valid.idx")):
        os.makedirs(folder, exist_ok=True)
        corpus.pack(corpus.read(), folder)
    return folder


def start():
    packed = data()
    if not daemons():
        Cluster(FOLDER, workers=2, slots=2, dsd_config=DSD_CONFIG).start()
    here = os.path.relpath(BIN, os.getcwd())
    text = os.path.relpath(packed, os.getcwd())
    spec = os.path.relpath(os.path.join(ROOT, "etc", "demo.yaml"), os.getcwd())
    print(f"""A cluster runs in {FOLDER}: dsd, node1 and node2 with 2 slots each. Try:

    export DS_SERVER={SOCKET}
    {here}/dsctl nodes
    {here}/dsctl submit {spec} --follow --set train.data.train=$PWD/{text}/corpus --set train.data.valid=$PWD/{text}/corpus-valid
    {here}/dsctl cost report

make dev-stop ends it.""")


def stop():
    """Running jobs are cancelled first: ranks outlive their worker by design."""
    if not daemons():
        print("no cluster runs in", FOLDER)
        return
    cluster = Cluster.__new__(Cluster)
    cluster.folder, cluster.socket, cluster.env = FOLDER, SOCKET, {}
    jobs = cluster.ctl("jobs", "-o", "name", check=False, timeout=20).stdout.split()
    if jobs:
        cluster.ctl("cancel", *jobs, check=False, timeout=20)
        wait_for(lambda: not cluster.shims(), 30, "the jobs to end")
    for sig, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        for pid in processes_of(FOLDER):
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                pass
        end = time.monotonic() + patience
        while processes_of(FOLDER) and time.monotonic() < end:
            time.sleep(0.1)
    print("stopped")


if __name__ == "__main__":
    try:
        {"start": start, "stop": stop}[sys.argv[1]]()
    except (TookTooLong, corpus.NoText) as reason:
        sys.exit(f"dev: {' '.join(str(reason).split())}")
