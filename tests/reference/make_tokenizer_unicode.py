#!/usr/bin/env python3
"""Writes trainer/tokenizer_unicode_table.c: where the Unicode tables of the `tokenizers` package differ from those of this machine's
libraries. Its regular expressions follow Unicode 16.0 (Oniguruma), its normalisers Unicode 9.0, its Digits Unicode 17.0 (Rust).

The categories of the oldest tables in use, 14.0, are those of Python 3.11, which runs this; younger ones come from the `unicodedata2`
package, whose versions are those of Unicode; ages from perl.

usage: python3.11 make_tokenizer_unicode.py --regex DIR16 --new DIR17 > trainer/tokenizer_unicode_table.c
       each DIR from `pip install --target DIR unicodedata2==16.0.0` (17.0.0)
"""
import argparse
import json
import subprocess
import sys

SCRIPTS = {"Han": [(0x2B739, 0x2B739), (0x2EBF0, 0x2EE5D), (0x31350, 0x323AF)], "Hiragana": [(0x1B132, 0x1B132)], "Katakana": [(0x1B155, 0x1B155)]}
HAN_STAND_IN, HIRAGANA_STAND_IN, KATAKANA_STAND_IN = 0x2B738, 0x1B150, 0x1B164
DIGIT_STAND_IN, DIGIT_STAND_IN_OF_THAT = 0x2FFFE, 0x1FFFE
# Blocks of the scripts that a pattern may name: nothing in there stands in for others.
NAMED_SCRIPTS = [(0x370, 0x3FF), (0x530, 0x5FF), (0x980, 0x9FF), (0xB80, 0xBFF), (0xE00, 0xE7F), (0x10A0, 0x11FF), (0x1780, 0x17FF),
                 (0x19E0, 0x19FF), (0x1C90, 0x1CBF), (0x1D00, 0x1DBF), (0x1F00, 0x1FFF), (0x2D00, 0x2D2F), (0x2E80, 0x33FF), (0x3400, 0x9FFF),
                 (0xA960, 0xA97F), (0xAC00, 0xD7FF), (0xF900, 0xFFFF), (0x10140, 0x1018F), (0x1AFF0, 0x1B16F), (0x1D200, 0x1D24F),
                 (0x1F200, 0x1F2FF), (0x20000, 0x3FFFF)]

CODE = """
import sys, json
if len(sys.argv) > 1:
    sys.path.insert(0, sys.argv[1])
    import unicodedata2 as u
else:
    import unicodedata as u
print(json.dumps([u.unidata_version, [[u.category(chr(c)), u.combining(chr(c)), u.decomposition(chr(c))] for c in range(0x110000)]]))
"""


def load(version, *folder):
    found, rows = json.loads(subprocess.run([sys.executable, "-c", CODE, *folder], check=True, capture_output=True).stdout)
    if found != version:
        sys.exit(f"{folder or sys.executable} has Unicode {found}, {version} is needed")
    return rows


def assigned_in(version):
    program = f'for my $c (0 .. 0x10ffff) {{ print(chr($c) =~ /\\p{{Present_In: {version}}}/ ? 1 : 0) }}'
    return subprocess.run(["perl", "-e", program], check=True, capture_output=True).stdout


def inside(c, ranges):
    return any(a <= c <= b for a, b in ranges)


def stand_in_for(c, category, tables):
    """The nearest code point of the same category in all tables, and of as many bytes."""
    for script, stand_in in (("Han", HAN_STAND_IN), ("Hiragana", HIRAGANA_STAND_IN), ("Katakana", KATAKANA_STAND_IN)):
        if inside(c, SCRIPTS[script]):
            return stand_in
    for distance in range(1, 0x110000):
        for near in (c - distance, c + distance):
            same_bytes = 0x800 <= near < 0x10000 if c < 0x10000 else 0x10000 <= near < 0x110000
            free = category == "Cn" or not inside(near, NAMED_SCRIPTS)
            if same_bytes and free and all(t[near][0] == category for t in tables):
                return near
    raise ValueError(f"nothing can stand in for {c:#x}")


def runs(values):
    """[(first, last, value)] of a sorted list of (code point, value)."""
    out = []
    for c, value in values:
        if out and out[-1][1] == c - 1 and out[-1][2] == value:
            out[-1][1] = c
        else:
            out.append([c, c, value])
    return out


def stand_in_rows(old, regex, new):
    values = [(DIGIT_STAND_IN, DIGIT_STAND_IN_OF_THAT)]
    before = None
    for c in range(0x800, 0x110000):
        category = regex[c][0]
        if old[c][0] == category == new[c][0]:
            continue
        key = (category, new[c][0])
        if category == "Cn" and new[c][0][0] == "N":
            stand_in = DIGIT_STAND_IN
        elif before is None or before[0] != c - 1 or before[1] != key or inside(c, sum(SCRIPTS.values(), [])):
            stand_in = stand_in_for(c, category, (old, regex, new))
        before = (c, key)
        values.append((c, stand_in))
    return runs(sorted(values))


def inert_rows(new):
    """Younger than 9.0 and with a part in normalisation."""
    present = assigned_in("9.0")
    young = {c for c in range(0x110000) if present[c] == ord("0") and new[c][0] not in ("Cn", "Cs", "Co")}
    active = {c for c in young if new[c][1] or new[c][2]}
    for c in set(active):
        if new[c][2] and not new[c][2].startswith("<"):
            active |= {int(part, 16) for part in new[c][2].split()} & young
    return runs([(c, 0) for c in sorted(active)])


def main():
    parser = argparse.ArgumentParser()
    for name in ("regex", "new"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    old, regex, new = load("14.0.0"), load("16.0.0", args.regex), load("17.0.0", args.new)
    print("/* Written by tests/reference/make_tokenizer_unicode.py; what the tables mean: tokenizer_unicode.h. */")
    print('#include "trainer/tokenizer_unicode.h"\n')
    rows = stand_in_rows(old, regex, new)
    print("const struct unicode_stand_in unicode_stand_ins[] = {")
    for first, last, stand_in in rows:
        print(f"    {{{first:#x}, {last:#x}, {stand_in:#x}}},")
    print("};\nconst size_t unicode_stand_in_count = sizeof unicode_stand_ins / sizeof unicode_stand_ins[0];\n")
    print("const struct unicode_range unicode_inert[] = {")
    for first, last, _ in inert_rows(new):
        print(f"    {{{first:#x}, {last:#x}}},")
    print("};\nconst size_t unicode_inert_count = sizeof unicode_inert / sizeof unicode_inert[0];")


if __name__ == "__main__":
    main()
