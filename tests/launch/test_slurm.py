"""The sbatch file with stand-ins for Slurm: which steps it runs, and what it does when one dies."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from epd.cli.main import build_parser
from epd.config import load_config
from tests.cluster.front import eventually

SBATCH = Path(__file__).parents[2] / "launch" / "slurm" / "epd.sbatch"
LAYOUT = "gateway:1,encode:2 prefill:1 decode:2"
SRUN = """\
#!/bin/bash
trap 'echo drained >> "{folder}/drained"; exit 0' TERM
echo "$*" >> "{folder}/steps"
[[ "$*" == *" prefill "* && ! -e "{folder}/died" ]] && { touch "{folder}/died"; exit 139; }
[[ "$*" == *name=decode-1* ]] && exit 2
while :; do sleep 0.05; done
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "EPD_MODEL": "/models/m",
        "EPD_NODES": LAYOUT,
        "EPD_SHARED": str(folder / "shared"),
        **more,
    }


def dry_run(folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = environment(folder, EPD_DRY_RUN="1", **more)
    return subprocess.run(["bash", SBATCH], env=env, capture_output=True, text=True, timeout=60)


def test_a_dry_run_prints_a_step_for_each_role_that_epd_takes(tmp_path: Path) -> None:
    done = dry_run(tmp_path, EPD_SETTINGS="dtype=float32 drain_s=5", EPD_GPUS_PER_WORKER="1")
    steps = [shlex.split(line) for line in done.stdout.splitlines()]
    found = {}
    for step in steps:
        args = build_parser().parse_args(step[step.index("epd") + 1 :])
        config = load_config(args.config, args.overrides)
        node = next(word for word in step if word.startswith("--nodelist="))
        found[config.name] = (args.command, node.partition("=")[2], config)
    assert list(found) == [
        *("gateway-0", "encode-0", "encode-1", "prefill-0", "decode-0", "decode-1")
    ]
    role, node, config = found["decode-1"]
    assert (role, node, config.drain_s, config.threads) == ("decode", "node-2", 5, 4)
    assert config.listen == "tcp://node-2:7402-7499"
    assert config.gateways == ("tcp://node-0:7400",)
    assert "--gpus=1" in steps[-1] and "--gpus=1" not in steps[0]
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize(
    ("layout", "words"),
    [("encode:1 fused:1", "EPD_NODES has no gateway:1"), ("gateway:2,engine:1", "one gateway")],
)
def test_a_layout_that_cannot_work_is_refused(layout: str, words: str, tmp_path: Path) -> None:
    done = dry_run(tmp_path, EPD_NODES=layout)
    assert done.returncode == 2 and words in done.stderr


def test_as_many_words_as_nodes(tmp_path: Path) -> None:
    (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'n1\\nn2\\n'\n")
    (tmp_path / "scontrol").chmod(0o755)
    done = dry_run(tmp_path, SLURM_JOB_NODELIST="n[1-2]")
    assert (done.returncode, done.stderr) == (2, "EPD_NODES has 3 words, and the job 2 nodes\n")


def test_what_dies_starts_again_what_cannot_work_does_not_and_sigterm_drains_all(
    tmp_path: Path,
) -> None:
    """Prefill dies once; decode-1 says that its configuration cannot work."""
    for name, text in (("srun", SRUN), ("python", "#!/bin/sh\nmkdir -p $4\n")):
        (tmp_path / name).write_text(text.replace("{folder}", str(tmp_path)))
        (tmp_path / name).chmod(0o755)
    env = environment(tmp_path, EPD_PYTHON=str(tmp_path / "python"))
    job = subprocess.Popen(["bash", SBATCH], env=env, stderr=subprocess.PIPE, text=True)

    def started(name: str) -> int:
        steps = tmp_path / "steps"
        return steps.read_text().count(f"--job-name={name} ") if steps.exists() else 0

    eventually(lambda: started("prefill-0") == 2 and started("decode-1") == 1, "the steps run")
    job.send_signal(signal.SIGTERM)
    _, said = job.communicate(timeout=30)
    assert "prefill-0 ended with 139" in said and "decode-1 ended with 2" in said
    assert started("decode-1") == 1
    assert (tmp_path / "drained").read_text().count("drained") == 5
