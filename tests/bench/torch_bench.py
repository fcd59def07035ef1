"""`make bench-torch`: a whole training step of dstrain beside the same step of transformers' DeepseekV3ForCausalLM on torch: same machine, same
number of threads, models of the same file, batches of the same shape. The two take turns, a few steps each, so that what else the machine does hits both alike. Prints
figures beside their targets; asserts nothing about time. Without torch only dstrain is measured.

BENCH_MODELS=moe-20m,moe-100m  BENCH_THREADS=2  BENCH_ROUNDS=3  BENCH_STEPS=4 (of a turn)  BENCH_BATCH=4  BENCH_COMPILE=0 leaves torch.compile out."""

import json
import os
import random
import re
import select
import statistics
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from cluster import BIN  # noqa: E402

MODELS = os.environ.get("BENCH_MODELS", "moe-20m,moe-100m").split(",")
THREADS = int(os.environ.get("BENCH_THREADS", min(len(os.sched_getaffinity(0)), 8)))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 3))
STEPS = int(os.environ.get("BENCH_STEPS", 4))
BATCH = int(os.environ.get("BENCH_BATCH", 4))
COMPILE = os.environ.get("BENCH_COMPILE", "1") != "0"
PYTHON = os.environ.get("BENCH_PYTHON", sys.executable)
SEQUENCE = 512
TOKENS = BATCH * SEQUENCE
COMPILE_SECONDS = 900
MIB = 1 << 20


def write_corpus(prefix, vocab):
    """Tokens of which low numbers are frequent, in Megatron's format (docs/formats.md)."""
    numbers = random.Random(1)
    tokens = [int(vocab ** numbers.random()) - 1 for _ in range(40 * TOKENS)]
    with open(prefix + ".bin", "wb") as f:
        f.write(struct.pack(f"<{len(tokens)}i", *tokens))
    with open(prefix + ".idx", "wb") as f:
        f.write(b"MMIDIDX\0\0" + struct.pack("<QBQQiqqq", 1, 4, 1, 2, len(tokens), 0, 0, 1))


class Ours:
    def __init__(self, folder, model):
        self.folder, self.turns, self.peak = folder, 0, 0
        vocab = json.load(open(model, encoding="utf-8"))["vocab_size"]
        corpus = os.path.join(folder, f"corpus-{vocab}")
        if not os.path.exists(corpus + ".idx"):
            write_corpus(corpus, vocab)
        self.spec = os.path.join(folder, os.path.basename(model) + ".yaml")
        with open(self.spec, "w", encoding="utf-8") as f:
            f.write(f"""name: bench
nodes: 1
gpus_per_node: 1
train:
  model: {model}
  data: {{train: {corpus}}}
  sequence_length: {SEQUENCE}
  global_batch: {BATCH}
  micro_batch: {BATCH}
  steps: 1
  optimizer: {{lr: 1e-4, warmup_steps: 1}}
  balance_loss: 0
checkpoint: {{every: 1000000}}
""")

    def run(self, steps, precision="fp32", options=()):
        """(seconds of each step, all that was printed). A turn's first two steps touch memory for the first time; its last one saves."""
        self.turns += 1
        command = [f"{BIN}/dstrain", "run", self.spec, "--out", os.path.join(self.folder, f"run-{self.turns}"), *options]
        command += ["--set", f"train.steps={steps + 3}", "--set", f"train.precision={precision}"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(THREADS)})
        if done.returncode != 0:
            sys.exit(f"bench: dstrain ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        seconds = [TOKENS / float(t) for t in re.findall(r"tok_s=([\d.]+)", done.stdout)]
        self.peak = float(re.search(r"peak memory of rank 0: ([\d.]+) MiB", done.stderr)[1])
        subprocess.run(["rm", "-rf", os.path.join(self.folder, f"run-{self.turns}")], check=True)
        return seconds[2:-1], done.stdout + done.stderr


class Torch:
    def __init__(self, model, experts, compiled):
        self.name = f"torch {'compiled' if compiled else 'eager'}, experts {experts}"
        what = {"model": model, "attention": "sdpa", "experts": experts, "compiled": compiled, "batch": BATCH, "sequence": SEQUENCE, "threads": THREADS}
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([PYTHON, os.path.join(HERE, "torch_model.py"), json.dumps(what)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.log, text=True, env={**os.environ, "OMP_NUM_THREADS": str(THREADS)})
        self.peak = 0

    def run(self, steps, limit=COMPILE_SECONDS):
        try:
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        if not select.select([self.process.stdout], [], [], limit)[0]:
            self.why = f"no answer in {limit} s"
            return None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            self.why = (self.log.read().strip().splitlines() or [f"ended with {self.process.wait()}"])[-1][:160]
            return None
        answer = json.loads(line)
        self.peak = answer["peak"] / MIB
        return answer["seconds"]

    def close(self):
        self.process.kill()
        self.process.wait()


def choose(model):
    """The fastest way of torch to run this model on this machine, by two steps each after one to warm up."""
    best, seconds = None, 0
    for compiled in (False, True) if COMPILE else (False,):
        for experts in ("eager", "grouped_mm", "batched_mm"):
            if experts == "batched_mm" and not batched_fits(model):
                print("  torch, experts batched_mm: left out, a copy of the weights for each token does not fit into memory", flush=True)
                continue
            torch = Torch(model, experts, compiled)
            took = torch.run(1) and torch.run(2)
            print(f"  {torch.name}: " + (f"{TOKENS / min(took):.0f} tokens/s" if took else f"does not work: {torch.why}"), flush=True)
            if took and (best is None or min(took) < seconds):
                best, torch = torch, best
                seconds = min(took)
            if torch is not None:
                torch.close()
    return best


def batched_fits(path):
    m = json.load(open(path, encoding="utf-8"))
    layer = 3 * 4 * TOKENS * m["num_experts_per_tok"] * m["hidden_size"] * m["moe_intermediate_size"]
    return 2 * layer * m["num_hidden_layers"] < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def products(model):
    """Of one thread by its processor time: GFLOP/s of all products with weights of a step, each at its median, and of square matrices at their best."""
    print(f"  products of {os.path.basename(model)}:", flush=True)
    text = subprocess.run([os.path.join(os.path.dirname(BIN), "tests", "bench", "products"), model, str(BATCH), str(SEQUENCE)],
                          capture_output=True, text=True, check=True).stdout
    print("    " + text.strip().replace("\n", "\n    "), flush=True)
    found = re.search(r"all of a step (\d+), peak (\d+) GFLOP/s", text)
    return int(found[1]), int(found[2])


def stall(ours):
    """What saves held up of the whole time, every 10 steps, in percent."""
    text = ours.run(30, options=["--set", "checkpoint.every=10"])[1]
    held = sum(int(ms) for ms in re.findall(r"held up (\d+) ms", text))
    total = sum(TOKENS / float(t) for t in re.findall(r"tok_s=([\d.]+)", text))
    return 100 * held / 1e3 / total


def compare(name, folder, with_torch, rows):
    model = os.path.join(HERE, "models", name + ".json")
    ours = Ours(folder, model)
    print(f"{name}:", flush=True)
    torch = choose(model) if with_torch else None
    times = {"ours": [], "torch": [], "bf16": [], "fp8": []}
    ratios = []
    for turn in range(ROUNDS):
        a = ours.run(STEPS)[0]
        b = torch.run(STEPS) if torch else None
        times["ours"] += a
        if b:
            times["torch"] += b
            ratios.append(statistics.median(b) / statistics.median(a))
        ours_peak = ours.peak
        for precision in ("bf16", "fp8"):
            times[precision] += ours.run(STEPS, precision)[0]
        print(f"  turn {turn + 1} of {ROUNDS}" + (f": {ratios[-1]:.2f} times torch" if b else ""), flush=True)

    def rate(key):
        t = times[key]
        return f"{TOKENS / statistics.median(t):.0f} ({TOKENS / max(t):.0f}..{TOKENS / min(t):.0f})"

    rows.append((f"{name}: dstrain fp32, tokens/s: median (worst..best)", rate("ours"), "-"))
    if ratios:
        rows.append((f"{name}: {torch.name}, tokens/s", rate("torch"), "-"))
        rows.append((f"{name}: dstrain against torch, medians of turns", f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})", ">= 1.5"))
        rows.append((f"{name}: dstrain against torch, best steps", f"{min(times['torch']) / min(times['ours']):.2f}", ">= 1.5"))
        rows.append((f"{name}: peak memory MiB, dstrain and torch", f"{ours_peak:.0f} and {torch.peak:.0f}", "below"))
        torch.close()
    else:
        rows.append((f"{name}: peak memory MiB of dstrain", f"{ours_peak:.0f}", "-"))
    for precision, target in (("bf16", "-"), ("fp8", "<= 1.5")):
        cost = statistics.median(times[precision]) / statistics.median(times["ours"])
        rows.append((f"{name}: time of a step in {precision} against fp32: medians (best steps)", f"{cost:.2f} ({min(times[precision]) / min(times['ours']):.2f})", target))
    median, peak = products(model)
    rows.append((f"{name}: products of a step, of OpenBLAS's own peak of {peak} GFLOP/s a thread", f"{median} = {100 * median / peak:.0f} %", ">= 80 %"))
    rows.append((f"{name}: held up by a checkpoint every 10 steps", f"{stall(ours):.2f} %", "< 1 %"))
    rows.append((f"{name}: peak memory MiB of that, with a checkpoint's copy", f"{ours.peak:.0f}", "-"))


def main():
    with_torch = subprocess.run([PYTHON, "-c", "import torch, transformers"], capture_output=True).returncode == 0
    if not with_torch:
        print("torch is not there, skipped (REFERENCE_PYTHON=venv/bin/python names one that has torch and transformers)")
    rows = []
    with tempfile.TemporaryDirectory(prefix="ds-bench-") as folder:
        for name in MODELS:
            compare(name, folder, with_torch, rows)
    width = max(len(r[0]) for r in rows)
    print(f"\n{'':{width}}  {'measured':>24}  {'target':>7}")
    for name, value, target in rows:
        print(f"{name:{width}}  {value:>24}  {target:>7}")
    print(f"{THREADS} threads, {BATCH} sequences of {SEQUENCE} tokens a step, {ROUNDS} turns of {STEPS} steps")


if __name__ == "__main__":
    main()
