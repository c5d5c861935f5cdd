"""Hosts that are folders of this machine, and roles that only say that they are ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

# `ssh HOST COMMAND` in a folder of the host's name; a host without one cannot be reached.
SSH = """\
#!/bin/sh
cd "{folder}/$1" 2>/dev/null || { echo "no route to host $1" >&2; exit 255; }
echo "$1" >> "{folder}/asked"
exec sh -c "$2"
"""
# `python -m epd ROLE --config FILE --set threads=N --ready-fd 3`.
PYTHON = """\
#!/bin/sh
[ "$1" != -c ] || exec python3 "$@"
echo "$* omp=$OMP_NUM_THREADS gpu=${CUDA_VISIBLE_DEVICES:-none}"
case $5 in
    "$(cat "{folder}/deaf" 2>/dev/null).yaml") trap "" TERM ;;
    "$(cat "{folder}/broken" 2>/dev/null).yaml") echo '{"error": "no such model"}' >&3; exit 2 ;;
    "$(cat "{folder}/mute" 2>/dev/null).yaml") echo "Segmentation fault"; exit 139 ;;
esac
echo '{"ready": true, "url": "http://127.0.0.1:1"}' >&3
exec 3>&-
while :; do sleep 0.02; done
"""
LOOPBACK = {
    "model": "/models/m",
    "settings": ["wire.insecure=true", "drain_s=0"],
    "run_dir": "run",
    "hosts": [
        {"host": "front", "address": "127.0.0.1", "roles": {"gateway": 1, "encode": 2}},
        {"host": "back", "address": "127.0.0.2", "roles": {"prefill": 2, "decode": 2}},
    ],
}


def cluster_file(folder: Path, **changes: Any) -> Path:
    """A file for hosts that are folders in `folder`."""
    programs = {}
    for name, text in (("ssh", SSH), ("python", PYTHON)):
        programs[name] = folder / name
        programs[name].write_text(text.replace("{folder}", str(folder)))
        programs[name].chmod(0o755)
    tree = {
        **LOOPBACK,
        "ssh": [str(programs["ssh"])],
        "python": str(programs["python"]),
        "start_timeout_s": 20,
        **changes,
    }
    for host in tree["hosts"]:
        (folder / host["host"]).mkdir(exist_ok=True)
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file
