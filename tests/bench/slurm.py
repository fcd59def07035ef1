"""The same no-op jobs given to Slurm, where slurmctld and slurmd are installed (Debian: slurmctld slurmd slurm-client): a controller and a node
daemon of their own on loopback ports, with everything they write in a temporary folder. No file of the system is touched."""

import os
import shutil
import subprocess
import sys
import time

import coordinator
from cluster import Cluster, Process, free_port, wait_for

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "sinfo")
# Slurm's best of those tried: with 16 it did 9.5 jobs a second, with 64 25, and without its delays between passes (SchedulerParameters) 57.
SLOTS = 64

CONFIG = """ClusterName=bench
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
MailProg=/bin/true
MaxJobCount=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,default_queue_depth=1000
SlurmctldDebug=error
SlurmdDebug=error
NodeName=localhost NodeAddr=127.0.0.1 CPUs={slots} RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=60 State=UP
"""


class Slurm:
    def __init__(self, folder):
        self.folder = os.path.realpath(folder)
        for name in ("state", "spool"):
            os.makedirs(os.path.join(self.folder, name))
        self.config = os.path.join(self.folder, "slurm.conf")
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(CONFIG.format(folder=self.folder, slots=SLOTS, ctld_port=free_port(), slurmd_port=free_port()))
        self.env = {"SLURM_CONF": self.config}
        self.daemons = [Process(name, [name, "-D", "-f", self.config, *more], os.path.join(self.folder, f"{name}.out"), self.env)
                        for name, more in (("slurmctld", ()), ("slurmd", ("-N", "localhost")))]

    def run(self, *command):
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **self.env}, cwd=self.folder)
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
        return done.stdout

    def start(self):
        for daemon in self.daemons:
            daemon.start()

        def idle():
            dead = [d for d in self.daemons if not d.alive()]
            if dead:
                raise RuntimeError(f"{dead[0].name} ended: {dead[0].log()[-500:]}")
            try:
                return "idle" in self.run("sinfo", "-h", "-o", "%t")
            except RuntimeError:
                return False

        wait_for(idle, 60, "Slurm's node to be idle", every=0.2)

    def close(self):
        for daemon in reversed(self.daemons):
            daemon.stop(20)

    def measure(self, jobs):
        """(submits a second, finished jobs a second from the release of all of them). Submitted as one array, Slurm's fastest way, and held until all are there."""
        began = time.monotonic()
        script = "#!/bin/sh\ntrue\n"
        path = os.path.join(self.folder, "noop.sh")
        with open(path, "w", encoding="utf-8") as f:
            f.write(script)
        singles = min(jobs, 200)
        for _ in range(singles):
            self.run("sbatch", "-Q", "-H", "-n1", "-o", "/dev/null", path)
        submits = singles / (time.monotonic() - began)
        ids = self.run("squeue", "-h", "-o", "%A").split()
        rest = jobs - singles
        if rest > 0:
            out = self.run("sbatch", "--parsable", "-H", "-n1", "-o", "/dev/null", f"--array=0-{rest - 1}", path)
            ids.append(out.strip())
        began = time.monotonic()
        self.run("scontrol", "release", ",".join(ids))
        while self.run("squeue", "-h", "-o", "%A").strip():
            time.sleep(0.25)
        return submits, jobs / (time.monotonic() - began)


def part_slurm(figures, folder):
    missing = [p for p in PROGRAMS if shutil.which(p) is None]
    if missing or os.geteuid() != 0:
        figures.note("ratio to Slurm", f"skipped: {'no ' + ', '.join(missing) if missing else 'slurmd wants to be root'}")
        return
    jobs = int(os.environ.get("BENCH_SLURM_JOBS", 1000))
    slurm = Slurm(os.path.join(folder, "slurm"))
    try:
        slurm.start()
        submits, theirs = slurm.measure(jobs)
    except RuntimeError as e:
        sys.exit(f"bench: slurm: {e}")
    finally:
        slurm.close()
    cluster = Cluster(os.path.join(folder, "ours"), workers=2, slots=SLOTS // 2)
    try:
        cluster.start_dsd()
        coordinator.submit(cluster, jobs)
        ours = coordinator.drain(cluster, jobs)
        began = time.monotonic()
        for _ in range(50):
            cluster.submit("name: noop\nnodes: 1\ngpus_per_node: 0\nhold: true\ncommand: ['true']\n")
        ctl = 50 / (time.monotonic() - began)
    finally:
        cluster.close()
    version = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True).stdout.strip()
    figures.add(f"{version}: no-op jobs end to end, {SLOTS} slots, {jobs} jobs", theirs, "/s")
    figures.add("  this", ours, "/s")
    figures.add("  ratio", ours / theirs, "x", least=1)
    figures.add(f"{version}: submits one after the other, sbatch", submits, "/s")
    figures.add("  this, dsctl", ctl, "/s")
