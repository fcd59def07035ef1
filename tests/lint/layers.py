"""layers.py --core CORE.a --libs LIB.a... --sources FILE...: the rules of HACKING.md under "Layers".

- includes: a folder includes only what its row of MAY_INCLUDE names;
- the core archive refers only to itself, to pure functions of lib and proto, and to a short list of the C library's: no I/O, no
  clock, no randomness, no SQLite, no libuv, no protobuf;
- every C file in the tree is built: a files.mk lists it, or it is a program's main.
"""

import argparse
import os
import re
import subprocess
import sys

FOLDERS = ["lib", "proto", "report", "daemon/core", "daemon/sim", "daemon", "worker", "trainer", "ctl"]
CORE_LIB = ["lib/err.h", "lib/mem.h", "lib/buf.h", "lib/hash.h", "lib/hostlist.h"]
CORE_PROTO = ["proto/jobspec.h", "proto/manifest.h"]
MAY_INCLUDE = {
    "lib": ["lib/"],
    "proto": ["lib/", "proto/"],
    "report": ["lib/", "proto/", "report/"],
    "daemon/core": ["daemon/core/", *CORE_LIB, *CORE_PROTO],
    "daemon/sim": ["lib/", "proto/", "daemon/"],
    "daemon": ["lib/", "proto/", "daemon/"],
    "worker": ["lib/", "proto/", "worker/"],
    "trainer": ["lib/", "proto/", "report/", "trainer/"],
    "ctl": ["lib/", "proto/", "report/", "ctl/"],
}
# What the core may call of lib and proto, by prefix.
CORE_CALLS = re.compile(r"^(mem|buf|err|hash|hostlist|jobspec|duration|count|time|array|dependencies|dependency|placement|manifest)_\w+$")
# What it may call of the C library, and what the compiler itself emits.
CORE_LIBC = set(
    """memcpy memmove memset memcmp memchr strlen strcmp strncmp strchr strrchr strstr strcpy strncpy strnlen strcspn strspn
    snprintf vsnprintf qsort bsearch free abs labs llabs isnan __isnan isfinite isinf fabs floor ceil round pow exp exp2 log
    strtol strtoll strtoul strtoull __ctype_b_loc __ctype_tolower_loc
    __assert_fail __stack_chk_fail _GLOBAL_OFFSET_TABLE_
    __snprintf_chk __vsnprintf_chk __memcpy_chk __strcpy_chk __memset_chk""".split()
)
FORBIDDEN_HEADERS = re.compile(
    r"^(uv|sqlite3|time|sys/time|unistd|fcntl|pthread|stdio|sys/\w+|poll|netinet/\w+|openssl/\w+|protobuf-c/.*|jansson|yaml)\.h$"
)
CORE_MAY_INCLUDE_SYSTEM = {"stdio.h"}  # snprintf; what else it offers is caught by the symbol check
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def folder_of(path):
    return next((f for f in FOLDERS if path.startswith(f + "/")), None)


def source_files():
    git = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.c", "*.h", "*.cc"], capture_output=True, text=True)
    if git.returncode == 0:
        return [f for f in git.stdout.split() if os.path.exists(f)]
    found = []
    for top in ["lib", "proto", "report", "daemon", "worker", "trainer", "ctl", "tests"]:
        for here, _, names in os.walk(top):
            found += [os.path.join(here, n) for n in names if n.endswith((".c", ".h", ".cc"))]
    return found


def check_includes(files):
    for path in files:
        folder = folder_of(path)
        if folder is None:
            continue
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for kind, name in INCLUDE.findall(text):
            if kind == '"':
                if not name.startswith(tuple(MAY_INCLUDE[folder])):
                    yield f"{path}: includes {name}: {folder} may only include {', '.join(MAY_INCLUDE[folder])}"
            elif folder == "daemon/core" and FORBIDDEN_HEADERS.match(name) and name not in CORE_MAY_INCLUDE_SYSTEM:
                yield f"{path}: includes <{name}>: the core does no I/O and reads no clock"


def symbols(archive, *flags):
    out = subprocess.run(["nm", *flags, archive], capture_output=True, text=True, check=True).stdout
    return {fields[-1] for fields in map(str.split, out.splitlines()) if len(fields) >= 2}


def check_core(core, libs):
    own = symbols(core, "--defined-only")
    if not own:
        yield f"{core}: holds no symbol: the check has nothing to look at"
    below = set()
    for archive in libs:
        below |= symbols(archive, "--defined-only", "--extern-only")
    for name in sorted(symbols(core, "--undefined-only") - own):
        if name in CORE_LIBC or (name in below and CORE_CALLS.match(name)):
            continue
        yield f"{core}: calls {name}: the core is pure (see CORE_LIBC in tests/lint/layers.py)"


def check_all_built(files, listed):
    mains = re.compile(r"^(\w+/(sim/)?\w*main\.c|tests/.*)$")
    for path in files:
        if path.endswith((".c", ".cc")) and path not in listed and not mains.match(path):
            yield f"{path}: no files.mk lists it, so nobody builds it"
        if path.startswith("tests/unit/") and os.path.basename(path).startswith("test_") and path not in listed:
            yield f"{path}: no files.mk lists it, so nobody runs it"
    for path in listed:
        if not os.path.exists(path):
            yield f"{path}: listed in a files.mk but not there"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", required=True)
    parser.add_argument("--libs", nargs="+", required=True)
    parser.add_argument("--sources", nargs="+", required=True)
    args = parser.parse_args()
    files = source_files()
    failed = 0
    checks = [check_includes(files), check_core(args.core, args.libs), check_all_built(files, set(args.sources))]
    for problems in map(list, checks):
        failed += bool(problems)
        for line in problems:
            print(line)
    print(f"layers: {len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
