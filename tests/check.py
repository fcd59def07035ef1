"""check.py --make MAKE TARGET...: runs the parts of `make check` in order, and adds up what their runners report.

Everything a part prints is passed through. A part that fails, or that reports no test at all, ends the run: what it printed is then
at the end, above the closing lines. Tests run one after the other: two at once would disturb each other on a small machine. The last line is `N passed, N failed`; the exit status is 0 only when nothing failed.
"""

import argparse
import os
import re
import subprocess
import sys
import time

CMOCKA = re.compile(r"^\[  (PASSED|FAILED)  \] (\d+) test\(s\)")
PYTEST = re.compile(r"^(?:=+ )?(?=.*\b(?:passed|failed|error)).* in [\d.]+s")
PYTEST_COUNT = re.compile(r"(\d+) (passed|failed|errors?)")
OWN = re.compile(r"^[\w -]+:.*?\b(\d+) passed, (\d+) failed$")


def count(line):
    """(passed, failed) of a runner's closing line, or None for any other line."""
    if match := CMOCKA.match(line):
        n = int(match.group(2))
        return (n, 0) if match.group(1) == "PASSED" else (0, n)
    if match := OWN.match(line):
        return int(match.group(1)), int(match.group(2))
    if PYTEST.match(line):
        passed = failed = 0
        for n, what in PYTEST_COUNT.findall(line):
            if what == "passed":
                passed += int(n)
            else:
                failed += int(n)
        return passed, failed
    return None


class Part:
    def __init__(self, target):
        self.target = target
        self.passed = self.failed = 0
        self.closing = []
        self.seconds = 0.0

    def run(self, make, environment):
        began = time.monotonic()
        command = [make, "--no-print-directory", "-s", "DEPS=no", self.target]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
            for raw in process.stdout:
                line = raw.decode(errors="replace")
                sys.stdout.write(line)
                sys.stdout.flush()
                if counted := count(line.rstrip()):
                    self.passed += counted[0]
                    self.failed += counted[1]
                    self.closing.append(line.rstrip())
        self.seconds = time.monotonic() - began
        if process.returncode != 0 and self.failed == 0:
            self.failed = 1
            self.closing.append(f"{self.target}: make ended with status {process.returncode}")
        elif self.passed + self.failed == 0:
            self.failed = 1
            self.closing.append(f"{self.target}: reported no test")
        return self.failed == 0


def environment_without_jobserver():
    env = dict(os.environ)
    flags = env.get("MAKEFLAGS", "")
    env["MAKEFLAGS"] = re.sub(r"(^|\s)(-j\d*|--jobserver-\S+)", " ", flags)
    env.pop("MAKELEVEL", None)
    return env


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", default="make")
    parser.add_argument("targets", nargs="+")
    args = parser.parse_args()
    environment = environment_without_jobserver()
    parts = []
    for target in args.targets:
        print(f"\n-------- {target}", flush=True)
        part = Part(target)
        parts.append(part)
        if not part.run(args.make, environment):
            break
    print("\n-------- closing lines")
    for part in parts:
        print(f"{part.target} ({part.seconds:.0f} s)")
        for line in part.closing:
            print(f"    {line}")
    for target in args.targets[len(parts) :]:
        print(f"{target}: not run")
    passed, failed = sum(p.passed for p in parts), sum(p.failed for p in parts)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
