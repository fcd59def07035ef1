"""headers.py HEADER... -- COMPILER...: every header compiles alone, so that it includes what it uses."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor


def compile_alone(header, command):
    run = subprocess.run([*command, "-x", "c", "-"], input=f'#include "{header}"\n', capture_output=True, text=True)
    return run.returncode == 0, run.stderr


def main(args):
    split = args.index("--")
    headers, command = args[:split], args[split + 1 :]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda h: compile_alone(h, command), headers))
    failed = 0
    for header, (ok, text) in zip(headers, results):
        if not ok:
            failed += 1
            print(f"{header} does not compile alone:\n{text}")
    print(f"headers: {len(headers) - failed} passed, {failed} failed")
    return 1 if failed or not headers else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
