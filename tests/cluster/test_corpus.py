"""Hostile and odd media, one after the other, to a cluster that takes pictures, films and sounds.

Each is answered, or refused with its reason; the cluster says to good requests what it said
before, with the same processes; in the end nothing is held and nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.attacks import Patient
from tests.cluster.given import audio, image, video
from tests.cluster.running import Cluster, eventually
from tests.cluster.traces import children_of
from tests.corpus import ROOMS
from tests.corpus.embeds import CANARY, CLIMBED
from tests.corpus.fuzz import mutations
from tests.reference import Reference

WIDTH = 64

SETTINGS = (
    "media.enable_embeds=true",
    "media.video.max_seconds=300",
    "media.video.max_pixels=2000000",
    "media.decode_timeout_s=20",
    "encode.rows_bytes=4194304",
)


@pytest.fixture(scope="module")
def cluster(path_of: Callable[[str], Path]) -> Iterator[Cluster]:
    """Stopped in order, with nothing of it left."""
    Path(CANARY).unlink(missing_ok=True)
    cluster = Cluster(path_of("qwen2_5_omni"), "1E1P1D", *SETTINGS)
    yield cluster
    below = children_of(cluster.process.pid)
    assert cluster.stop() == 0
    assert not [child for child in below if child.is_running()]
    assert not [found for found in psutil.process_iter() if found.ppid() == cluster.process.pid]


@pytest.fixture(scope="module")
def patient(cluster: Cluster, reference: Reference) -> Iterator[Patient]:
    given = (image(1), video(2, sounding=True, listen=True), audio(1.0, 3))
    patient = Patient(cluster, [[one.sent(reference)] for one in given])
    yield patient
    patient.close()


@pytest.fixture(scope="module")
def reference(path_of: Callable[[str], Path]) -> Reference:
    return Reference(path_of("qwen2_5_omni"))


@pytest.mark.parametrize("room", ROOMS)
def test_bad_media_are_refused_with_a_reason_and_hurt_nobody(patient: Patient, room: str) -> None:
    decoders = patient.num_decoders()
    assert patient.wrong(ROOMS[room](WIDTH)) == []
    check_well(patient, decoders)


def check_well(patient: Patient, decoders: int) -> None:
    patient.cluster.wait_until_idle()
    eventually(lambda: patient.num_decoders() <= decoders, f"no more than {decoders} decoders")
    assert patient.server_errors() == 0
    assert not Path(CANARY).exists(), "a client's pickle was loaded"
    assert not Path(CLIMBED).exists(), "a client's archive was unpacked"


@pytest.mark.parametrize(
    "number", [200, pytest.param(2400, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_mutated_files_are_answered_or_refused(patient: Patient, number: int) -> None:
    decoders = patient.num_decoders()
    wrong = patient.wrong(mutations(number, WIDTH, seed=number))
    assert wrong == []
    check_well(patient, decoders)
