"""A small disk for one test, which it can fill without affecting other programs.

The disk is a tmpfs on a folder and is removed after the test. This module asserts nothing.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest


class SmallDisk:
    """A disk on an empty folder.

    Args:
        folder: where it is seen; made if need be.
        megabytes: its size.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self._size = folder, f"size={megabytes}m,mode=0700"
        folder.mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        mount = ["mount", "-t", "tmpfs", "-o", self._size, "tmpfs", str(self.folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("no disk can be mounted here")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def fill(self) -> None:
        """Leave no room at all."""
        with (self.folder / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while ballast.write(bytes(4096)):
                pass
        free = os.statvfs(self.folder).f_bavail
        assert not free, f"{free} blocks are left"

    def make_room(self) -> None:
        """Take away what filled it."""
        (self.folder / "ballast").unlink()
