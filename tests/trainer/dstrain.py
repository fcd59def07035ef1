"""Running dstrain as a person would, and reading what it leaves."""

import dataclasses
import glob
import json
import math
import os
import re
import signal
import struct
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("DS_BIN", os.path.join(ROOT, "build", "bin"))
TIMEOUT = 300
LAYOUTS = {"1": (1, 1), "dp2": (2, 1), "ep2": (2, 2), "dp2xep2": (4, 2)}  # name -> ranks, expert parallel


@dataclasses.dataclass(frozen=True)
class Mesh:
    pipeline: int = 1
    expert: int = 1
    data: int = 1
    schedule: str = "1f1b"

    @property
    def ranks(self):
        return self.pipeline * self.expert * self.data

    @property
    def micros_min(self):
        return 2 * self.pipeline if self.schedule == "dualpipev" else 1

    def __str__(self):
        return f"pp{self.pipeline}-ep{self.expert}-dp{self.data}-{self.schedule}"


def dstrain(*args, status=0, **options):
    """Runs it to its end and requires its exit status."""
    done = subprocess.run([f"{BIN}/dstrain", *map(str, args)], capture_output=True, text=True, timeout=TIMEOUT, **options)
    assert done.returncode == status, f"status {done.returncode}, expected {status}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done


def processes_of(text):
    """Pids of processes whose command line or environment has the text."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as f, open(f"/proc/{entry}/environ", "rb") as g:
                words = f.read().split(b"\0") + g.read().split(b"\0")
        except OSError:
            continue
        if any(str(text).encode() in word for word in words):
            found.append(int(entry))
    return found


def wait_for(condition, what, timeout=60, every=0.002):
    end = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {timeout} s for {what}"
        time.sleep(every)
    return value


class Run:
    """One output folder, and the process that works in it if it was started."""

    KEYS = ("loss", "mtp_loss", "grad_norm", "lr", "balance_maxvio", "valid_loss", "tokens")

    def __init__(self, out, process=None):
        self.out = str(out)
        self.process = process
        self.stdout = self.stderr = ""

    def metrics(self):
        """step -> its full-precision metrics."""
        with open(f"{self.out}/metrics.jsonl", encoding="utf-8") as f:
            return {m["step"]: m for m in map(json.loads, f)}

    def series(self, first=1, last=None):
        """What has to be the same in two runs: everything but times."""
        return {s: tuple(m.get(k) for k in self.KEYS) for s, m in self.metrics().items() if s >= first and (last is None or s <= last)}

    def checkpoint(self, step, epoch=None):
        folder = f"e{epoch:04d}" if epoch else "e*"
        (path,) = glob.glob(f"{self.out}/checkpoints/{folder}/step-{step:010d}")
        return path

    def committed(self):
        return sorted(glob.glob(f"{self.out}/checkpoints/*/*/MANIFEST.json"))

    def ranks(self):
        """rank -> pid."""
        found = {}
        for pid in processes_of(self.out):
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    env = dict(v.split(b"=", 1) for v in f.read().split(b"\0") if b"=" in v)
            except OSError:
                continue
            if b"DS_REPORT_SOCKET" in env:
                found[int(env[b"RANK"])] = pid
        return found

    def read_output(self):
        with open(f"{self.out}.stdout", encoding="utf-8") as stdout, open(f"{self.out}.stderr", encoding="utf-8") as stderr:
            self.stdout, self.stderr = stdout.read(), stderr.read()
        return self.stderr

    def wait(self, status=0):
        try:
            self.process.wait(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.read_output()
        assert self.process.returncode == status, f"status {self.process.returncode}, expected {status}\n{self.stderr[-4000:]}"
        left = wait_for_none(self.out)
        assert not left, f"left running: {left}"
        return self

    def wait_step(self, step):
        def reached():
            assert self.process.poll() is None, self.read_output()
            try:
                return max(self.metrics(), default=0) >= step
            except (OSError, ValueError):
                return False

        wait_for(reached, f"step {step}")


def wait_for_none(text, timeout=10):
    end = time.monotonic() + timeout
    while (left := processes_of(text)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


class Trainer:
    def __init__(self, folder, corpus):
        self.folder = str(folder)
        self.corpus = corpus
        self.spec = os.path.join(self.folder, "spec.json")
        self.write()

    def write(self, ckpt_every=10, model=None, **train):
        """The job file; train overrides keys of the train section."""
        model_path = os.path.join(ROOT, "etc", "models", "tiny.json")
        if model is not None:
            model_path = os.path.join(self.folder, "model.json")
            with open(model_path, "w", encoding="utf-8") as f:
                json.dump(model, f)
        body = {
            "name": "tiny",
            "train": {
                "model": model_path,
                "data": {"train": self.corpus, "valid": f"{self.corpus}-valid"},
                "sequence_length": 32,
                "global_batch": 8,
                "steps": 20,
                "precision": "fp32",
                "optimizer": {"lr": 3e-3, "warmup_steps": 5},
                "seed": 7,
                "valid_every": 5,
                "valid_batches": 2,
                **train,
            },
            "checkpoint": {"every": ckpt_every, "keep": 3},
        }
        with open(self.spec, "w", encoding="utf-8") as f:
            json.dump(body, f)

    def start(self, name, *options, layout="1", mesh=None, env=None):
        """layout: a name of LAYOUTS; mesh: instead of it, a Mesh."""
        ranks, expert = LAYOUTS[layout]
        if mesh is not None:
            ranks, expert = mesh.ranks, mesh.expert
            options = (*options, "--set", f"train.parallel.pipeline={mesh.pipeline}", "--set", f"train.parallel.schedule={mesh.schedule}")
        out = os.path.join(self.folder, name)
        command = [f"{BIN}/dstrain", "run", self.spec, "--ranks", ranks, "--set", f"train.parallel.expert={expert}", "--out", out, *options]
        with open(f"{out}.stdout", "w", encoding="utf-8") as stdout, open(f"{out}.stderr", "w", encoding="utf-8") as stderr:
            process = subprocess.Popen(list(map(str, command)), stdout=stdout, stderr=stderr, env={**os.environ, **(env or {})})
        return Run(out, process)

    def run(self, name, *options, layout="1", mesh=None, status=0, env=None):
        return self.start(name, *options, layout=layout, mesh=mesh, env=env).wait(status)


# ---- safetensors and TensorBoard files, read by other code than dstrain's


def read_safetensors(path):
    """name -> (dtype, shape, bytes)."""
    with open(path, "rb") as f:
        data = f.read()
    (header_bytes,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    body = data[8 + header_bytes :]
    return {name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for name, t in header.items()}


def read_checkpoint(path):
    """All tensors of all shards, name -> (dtype, shape, bytes); each element once. Runs of elements, X[first:end], are joined to a flat X."""
    runs = {}
    for shard in sorted(glob.glob(f"{path}/*.safetensors")):
        for saved, (dtype, shape, data) in read_safetensors(shard).items():
            name, _, place = saved.partition("[")
            first = int(place.split(":")[0]) if place else 0
            assert not place or shape == [int(place[:-1].split(":")[1]) - first], saved
            runs.setdefault(name, []).append((first, shape, dtype, data))
    tensors = {}
    for name, parts in runs.items():
        at, joined = 0, b""
        for first, shape, dtype, data in sorted(parts):
            assert first == at, f"{name}: elements {at} to {first} are missing, or twice there"
            at, joined = first + math.prod(shape), joined + data
        tensors[name] = (dtype, shape if len(parts) == 1 else [at], joined)
    return tensors


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc):
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def fields_of(message):
    """(field number, value) of a protobuf message, one level."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        else:
            size = {1: 8, 5: 4}.get(kind) or varint()
            value = message[at : at + size]
            at += size
        yield key >> 3, value


def read_events(folder):
    """step -> {tag: value}, from the event files in a folder."""
    steps = {}
    for path in sorted(glob.glob(f"{folder}/events.out.tfevents.*")):
        with open(path, "rb") as f:
            data = f.read()
        at = 0
        while at < len(data):
            length, crc = struct.unpack_from("<QI", data, at)
            assert crc == masked(crc32c(data[at : at + 8]))
            event = data[at + 12 : at + 12 + length]
            (crc,) = struct.unpack_from("<I", data, at + 12 + length)
            assert crc == masked(crc32c(event))
            at += 16 + length
            step = dict(fields_of(event)).get(2, 0)
            for number, summary in fields_of(event):
                if number == 5:
                    for _, value in fields_of(summary):
                        parts = dict(fields_of(value))
                        steps.setdefault(step, {})[parts[1].decode()] = struct.unpack("<f", parts[2])[0]
    return steps


STEP_LINE = re.compile(
    r"step=(\d+) tokens=(\d+) loss=(\d+\.\d{4}) mtp_loss=(\d+\.\d{4}) balance_maxvio=(\d+\.\d\d) grad_norm=(\d+\.\d{3}) "
    r"lr=(\d\.\de-\d\d) tok_s=(\d+) step_ms=(\d+)( valid_loss=(\d+\.\d{4}) valid_maxvio=(\d+\.\d\d))?( maxvio_layers=(\d+\.\d\d(?:,\d+\.\d\d)*))"
)

