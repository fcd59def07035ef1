"""What came out of the runs, as tables. Every table is printed with what it compares with, so that it can be read alone."""

import glob
import json
import math
import operator
import os
import re
import struct

SKIP = 0.05  # of the steps: what the bound does not cover
SMOOTH = 0.9  # of the loss curves (report, appendix B.1)
BOUND = 0.0025
TOKENS = 2_000_000  # that the bound is to be shown for
FIELD = re.compile(r"(\w+)=(\S+)")


class Result:
    def __init__(self, run, folder):
        self.name, self.folder = run.name, folder
        with open(os.path.join(folder, "run", "metrics.jsonl"), encoding="utf-8") as f:
            metrics = [json.loads(line) for line in f]
        self.loss = [m["loss"] for m in metrics]
        self.tokens = metrics[-1]["tokens"]
        self.valid = [(m["step"], m["valid_loss"]) for m in metrics if m.get("valid_loss") is not None]
        with open(os.path.join(folder, "steps"), encoding="utf-8") as f:
            lines = [dict(FIELD.findall(line)) for line in f]
        self.maxvio = [(int(x["step"]), float(x["valid_maxvio"])) for x in lines if "valid_maxvio" in x]
        with open(os.path.join(folder, "seconds"), encoding="utf-8") as f:
            self.seconds = int(f.read())

    def smooth(self):
        out, at = [], None
        for x in self.loss:
            at = x if at is None else SMOOTH * at + (1 - SMOOTH) * x
            out.append(at)
        return out

    def gradient(self):
        """name -> numbers: the first moments after one step with beta1 0."""
        (shard,) = glob.glob(f"{self.folder}/run/checkpoints/*/step-*/*.safetensors")
        with open(shard, "rb") as f:
            data = f.read()
        (header_bytes,) = struct.unpack_from("<Q", data)
        out = {}
        for name, tensor in json.loads(data[8 : 8 + header_bytes]).items():
            if name.startswith("optimizer.m."):
                assert tensor["dtype"] == "F32", f"{shard}: {name} is {tensor['dtype']}"
                first, end = (8 + header_bytes + x for x in tensor["data_offsets"])
                out[name[len("optimizer.m.") :]] = memoryview(data)[first:end].cast("f")
        return out


def differences(result, base):
    """Relative differences of the smoothed curves, and the first step that counts."""
    first = int(len(base.loss) * SKIP)
    return [(a - b) / b for a, b in zip(result.smooth(), base.smooth(), strict=True)][first:], first


def table(header, rows):
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(str(x).ljust(w) if i == 0 else str(x).rjust(w) for i, (x, w) in enumerate(zip(row, widths, strict=True))).rstrip())


def precisions(results):
    rows = []
    for r in results:
        d, first = differences(r, results[0])
        worst = max(range(len(d)), key=lambda i: abs(d[i]))
        rows.append(
            [r.name, r.tokens, f"{abs(d[worst]):.3%}", first + worst + 1, f"{sum(d) / len(d):+.3%}", f"{d[-1]:+.3%}", f"{r.smooth()[-1]:.4f}",
             f"{r.valid[-1][1]:.4f}" if r.valid else "-", r.seconds]
        )
    table([f"against {results[0].name}", "tokens", "largest", "at step", "mean", "at the end", "loss", "valid loss", "seconds"], rows)


def course(results):
    """The smoothed loss and the differences along the way."""
    steps = len(results[0].loss)
    marks = sorted({max(1, steps * i // 10) for i in range(1, 11)})
    base = results[0].smooth()
    print()
    rows = [[f"{results[0].name}, smoothed loss", *(f"{base[m - 1]:.3f}" for m in marks)]]
    for r in results[1:]:
        a = r.smooth()
        rows.append([f"{r.name} against it", *(f"{(a[m - 1] - base[m - 1]) / base[m - 1]:+.3%}" for m in marks)])
    table(["step", *marks], rows)


def main(results):
    """True where FP8 is within the bound of BF16."""
    precisions(results)
    course(results)
    by_name = {r.name: r for r in results}
    worst = {name: max(map(abs, differences(by_name[name], by_name["bf16"])[0])) for name in ("fp8", "fp32")}
    good = worst["fp8"] < BOUND
    print(f"\nfp8 against bf16: largest relative difference {worst['fp8']:.3%}: {'within' if good else 'BEYOND'} the bound of {BOUND:.2%}, "
          f"after the first {SKIP:.0%} of {by_name['bf16'].tokens} tokens")
    print(f"fp32 against bf16, the control: {worst['fp32']:.3%}: what another rounding does to the curve")
    if by_name["bf16"].tokens < TOKENS:
        print(f"shorter than the {TOKENS} tokens that the bound is to be shown for")
    return good


def dot(a, b):
    return sum(map(operator.mul, a, b))


def distance(a, b):
    """|a - b| / |b| of all numbers together, and the mean over tensors of each one's own."""
    off = norm = 0.0
    each = []
    for name, y in b.items():
        x = a[name]
        n = dot(y, y)
        d = max(0.0, dot(x, x) - 2 * dot(x, y) + n)
        off, norm = off + d, norm + n
        if n > 0:
            each.append(math.sqrt(d / n))
    return math.sqrt(off / norm), sum(each) / len(each)


def gradient(results):
    base = results[0].gradient()
    rows = []
    for r in results[1:]:
        whole, mean = distance(r.gradient(), base)
        rows.append([r.name, f"{whole:.4f}", f"{mean:.4f}", f"{(r.loss[0] - results[0].loss[0]) / results[0].loss[0]:+.4%}"])
    table([f"distance from {results[0].name}'s gradient", "whole", "mean of tensors", "loss"], rows)


def balance(results):
    steps = [s for s, _ in results[0].maxvio]
    print("MaxVio over the validation set at step")
    table(["", *steps, "valid loss", "seconds"],
          [[r.name, *(f"{x:.2f}" for _, x in r.maxvio), f"{r.valid[-1][1]:.4f}", r.seconds] for r in results])


def mtp(results):
    print("the main model's loss at equal tokens")
    table(["", "tokens", "smoothed loss", "valid loss", "seconds"],
          [[r.name, r.tokens, f"{r.smooth()[-1]:.4f}", f"{r.valid[-1][1]:.4f}", r.seconds] for r in results])


def context(results):
    print("validation loss at the phase's length, after its first step (weights as they came) and at its end")
    table(["", "tokens", "first", "end", "seconds"],
          [[r.name, r.tokens, f"{r.valid[0][1]:.4f}", f"{r.valid[-1][1]:.4f}", r.seconds] for r in results])


TABLES = {"main": main, "gradient": gradient, "ablation": precisions, "balance": balance, "mtp": mtp, "context": context}
