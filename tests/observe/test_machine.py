"""What the kernel's files say, written here as different machines have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from epd.observe.machine import (
    available_host,
    available_shared,
    compiles,
    compiles_many_rows,
    held_host,
    widens_bfloat16,
)

GIB = 1 << 30
MEMINFO = "MemTotal:       33554432 kB\nMemFree:         1048576 kB\nMemAvailable:   16777216 kB\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(MEMINFO)
    return tmp_path / "proc"


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_without_a_limit_it_is_what_the_kernel_calls_available(proc: Path, cgroups: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/user.slice\n")
    group(cgroups / "user.slice", memory__max="max\n", memory__current="99\n")
    assert available_host(proc, cgroups) == 16 * GIB


def test_a_limit_of_version_2_counts_less_what_is_used_and_cannot_be_dropped(
    proc: Path, cgroups: Path
) -> None:
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    group(
        cgroups / "a" / "b",
        memory__max=f"{8 * GIB}\n",
        memory__current=f"{5 * GIB}\n",
        memory__stat=f"anon 1\ninactive_file {GIB}\n",
    )
    assert available_host(proc, cgroups) == 4 * GIB


def test_the_tightest_limit_above_a_process_holds(proc: Path, cgroups: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    group(cgroups / "a" / "b", memory__max=f"{8 * GIB}\n", memory__current="0\n")
    group(cgroups / "a", memory__max=f"{2 * GIB}\n", memory__current=f"{GIB}\n")
    assert available_host(proc, cgroups) == GIB


def test_a_limit_of_version_1(proc: Path, cgroups: Path) -> None:
    (proc / "self" / "cgroup").write_text("8:pids:/x\n4:cpu,memory:/x\n0::/\n")
    group(
        cgroups / "memory" / "x",
        memory__limit_in_bytes=f"{3 * GIB}\n",
        memory__usage_in_bytes=f"{GIB}\n",
        memory__stat="inactive_file 7\ntotal_inactive_file 1024\n",
    )
    assert available_host(proc, cgroups) == 2 * GIB + 1024


def test_in_a_container_the_mounted_group_is_its_own(proc: Path, cgroups: Path) -> None:
    """Version 1 names a path of the host's there, which does not exist inside."""
    (proc / "self" / "cgroup").write_text("4:memory:/docker/0123\n")
    group(
        cgroups / "memory",
        memory__limit_in_bytes=f"{GIB}\n",
        memory__usage_in_bytes=f"{2 * GIB}\n",
    )
    assert available_host(proc, cgroups) == 0


def test_a_machine_that_says_nothing_limits_nothing(tmp_path: Path) -> None:
    assert available_host(tmp_path, tmp_path) > 1 << 50


def test_this_machine_answers() -> None:
    assert 0 < available_host() < 1 << 50
    assert available_shared() > 0
    assert held_host() > 0


@pytest.mark.parametrize(
    ("flags", "widens"),
    [
        ("flags : fma avx2 avx512_vnni", True),
        ("flags : avx2 avx512_bf16", False),
        ("flags : avx2 amx_tile amx_bf16", False),
        ("Features : asimd bf16", False),
        ("", False),
    ],
)
def test_only_x86_without_the_instructions_widens_bfloat16(
    proc: Path, flags: str, widens: bool
) -> None:
    (proc / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert widens_bfloat16(proc) is widens


def test_decode_steps_are_compiled_where_avx512_is(proc: Path) -> None:
    (proc / "cpuinfo").write_text("flags : avx2 avx512f\n")
    assert compiles(proc)
    (proc / "cpuinfo").write_text("flags : avx2 fma\n")
    assert not compiles(proc)


@pytest.mark.parametrize(
    ("flags", "compiled"),
    [
        ("avx512f avx512_bf16", True),
        ("avx512f avx512_bf16 amx_bf16 amx_tile", False),
        ("avx512f avx512_vnni", False),
    ],
)
def test_many_rows_are_compiled_where_no_matrix_unit_is_faster(
    flags: str, compiled: bool, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert compiles_many_rows(tmp_path) is compiled
