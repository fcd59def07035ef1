"""A disk that can be full: a tmpfs of some megabytes over a folder, or, where mounting is not allowed, a preloaded library that makes
writes below the folder fail the same way (fulldisk.c)."""

import os
import subprocess

from cluster import BIN

LIBRARY = os.path.join(os.path.dirname(BIN), "tests", "fulldisk.so")


class SmallDisk:
    """Use: with SmallDisk(folder, 8) as disk: start the programs with disk.env; disk.fill(); disk.free()."""

    def __init__(self, folder, megabytes):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "none", self.folder]
        self.mounted = subprocess.run(mount, capture_output=True).returncode == 0
        self.ballast = os.path.join(self.folder, "ballast")
        self.env = {}
        if not self.mounted:
            self.env = {
                "LD_PRELOAD": LIBRARY,
                "FULL_DISK_FOLDER": os.path.realpath(self.folder),
                "FULL_DISK_FLAG": self.ballast,
                "ASAN_OPTIONS": "verify_asan_link_order=0",
            }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.mounted:
            subprocess.run(["umount", "-l", self.folder], check=True)

    def fill(self):
        """Takes all the room that is left."""
        with open(self.ballast, "ab", buffering=0) as f:
            for size in (65536, 4096, 512, 1) if self.mounted else ():
                try:
                    while True:
                        f.write(b"\0" * size)
                except OSError:
                    pass

    def free(self):
        os.unlink(self.ballast)
