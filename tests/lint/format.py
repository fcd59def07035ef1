"""format.py CLANG_FORMAT FILE...: every file is as clang-format would write it. Another version than 14 formats differently
in places, so its word does not count and the check says that it was left out."""

import re
import subprocess
import sys

VERSION = 14


def main(clang_format, files):
    text = subprocess.run([clang_format, "--version"], capture_output=True, text=True, check=True).stdout
    version = int(re.search(r"version (\d+)", text).group(1))
    if version != VERSION:
        print(f"format: left out: clang-format {version} is here, the style is {VERSION}'s: 0 passed, 0 failed")
        return 0
    run = subprocess.run([clang_format, "--dry-run", "-Werror", *files], capture_output=True, text=True)
    bad = sorted({line.split(":")[0] for line in run.stderr.splitlines() if "error:" in line})
    for name in bad:
        print(f"{name}: not formatted (make format)")
    print(f"format: {len(files) - len(bad)} passed, {len(bad)} failed")
    return 1 if bad or run.returncode else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
