"""`make install` puts everything under DESTDIR and PREFIX, and the installed programs work from there."""

import os
import subprocess

from cluster import BIN, ROOT

PROGRAMS = ["dsd", "dsworkerd", "dsshim", "dstrain", "dsctl"]


def test_install(tmp_path):
    dest = tmp_path / "root"
    build = os.path.relpath(os.path.dirname(BIN), ROOT)
    make = ["make", "-s", "-C", ROOT, "install", f"BUILD={build}", f"DESTDIR={dest}", "PREFIX=/usr"]
    if build.endswith("-asan"):
        make.append("FLAVOUR=asan")
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"}
    subprocess.run(make, check=True, env=env, stdout=subprocess.DEVNULL)
    installed = {os.path.relpath(os.path.join(here, n), dest) for here, _, names in os.walk(dest) for n in names}
    assert {f"usr/bin/{p}" for p in PROGRAMS} <= installed
    for path in ["usr/share/ds/demo.yaml", "usr/share/ds/prices.yaml", "usr/lib/systemd/system/dsd.service",
                 "usr/lib/systemd/system/dsworkerd.service", "usr/lib/sysusers.d/ds.conf", "usr/lib/tmpfiles.d/ds.conf",
                 "usr/share/bash-completion/completions/dsctl", "usr/share/zsh/site-functions/_dsctl"]:
        assert path in installed, f"{path} is not in {sorted(installed)}"
    for page in ["man1/dsctl.1", "man1/dstrain.1", "man8/dsd.8", "man8/dsworkerd.8"]:
        assert f"usr/share/man/{page}" in installed, page
    for program in PROGRAMS:
        if program == "dsshim":  # for dsworkerd only
            continue
        done = subprocess.run([f"{dest}/usr/bin/{program}", "--help"], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0 and program in done.stdout, program
    for path in sorted(installed):
        if path.endswith((".service", ".conf", ".yaml")):
            with open(dest / path, encoding="utf-8") as f:
                text = f.read()
            assert "@PREFIX@" not in text and str(dest) not in text and ROOT not in text, path
