"""What the benchmarks found, each figure beside its target, with the load of the machine while it was taken."""

import os
import sys


class Figures:
    def __init__(self):
        self.rows = []

    def add(self, what, value, unit="", most=None, least=None):
        """most, least: the target, if there is one."""
        target = f"< {most:g}" if most is not None else f">= {least:g}" if least is not None else ""
        held = None if not target else value < most if most is not None else value >= least
        load = os.getloadavg()[0]
        self.rows.append((what, f"{value:.4g}" if abs(value) < 100 else f"{value:.0f}", unit, target, {None: "", True: "held", False: "NOT held"}[held], f"{load:.1f}"))
        print("  " + "  ".join(c for c in self.rows[-1][:5] if c), file=sys.stderr, flush=True)

    def note(self, what, text):
        self.rows.append((what, text, "", "", "", ""))
        print(f"  {what}: {text}", file=sys.stderr, flush=True)

    def show(self):
        head = ("", "measured", "", "target", "", "load")
        width = [max(len(r[i]) for r in [head, *(r for r in self.rows if i == 0 or r[3] or r[2])]) for i in range(6)]
        print()
        for row in [head, *self.rows]:
            print("  ".join(f"{cell:{'>' if i in (1, 3, 5) else '<'}{width[i]}}" for i, cell in enumerate(row)).rstrip())
        print(f"load: processes that wanted to run, on average over the last minute, on {os.cpu_count()} cores; a figure taken with more than those is one of a busy machine")
