"""Programs of Debian's packages, unpacked below .venvs: `python -m tests.debian`.

Nothing is installed and nobody has to be root. Where there is no apt, or it does not know a
package, that is said, and the tests that want its program are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.clients.environments import FOLDER

HERE = FOLDER / "debian"
PACKAGES = {"promtool": "prometheus", "dnsmasq": "dnsmasq-base"}
"""Program to package."""


def find(program: str) -> Path | None:
    """This machine's own, or the unpacked one."""
    places = os.pathsep.join((os.defpath, "/usr/sbin", f"{HERE}/usr/bin", f"{HERE}/usr/sbin"))
    found = shutil.which(program, path=places)
    return Path(found) if found else None


def environment() -> dict[str, str]:
    """What an unpacked program needs to find its libraries."""
    folders = sorted({str(file.parent) for file in (HERE / "usr" / "lib").rglob("*.so.*")})
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(folders)}


def unpack(package: str) -> None:
    """It, and what it needs that is not installed here."""
    wanted = _said("apt-get", "--simulate", "--no-install-recommends", "install", package)
    names = re.findall(r"^Inst (\S+)", wanted, re.MULTILINE) or [package]
    files = HERE / "packages"
    files.mkdir(parents=True, exist_ok=True)
    _said("apt-get", "download", "--quiet", *names, cwd=files)
    for file in files.glob("*.deb"):
        _said("dpkg-deb", "--extract", str(file), str(HERE))
        file.unlink()


def _said(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    for program, package in PACKAGES.items():
        if find(program) is not None:
            continue
        sys.stderr.write(f"unpacking {program} of Debian's {package}\n")
        try:
            unpack(package)
        except FileNotFoundError as error:
            sys.stderr.write(f"no {program}: there is no {error.filename} here\n")
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"no {program}: {error.stderr.strip()}\n")
