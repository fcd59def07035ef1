"""A whole cluster of real programs on loopback: one dsd, some dsworkerd with declared accelerators, in one folder of its own. The
end-to-end tests, the demo, the benchmark and `make dev` all use it. Every process it ever caused carries the folder's path in its
command line or environment, which is how it finds ranks and shims, and how it makes sure that none is left."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get("DS_BIN", os.path.join(ROOT, "build", "bin"))
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class CtlError(Exception):
    """dsctl ended with another status than the caller expected."""

    def __init__(self, args, done):
        super().__init__(f"dsctl {' '.join(args)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        self.status = done.returncode
        self.stderr = done.stderr


class TookTooLong(Exception):
    pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition, timeout, what, every=0.05):
    """Polls until condition() is true, and returns its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TookTooLong(f"waited {timeout} s for {what}")
        time.sleep(every)


class Process:
    """One daemon, its command, and a log that goes on over restarts."""

    def __init__(self, name, command, log_path, env=None):
        self.name = name
        self.command = command
        self.log_path = log_path
        self.env = {**os.environ, **(env or {})}
        self.popen = None

    def start(self):
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True
            )
        return self

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def kill(self, sig=signal.SIGKILL):
        if self.alive():
            self.popen.send_signal(sig)
            self.popen.wait()

    def stop(self, patience=10):
        """TERM, then KILL. The exit status, None when it had to be killed."""
        if not self.alive():
            return self.popen.returncode if self.popen else None
        self.popen.terminate()
        try:
            return self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""


def processes_of(folder):
    """{pid: (command line, environment)} of every live process that has the folder in one of the two."""
    found = {}
    needle = folder.encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as f:
                command = f.read()
            with open(f"/proc/{name}/environ", "rb") as f:
                environ = f.read()
        except OSError:
            continue
        if command and (needle in command or needle in environ):
            pairs = (e.split("=", 1) for e in environ.decode(errors="replace").split("\0") if "=" in e)
            found[int(name)] = (command.decode(errors="replace").split("\0")[:-1], dict(pairs))
    return found


class Cluster:
    def __init__(self, folder, workers=2, slots=2, dsd_config="", worker_config="", env=None, prices=None):
        self.folder = os.path.realpath(folder)
        self.slots = slots
        self.port = free_port()
        self.env = {"DS_CLUSTER_FOLDER": self.folder, **(env or {})}
        self.socket = os.path.join(self.folder, "dsd.sock")
        self.state = os.path.join(self.folder, "dsd")
        self.checkpoints = os.path.join(self.folder, "checkpoints")
        os.makedirs(self.state, exist_ok=True)
        self.dsd = self._dsd(dsd_config, prices or f"{ROOT}/etc/prices.yaml")
        self.workers = []
        for i in range(workers):
            self.add_worker(f"node{i + 1}", slots, worker_config)

    # ---- the programs and their configuration
    def _write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def _dsd(self, extra, prices):
        config = self._write(
            "dsd.yaml",
            f"cluster: loopback\nlisten: 127.0.0.1:{self.port}\ncheckpoint_dir: {self.checkpoints}\n"
            f"prices: {prices}\n{extra}",
        )
        command = [f"{BIN}/dsd", "--config", config, "--state-dir", self.state, "--socket", self.socket]
        return Process("dsd", command, os.path.join(self.folder, "dsd.log"), self.env)

    def add_worker(self, name, slots, extra=""):
        state = os.path.join(self.folder, name)
        os.makedirs(state, exist_ok=True)
        config = self._write(
            f"{name}.yaml",
            f"name: {name}\nserver: 127.0.0.1:{self.port}\naccelerators: {{model: cpu, count: {slots}}}\n{extra}",
        )
        command = [f"{BIN}/dsworkerd", "--config", config, "--state-dir", state]
        worker = Process(name, command, os.path.join(self.folder, f"{name}.log"), self.env)
        self.workers.append(worker)
        return worker

    def start(self):
        self.start_dsd()
        for worker in self.workers:
            worker.start()
        self.wait_nodes(len(self.workers))
        return self

    def start_dsd(self):
        self.dsd.start()
        wait_for(self.answers, 20, "dsd to answer")

    def answers(self):
        if not self.dsd.alive():
            raise TookTooLong(f"dsd ended with status {self.dsd.popen.returncode}: {self.dsd.log()[-2000:]}")
        return self.ctl("cluster", "status", check=False).returncode == 0

    def wait_nodes(self, count, timeout=20):
        def up():
            return sum(n["state"] == "UP" for n in self.items("node", "list")) == count

        wait_for(up, timeout, f"{count} nodes to be UP")

    def restart_dsd(self):
        """As if the power had gone: SIGKILL, then a new one."""
        self.dsd.kill()
        self.start_dsd()

    # ---- dsctl
    def ctl(self, *args, check=True, timeout=60, status=0, text=None):
        args = [str(a) for a in args]
        command = [f"{BIN}/dsctl", "--server", self.socket, *args]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, input=text, env={**os.environ, **self.env}, cwd=self.folder
        )
        if check and done.returncode != status:
            raise CtlError(args, done)
        return done

    def json(self, *args, **kw):
        return json.loads(self.ctl(*args, "-o", "json", **kw).stdout)

    def items(self, *args):
        return self.json(*args)["items"]

    def submit(self, spec, *options):
        """spec: YAML text. The job's id."""
        path = self._write(f"job-{time.monotonic_ns()}.yaml", spec)
        return int(self.ctl("job", "submit", path, "--parsable", *options).stdout.strip())

    def job(self, job):
        return self.json("job", "show", job)

    def metrics(self, job):
        return self.items("job", "metrics", job)

    def wait_job(self, job, states=ENDED, timeout=120):
        """Until the job is in one of the states; one that ended otherwise is an error at once."""
        states = (states,) if isinstance(states, str) else states

        def there():
            shown = self.job(job)
            if shown["state"] in states:
                return shown
            if shown["state"] in ENDED:
                raise AssertionError(f"job {job} is {shown['state']}, not {states}: {json.dumps(shown, indent=1)}")
            return None

        return wait_for(there, timeout, f"job {job} to be {' or '.join(states)}")

    def wait_step(self, job, step, timeout=120):
        def there():
            shown = self.job(job)
            if (shown.get("progress") or {}).get("step") or 0:
                if shown["progress"]["step"] >= step:
                    return shown
            assert shown["state"] not in ("FAILED", "CANCELLED"), json.dumps(shown, indent=1)
            return None

        return wait_for(there, timeout, f"job {job} to reach step {step}")

    def wait_checkpoint(self, job, at_least=1, timeout=120):
        def there():
            done = [c for c in self.items("ckpt", "list", job) if c["state"] == "COMMITTED" and c["step"] >= at_least]
            return max(done, key=lambda c: c["step"]) if done else None

        return wait_for(there, timeout, f"a committed checkpoint of job {job}")

    # ---- what runs
    def ranks(self, job=None):
        """{rank: pid} of the job's ranks that live: the processes the shims started, not what these start themselves."""
        shims = set(self.shims())
        found = {}
        for pid, (_, env) in processes_of(self.folder).items():
            if "RANK" in env and parent_of(pid) in shims and (job is None or env.get("DS_JOB_ID") == str(job)):
                found[int(env["RANK"])] = pid
        return found

    def shims(self):
        return [pid for pid, (command, _) in processes_of(self.folder).items() if os.path.basename(command[0]) == "dsshim"]

    def logs(self):
        return {p.name: p.log() for p in [self.dsd, *self.workers]}

    def close(self):
        """Stops everything, and returns the processes that had to be killed because their parents did not end them."""
        for process in [*self.workers, self.dsd]:
            process.stop()
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

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return int(f.read().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return 0
