"""mutants.py --make MAKE --jobs N --build DIR: a test suite that cannot fail is worth nothing.

For each deliberate bug of tests/mutants.txt builds the one unit test that watches for it twice, without and with the bug, and
requires that it passes without and fails with it. Bugs are `#ifdef MUTANT_name` in the sources. Where the test is `dssim ARGUMENTS`,
it is the simulator. Only the files that know the bug are compiled again, and linked in front of the others.
"""

import argparse
import os
import shutil
import subprocess
import sys

LIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mutants.txt")


def mutants():
    with open(LIST, encoding="utf-8") as f:
        for line in f:
            fields = line.split("#")[0].rstrip().split(None, 1)
            if fields:
                test, what = fields[1].split("  ", 1)
                yield fields[0], test, what.strip()


class DoesNotBuild(Exception):
    pass


def compile_test(args, folder, test, *settings):
    target = f"{folder}/tests/{test}"
    command = [args.make, "--no-print-directory", "-s", f"-j{args.jobs}", f"BUILD={folder}", *settings, target]
    if subprocess.run(command).returncode != 0:
        raise DoesNotBuild(f"{' '.join(command)} failed")
    return target


def run(*command):
    """(exit status, output) of a unit test; a crash or a hang counts as noticed."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
        return done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return -1, "it took longer than 300 s"


def is_in_sources(name):
    found = subprocess.run(["grep", "-rlwE", f"MUTANT_{name}", "lib", "proto", "daemon", "worker", "trainer"], stdout=subprocess.PIPE)
    return found.returncode == 0


passes = {}  # simulations that pass without any bug, by their arguments


def simulate(args, name, test):
    """None, or why the mutant survived the simulator."""
    arguments = test.split()[1:]
    target = f"{args.build}/mutants/{name}/dssim"
    command = [args.make, "--no-print-directory", "-s", f"-j{args.jobs}", f"BUILD={args.build}", target]
    if subprocess.run(command).returncode != 0:
        raise DoesNotBuild(f"{' '.join(command)} failed")
    if test not in passes:
        passes[test] = run(f"{args.build}/bin/dssim", *arguments)
    if passes[test][0] != 0:
        return f"{test} fails without the bug:\n{passes[test][1]}"
    status, _ = run(target, *arguments)
    return None if status != 0 else f"{test} passes with the bug in: it would not notice"


def check(args, name, test):
    """None, or why the mutant survived."""
    if not is_in_sources(name):
        return f"no source mentions MUTANT_{name}"
    if test.startswith("dssim "):
        return simulate(args, name, test)
    status, output = run(compile_test(args, args.build, test))
    if status != 0:
        return f"{test} fails without the bug:\n{output}"
    folder = f"{args.build}/mutants/{name}"
    command = [args.make, "--no-print-directory", "-s", f"BUILD={args.build}", f"BUG={name}", f"TEST={test}", "mutant-test"]
    try:
        if subprocess.run(command).returncode != 0:
            raise DoesNotBuild(f"{' '.join(command)} failed")
        status, output = run(f"{folder}/{os.path.basename(test)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None if status != 0 else f"{test} passes with the bug in: it would not notice"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", default="make")
    parser.add_argument("--jobs", default="1")
    parser.add_argument("--build", default="build")
    args = parser.parse_args()
    passed = failed = 0
    for name, test, what in mutants():
        try:
            why = check(args, name, test)
        except DoesNotBuild as reason:
            why = str(reason)
        if why is None:
            passed += 1
            print(f"mutant {name} ({what.strip()}): {test} notices", flush=True)
        else:
            failed += 1
            print(f"mutant {name} ({what.strip()}): {why}", flush=True)
    print(f"mutants: {passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
