"""How the compiled library is made, kept, and done without."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch

from epd.models.compiled import build
from epd.models.compiled.kernels import load_kernels

needs_compiler = pytest.mark.skipif(
    not (any(map(shutil.which, build.COMPILERS)) and torch.cpu._is_avx512_supported()),
    reason="no C++ compiler, or no CPU that it is for",
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "compiled"
    assert build.load_library(folder) is not None
    return folder


@needs_compiler
def test_it_is_compiled_once_and_nothing_else_is_left(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (library,) = kept.iterdir()
    monkeypatch.setattr(build, "_build", pytest.fail)
    assert load_kernels(kept) is not None
    assert [*kept.iterdir()] == [library] and kept.stat().st_mode & 0o777 == 0o700


@needs_compiler
def test_other_sources_flags_or_processors_make_another_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = build._compiler()
    keys = {build._key(compiler)}
    monkeypatch.setattr(build, "_cpu", lambda: "flags: none")
    keys.add(build._key(compiler))
    monkeypatch.setattr(build, "COMPILE", [*build.COMPILE, "-g"])
    keys.add(build._key(compiler))
    (tmp_path / "library.cpp").write_text("int nothing;")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    keys.add(build._key(compiler))
    assert len(keys) == 4


def test_without_a_compiler_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert load_kernels(tmp_path / "new") is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "no C++ compiler" in record.message


def test_a_cpu_without_the_instructions_compiles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: False)
    assert load_kernels(tmp_path / "new") is None
    assert len(caplog.records) == 1 and "no AVX-512" in caplog.text


@needs_compiler
def test_a_failed_compile_is_one_line_with_the_compilers_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(build, "COMPILE", [*build.COMPILE, "-fno-such-flag"])
    assert load_kernels(tmp_path / "new") is None
    (record,) = caplog.records
    assert "no-such-flag" in record.message and "\n" not in record.message
    assert not [*(tmp_path / "new").iterdir()]


@needs_compiler
def test_a_folder_that_others_may_write_to_is_not_trusted(
    kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared = tmp_path / "shared"
    shutil.copytree(kept, shared)
    shared.chmod(0o777)
    assert load_kernels(shared) is None
    assert "others may write" in caplog.text
