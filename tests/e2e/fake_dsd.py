"""A coordinator played by the test: it takes a worker's registration, acknowledges what it is told (or does not), and gives orders. What it
heard is kept in order, so that a test can say what must have been said how often."""

import json
import os
import pwd
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time

from cluster import BIN, Process, free_port, processes_of, wait_for
from frames import ERROR, REPLY, REQUEST, frame, read
from wire import MESSAGES, METHODS, NAMES, decode, encode


class Connection:
    def __init__(self, sock):
        self.sock = sock
        self.lock = threading.Lock()

    def send(self, data):
        with self.lock:
            self.sock.sendall(data)

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class FakeDsd:
    """term, heartbeat_ms and lease_ms are what it registers workers with. hold: methods that are heard but not answered."""

    def __init__(self, port=None, term=1, heartbeat_ms=200, lease_ms=5000):
        self.port = port or free_port()
        self.term = term
        self.heartbeat_ms = heartbeat_ms
        self.lease_ms = lease_ms
        self.hold = set()
        self.refuse = {}  # method: (code, text)
        self.store = {}
        self.heard = []  # (method, message)
        self.answers = {}
        self.next_id = 1
        self.changed = threading.Condition()
        self.worker = None  # the connection that registered last
        self.listener = None
        self.open()

    # ---- coming and going
    def open(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen()
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def close(self):
        """Gone, as by kill -9."""
        listener, self.listener = self.listener, None
        if listener:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.drop()

    def drop(self):
        """Only the worker's connection."""
        worker, self.worker = self.worker, None
        if worker:
            worker.close()

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(Connection(sock),), daemon=True).start()

    def _serve(self, connection):
        while True:
            try:
                head = read(connection.sock, 32)
                if head is None:
                    return
                _, length, number, kind, _, _, request_id, _ = struct.unpack("<4sIHBBIQI", head[:28])
                payload = read(connection.sock, length) if length else b""
                self._take(connection, number, kind, request_id, payload)
            except OSError:
                return

    def _take(self, connection, number, kind, request_id, payload):
        method = NAMES[number]
        _, request_type, reply_type = METHODS[method]
        if kind == REQUEST:
            message = decode(request_type, payload)
            with self.changed:
                self.heard.append((method, message))
                if method == "WORKER_REGISTER":
                    self.worker = connection
                self.changed.notify_all()
            if method in self.refuse:
                code, text = self.refuse[method]
                connection.send(frame(number, encode("Error", {"code": code, "text": text}), ERROR, request_id))
            elif method not in self.hold:
                reply = self._reply(method, message)
                if reply is not None:
                    connection.send(frame(number, encode(reply_type, reply), REPLY, request_id))
            return
        with self.changed:
            answer = decode("Error" if kind == ERROR else reply_type, payload)
            self.answers[request_id] = (kind == REPLY, answer)
            self.changed.notify_all()

    def _reply(self, method, message):
        if method == "HELLO":
            return {"protocol": 1, "version": "0", "term": self.term, "cluster": "fake"}
        if method == "WORKER_REGISTER":
            return {"term": self.term, "heartbeat_ms": self.heartbeat_ms, "lease_ms": self.lease_ms}
        if method == "STORE_SET":
            self.store[message["job"], message["epoch"], message["key"]] = message["value"]
        if method == "STORE_GET":
            value = self.store.get((message["job"], message["epoch"], message["key"]))
            return None if value is None else {"value": value}
        return {}

    # ---- orders
    def order(self, method, wait=True, timeout=20, **values):
        """Sends an order; (ok, answer)."""
        number, kind, _ = METHODS[method]
        if "term" in MESSAGES[kind]:
            values.setdefault("term", self.term)
        with self.changed:
            request_id = self.next_id
            self.next_id += 1
        self.worker.send(frame(number, encode(kind, values), REQUEST, request_id))
        if wait:
            with self.changed:
                assert self.changed.wait_for(lambda: request_id in self.answers, timeout), f"no answer to {method}"
                return self.answers[request_id]
        return None

    def ordered(self, method, **values):
        """An order that must succeed; its answer."""
        ok, answer = self.order(method, **values)
        assert ok, f"{method} was refused: {answer}"
        return answer

    def start(self, job, command, epoch=1, gpus=1, wait=True, **values):
        """A command job on this one node. command: a shell script, or a list."""
        command = ["sh", "-c", command] if isinstance(command, str) else command
        spec = {"name": "t", "nodes": 1, "gpus_per_node": gpus, "command": command, **values.pop("spec", {})}
        order = {
            "job": job,
            "epoch": epoch,
            "name": "t",
            "user": pwd.getpwuid(os.geteuid()).pw_name,
            "spec": json.dumps(spec),
            "workdir": "/",
            "node_rank": 0,
            "node_count": 1,
            "rank_first": 0,
            "world_size": max(gpus, 1),
            "gpu_index": list(range(gpus)),
            "master_addr": "127.0.0.1",
            "master_port": 29500,
            "checkpoint_dir": f"/nowhere/t00001-e{epoch:05}",
            **values,
        }
        return self.order("ATTEMPT_START", wait=wait, **order)

    def stop(self, job, epoch=1, grace_ms=0):
        return self.ordered("ATTEMPT_STOP", job=job, epoch=epoch, grace_ms=grace_ms, reason="test")

    def log(self, job, rank=0, stream=1, **values):
        return self.ordered("LOG_READ", job=job, rank=rank, stream=stream, **{"offset": 0, **values})

    # ---- what was heard
    def count(self, method):
        return sum(m == method for m, _ in self.heard)

    def reports(self, job, epoch=1):
        """Every report of the attempt, also those within registrations, in order."""
        found = []
        for method, message in list(self.heard):
            parts = [message] if method == "ATTEMPT_REPORT" else message["attempts"] if method == "WORKER_REGISTER" else []
            found += [r for r in parts if (r["job"], r["epoch"]) == (job, epoch)]
        return found

    def wait_report(self, job, epoch=1, phase=3, timeout=20):
        """The first report of at least that phase."""
        with self.changed:
            found = lambda: [r for r in self.reports(job, epoch) if r["phase"] >= phase]  # noqa: E731
            assert self.changed.wait_for(found, timeout), f"no phase {phase}: {self.reports(job, epoch)}"
            return found()[0]

    def wait_heard(self, method, count=1, timeout=20):
        with self.changed:
            assert self.changed.wait_for(lambda: self.count(method) >= count, timeout), f"{method} was not said {count} times"
            return [message for m, message in self.heard if m == method]


class Node:
    """One real dsworkerd under a FakeDsd, in a folder of its own."""

    def __init__(self, slots=2, config="", env=None, **dsd):
        self.folder = os.path.realpath(tempfile.mkdtemp(prefix="ds-worker-"))
        self.dsd = FakeDsd(**dsd)
        self.state = os.path.join(self.folder, "state")
        path = os.path.join(self.folder, "worker.yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"name: n1\nserver: 127.0.0.1:{self.dsd.port}\nstate_dir: {self.state}\n")
            f.write(f"accelerators: {{model: cpu, count: {slots}}}\n{config}")
        command = [f"{BIN}/dsworkerd", "--config", path]
        self.process = Process("n1", command, os.path.join(self.folder, "worker.log"), {"DS_CLUSTER_FOLDER": self.folder, **(env or {})})

    def up(self):
        """Starts the worker, and waits until it has registered."""
        before = self.dsd.count("WORKER_REGISTER")
        self.process.start()
        self.dsd.wait_heard("WORKER_REGISTER", before + 1)
        return self

    def restart(self, sig=signal.SIGKILL):
        self.process.kill(sig)
        return self.up()

    def attempt(self, job, epoch=1):
        return os.path.join(self.state, "attempts", f"{job}-{epoch}")

    def pids(self, name):
        """Processes of the node whose program is called so."""
        return [pid for pid, (command, _) in processes_of(self.folder).items() if os.path.basename(command[0]) == name]

    def ranks(self, job):
        """{rank: pid} of what the shims started."""
        found = {}
        for pid, (_, env) in processes_of(self.folder).items():
            if env.get("DS_JOB_ID") == str(job) and leads_its_group(pid) and "RANK" in env:
                found.setdefault(int(env["RANK"]), pid)
        return found

    def wait_quiet(self, timeout=20):
        """Until the worker, and what it forks shims from, are the only processes left."""
        wait_for(lambda: set(processes_of(self.folder)) == {self.process.pid, *self.pids("dsshim-nursery")}, timeout, "only the worker to be left")

    def complaints(self):
        """What a sanitizer said, in the worker's log and the shims'."""
        texts = [self.process.log()]
        for folder, _, names in os.walk(self.state):
            if "shim.log" in names:
                with open(os.path.join(folder, "shim.log"), encoding="utf-8", errors="replace") as f:
                    texts.append(f.read())
        return [text for text in texts if "Sanitizer" in text or "runtime error" in text]

    def close(self):
        """Stops everything, and removes the folder. What a sanitizer said."""
        self.dsd.close()
        self.process.stop()
        for _ in range(50):
            left = processes_of(self.folder)
            if not left:
                break
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.1)
        complaints = self.complaints()
        shutil.rmtree(self.folder, ignore_errors=True)
        return complaints


def leads_its_group(pid):
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False
