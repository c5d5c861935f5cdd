"""Holes that systems of this kind have had, those about media: each is tried on a live cluster."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from PIL import Image

from tests.cluster.attacks import SECRETS, Patient, Said, is_decoder
from tests.cluster.given import Given, Request, audio, image, video
from tests.cluster.ready_made import ready_made
from tests.cluster.running import Cluster, eventually
from tests.cluster.traces import SHARED_MEMORY, children_of, segments_of
from tests.corpus import broken_pictures, broken_videos, embeds, sounds
from tests.corpus.embeds import CANARY
from tests.corpus.entry import Entry, base64_text, data_url, url_part
from tests.corpus.making import film, moving, picture, scene
from tests.media.site import Site, body, redirect
from tests.reference import Reference

FAMILY = "qwen2_5_omni"
MIB = 1 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What file: URLs may read, with ways out of it, beside what they may not."""
    base = tmp_path_factory.mktemp("local")
    allowed = base / "allowed"
    (allowed / "inner").mkdir(parents=True)
    (allowed / "cat.png").write_bytes(picture())
    (allowed / "inner" / "a cat.png").write_bytes(picture())
    (base / "secret.png").write_bytes(picture("PNG", scene(60, 44, 9)))
    (base / "allowed-not.png").write_bytes(picture("PNG", scene(60, 44, 9)))
    (allowed / "link.png").symlink_to(base / "secret.png")
    (allowed / "up").symlink_to(base)
    (allowed / "zero").symlink_to("/dev/zero")
    os.mkfifo(allowed / "pipe")
    return allowed


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    site.pages["/cat.png"] = body(picture())
    yield site
    site.close()


@pytest.fixture(scope="module")
def reference(path_of: Callable[[str], Path]) -> Reference:
    return Reference(path_of(FAMILY))


@pytest.fixture(scope="module")
def cluster(path_of: Callable[[str], Path], folder: Path) -> Iterator[Cluster]:
    """As an operator starts it who trusts nobody, but for one folder and embeddings."""
    cluster = Cluster(
        path_of(FAMILY),
        "1E1P1D",
        "media.enable_embeds=true",
        f"media.allowed_local_path={folder}",
        "media.image.max_pixels=4000000",
        "media.video.max_pixels=4000000",
    )
    yield cluster
    assert cluster.stop() == 0


@pytest.fixture(scope="module")
def patient(cluster: Cluster, reference: Reference) -> Iterator[Patient]:
    good = [[image(1).sent(reference)], [audio(0.8, 2).sent(reference)]]
    patient = Patient(cluster, good)
    yield patient
    patient.close()


@pytest.fixture(autouse=True)
def as_well_as_before(patient: Patient) -> Iterator[None]:
    """After every attack."""
    yield
    assert patient.faults() == ""
    patient.cluster.wait_until_idle()
    assert patient.server_errors() == 0


def png(made: Image.Image, **more: Any) -> dict[str, Any]:
    return {**url_part("image", data_url(picture("PNG", made), "image/png")), **more}


def named(uuid: str) -> dict[str, Any]:
    """The item that was last sent under this name."""
    return {"type": "image_url", "image_url": {}, "uuid": uuid}


# ---- 6: what a client calls an item


def test_a_uuid_is_a_name_inside_its_tenant_and_never_a_key(patient: Patient) -> None:
    mine, theirs = scene(60, 44, 20), scene(60, 44, 21)
    right = {"mine": patient.ask([png(mine)]), "theirs": patient.ask([png(theirs)])}
    assert right["mine"] != right["theirs"]
    assert patient.ask([png(mine, uuid="cat")], cache_salt="me") == right["mine"]
    assert patient.ask([png(theirs, uuid="cat")], cache_salt="they") == right["theirs"]
    assert patient.ask([named("cat")], cache_salt="me") == right["mine"]
    assert patient.ask([named("cat")], cache_salt="they") == right["theirs"]
    assert patient.ask([named("cat")]).status == 400
    assert patient.ask([png(theirs, uuid="cat")], cache_salt="me") == right["theirs"]
    assert patient.ask([named("cat")], cache_salt="me") == right["theirs"]


def test_a_uuid_that_is_a_path_is_only_a_name(patient: Patient) -> None:
    name = "../../../../tmp/epd-test-uuid"
    answer = patient.ask([png(scene(60, 44, 22), uuid=name)], cache_salt="me")
    assert patient.ask([named(name)], cache_salt="me") == answer
    assert not Path("/tmp/epd-test-uuid").exists()


# ---- 7: what a content key must cover


def equals_alone(patient: Patient, reference: Reference, given: Given, **extra: Any) -> Said:
    """Asked after its twin, an item is answered as Hugging Face does."""
    request = Request((given,), asked=extra.pop("asked", {}))
    prompt, new = reference.generate(request.messages(), request.items(reference), 4, request.asked)
    said = patient.ask([given.sent(reference)], **extra)
    text = reference.processor.tokenizer.decode(new, skip_special_tokens=True)
    assert (said.status, said.text) == (200, text)
    return said


def test_equal_pixels_of_another_shape_or_mode_are_another_picture(
    patient: Patient, reference: Reference
) -> None:
    """Raw pixels are the same bytes; a hash of them alone would give one the other's rows."""
    pixels = np.random.default_rng(7).integers(0, 256, 60 * 84 * 3, dtype=np.uint8)
    shapes = {(60, 84), (84, 60), (42, 120)}
    said = set()
    for height, width in shapes:
        made = Image.fromarray(pixels.reshape(height, width, 3))
        given = Given("image", lambda _, made=made: png(made), lambda _, made=made: made)  # type: ignore[misc]
        said.add(equals_alone(patient, reference, given).text)
    grey = Image.fromarray(pixels.reshape(3 * 60, 84))
    given = Given("image", lambda _: png(grey), lambda _: grey.convert("RGB"))
    said.add(equals_alone(patient, reference, given).text)
    assert len(said) == len(shapes) + 1


def test_equal_bytes_under_other_settings_are_another_item(
    patient: Patient, reference: Reference
) -> None:
    large = image(30, 260, 300)
    size = {"shortest_edge": 4 * 28**2, "longest_edge": 16 * 28**2}
    first = equals_alone(patient, reference, large)
    wish = {"mm_processor_kwargs": {"size": size}}
    assert equals_alone(patient, reference, large, asked={"size": size}, **wish) != first
    clip = video(31, num=12)
    slow = video(31, num=12, wanted_fps=2)
    assert clip.sent(reference) == slow.sent(reference)
    first = equals_alone(patient, reference, clip)
    io_kwargs = {"media_io_kwargs": {"video": {"fps": 2}}}
    assert equals_alone(patient, reference, slow, **io_kwargs) != first
    deaf, hears = (video(32, sounding=True, listen=listen) for listen in (False, True))
    assert equals_alone(patient, reference, deaf) != equals_alone(patient, reference, hears)


# ---- 9 and 10: requests that the server is made to send


def private(port: int) -> list[str]:
    return [
        f"http://127.0.0.1:{port}/cat.png",
        f"http://localhost:{port}/cat.png",
        f"http://[::1]:{port}/cat.png",
        f"http://[::ffff:127.0.0.1]:{port}/cat.png",
        f"http://[::ffff:7f00:1]:{port}/cat.png",
        f"http://2130706433:{port}/cat.png",
        f"http://0x7f000001:{port}/cat.png",
        f"http://0177.0.0.1:{port}/cat.png",
        f"http://127.1:{port}/cat.png",
        f"http://0.0.0.0:{port}/cat.png",
        f"http://good.example@127.0.0.1:{port}/cat.png",
        f"http://127.0.0.1:{port}\\@good.example/cat.png",
        f"http://127.0.0.1:{port}#@good.example/cat.png",
        f"http://127.0.0.1.:{port}/cat.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://10.0.0.1/cat.png",
        "http://192.168.0.1/cat.png",
        "http://172.16.0.1/cat.png",
        "http://100.64.0.1/cat.png",
        "http://224.0.0.1/cat.png",
    ]


@pytest.mark.parametrize("modality", ["image", "video", "audio"])
def test_no_private_address_is_reached_however_it_is_written(
    patient: Patient, site: Site, modality: str
) -> None:
    for url in private(site.port):
        said = patient.ask([url_part(modality, url)])
        assert said.status in (400, 422), url
        assert not SECRETS.search(said.reason.replace(url, "")), said
    assert site.seen == []


def test_every_hop_of_a_redirect_is_judged(path: Path, site: Site) -> None:
    """The first host is allowed, the second is not: it is never asked."""
    other = Site()
    other.pages["/cat.png"] = body(picture())
    site.pages["/away"] = redirect(f"http://localhost:{other.port}/cat.png")
    site.pages["/file"] = redirect("file:///etc/passwd")
    site.pages["/near"] = redirect("/cat.png")
    cluster = Cluster(
        path,
        "EPD",
        "media.allow_private_addresses=true",
        "media.allowed_domains=[127.0.0.1]",
    )
    try:
        good = Patient(cluster, [[url_part("image", site.url + "/near")]])
        for page in ("/away", "/file"):
            assert good.ask([url_part("image", site.url + page)]).status == 422
        assert good.ask([url_part("image", f"{other.url}/cat.png")]).status == 200
        assert [page for page, _ in other.seen] == ["/cat.png"]
        assert good.faults() == ""
        good.close()
    finally:
        other.close()
        assert cluster.stop() == 0


# ---- 11: local files


def test_only_files_under_the_allowed_folder_are_read(patient: Patient, folder: Path) -> None:
    right = patient.ask([png(Image.open(io.BytesIO(picture())))])
    for inside in ("cat.png", "inner/a%20cat.png", "inner/../cat.png"):
        said = patient.ask([url_part("image", f"file://{folder}/{inside}")])
        assert said == right or (".." in inside and said.status in (400, 422)), inside
    for outside in (
        "link.png",
        "up/secret.png",
        "../secret.png",
        "%2e%2e/secret.png",
        "..%2fsecret.png",
        "inner/../../secret.png",
        "../allowed-not.png",
        "zero",
        "pipe",
        "inner",
        "nothing.png",
        "cat.png%00.jpg",
    ):
        said = patient.ask([url_part("image", f"file://{folder}/{outside}")])
        assert said.status in (400, 422), outside
        assert str(folder) not in said.reason
    for path in ("/etc/passwd", "/proc/self/environ", "//127.0.0.1/etc/passwd"):
        assert patient.ask([url_part("image", f"file://{path}")]).status in (400, 422), path


# ---- 12 and 13: bombs, and limits


def memory_of(cluster: Cluster) -> int:
    """Resident bytes of all processes below the cluster's."""
    found = 0
    for child in children_of(cluster.process.pid):
        try:
            found += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return found


def bombs() -> list[Entry]:
    entries = [*broken_pictures.entries(), *broken_videos.entries(), *sounds.entries()]
    words = ("60,000", "65,535", "100,000", "2^31", "an hour", "ten minutes", "a day apart")
    found = [one for one in entries if any(word in one.name for word in words)]
    assert len(found) > 12
    return found


def test_a_small_file_never_becomes_a_large_one(patient: Patient) -> None:
    """All bombs at once; the largest would take 10 GB."""
    before = memory_of(patient.cluster)
    peak = before
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, memory_of(patient.cluster))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for entry in bombs():
            assert patient.ask([entry.part]).status in (200, 413, 422), entry.name
    finally:
        done.set()
        watcher.join()
    assert peak - before < 400 * MIB


def test_no_request_lifts_a_limit(patient: Patient, reference: Reference) -> None:
    large = image(40, 90, 70).sent(reference)
    huge = {"shortest_edge": 1 << 40, "longest_edge": 1 << 41}
    for wishes in (
        {"size": huge},
        {"max_pixels": 1 << 40, "min_pixels": 1 << 39},
        {"images_kwargs": {"size": huge}},
        {"videos_kwargs": {"size": huge}},
    ):
        assert patient.ask([large], mm_processor_kwargs=wishes).status == 400
    clip = video(41, num=80, fps=10, size=(32, 32)).sent(reference)
    capped = patient.ask([clip])
    for frames in ({"num_frames": 80}, {"fps": 1000}, {"fps": 1000, "num_frames": 1_000_000}):
        said = patient.ask([clip], media_io_kwargs={"video": frames})
        assert said.status in (200, 400)
        assert said == capped or said.status == 400 or "num_frames" in frames
    for name in ("limit_mm_per_prompt", "media_config", "max_pixels", "allowed_local_media_path"):
        assert patient.ask([large], **{name: {"image": 999}}).status == 400


# ---- 14 and 15: tiny media, and decoders that die


def test_tiny_media_are_right_or_refused(patient: Patient, reference: Reference) -> None:
    """1 x 1, one frame, one sample: right where they can be."""
    dot = Image.new("RGB", (1, 1), "red")
    given = Given("image", lambda _: png(dot), lambda _: dot)
    equals_alone(patient, reference, given)
    equals_alone(patient, reference, video(50, num=1))
    tiny = [url_part("video", data_url(film(moving(1, 16, 16)), "video/mp4"))]
    assert patient.ask(tiny).status == 200
    for num in (1, 2, 100):
        file = io.BytesIO()
        soundfile.write(file, np.zeros(num, "f4"), 16_000, format="WAV")
        said = patient.ask([url_part("audio", data_url(file.getvalue(), "audio/wav"))])
        assert said.status in (200, 422)


def decoders_of(cluster: Cluster) -> list[psutil.Process]:
    return [one for one in children_of(cluster.process.pid) if is_decoder(one)]


def test_a_decoder_that_dies_takes_nobody_along(patient: Patient, reference: Reference) -> None:
    """As a C library would on the right file, while items are in hand; the roles live on."""
    stop = threading.Event()
    said: list[Said] = []
    clip = [video(51, num=40, fps=10, size=(96, 96)).sent(reference)]

    def ask() -> None:
        while not stop.is_set():
            salt = f"fresh {threading.get_ident()} {len(said)}"
            said.append(patient.ask(clip, cache_salt=salt))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            enough = len(said) + 3
            [decoder, *_] = eventually(lambda: decoders_of(patient.cluster), "another decoder")
            decoder.kill()
            eventually(lambda enough=enough: len(said) >= enough, "answers go on")  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {one.status for one in said} <= {200, 422}
    assert not any(SECRETS.search(one.reason) for one in said)
    assert len({one.text for one in said if one.status == 200}) <= 1
    assert patient.ask(clip).status == 200


# ---- 16: embeddings


def test_embeddings_are_never_unpickled_and_always_checked(
    patient: Patient, reference: Reference
) -> None:
    Path(CANARY).unlink(missing_ok=True)
    right = patient.ask([image(1).sent(reference)])
    assert patient.ask([ready_made(image(1)).sent(reference)]) == right
    width = reference.model.config.text_config.hidden_size
    hostile = [one for one in embeds.entries(width) if 200 not in one.statuses]
    assert len(hostile) > 40
    assert patient.wrong(hostile) == []
    assert not Path(CANARY).exists()


# ---- 17: placeholders in text


def test_placeholders_that_a_user_writes_are_text(patient: Patient, reference: Reference) -> None:
    """They take no rows, of nobody, and a great many of them take no time."""
    processor = reference.processor
    tokens = (processor.image_token, processor.video_token, processor.audio_token)
    around = (processor.vision_bos_token, processor.vision_eos_token, processor.audio_bos_token)
    picture_part = image(60).sent(reference)
    alone = patient.ask([picture_part, {"type": "text", "text": "?"}])
    for token in tokens + around:
        text = {"type": "text", "text": f"a {token} b {token * 3}"}
        assert patient.ask([text]).status == 200
        assert patient.ask([picture_part, text]).status == 200
        assert patient.ask([text, picture_part]).status == 200
    for token in tokens:
        start = time.monotonic()
        said = patient.ask([{"type": "text", "text": token * 50_000}, picture_part])
        assert said.status == 400 and "tokens" in said.reason
        assert time.monotonic() - start < 20
    assert patient.ask([picture_part, {"type": "text", "text": "?"}]) == alone


# ---- 24: shared memory


def test_shared_memory_cannot_be_named_by_clients_nor_guessed(
    patient: Patient, reference: Reference
) -> None:
    segments = segments_of(children_of(patient.cluster.process.pid))
    assert segments
    for segment in segments:
        assert re.search(r"[0-9a-f]{16}|[A-Za-z0-9_-]{16}", segment.name), segment
        assert segment.stat().st_mode & 0o077 == 0
    good = image(61).sent(reference)
    name = next(iter(segments)).name
    for field in ("shm", "segment", "handle", "address", "transfer"):
        assert patient.ask([{**good, field: name}]).status == 400
        assert patient.ask([good], **{field: name}).status == 400
    for url in (f"shm://{name}", f"file:///dev/shm/{name}"):
        assert patient.ask([url_part("image", url)]).status in (400, 422)
    inner = {"image_embeds": base64_text(name.encode())}
    part = {"type": "image_embeds", "image_embeds": inner}
    assert patient.ask([part]).status == 400


@pytest.mark.slow
def test_shared_memory_of_a_killed_encoder_is_reclaimed(
    path_of: Callable[[str], Path], reference: Reference
) -> None:
    """Its decoders end with it, and what they shared is gone."""
    cluster = Cluster(path_of(FAMILY), "2E1P1D")
    try:
        clip = [video(62, num=40, fps=10, size=(96, 96)).sent(reference)]
        good = Patient(cluster, [])
        assert good.ask(clip).status == 200
        encoder = cluster.child("encode")
        below = encoder.children(recursive=True)
        held = segments_of([encoder, *below])
        assert below and held
        encoder.kill()
        eventually(lambda: not [one for one in below if one.is_running()], "its decoders end")
        eventually(lambda: not [path for path in held if path.exists()], "its segments are gone")
        for number in range(4):
            said = good.ask(clip, cache_salt=f"after {number}")
            assert said.status == 200
        good.close()
        assert all(path.parent == SHARED_MEMORY for path in held)
    finally:
        assert cluster.stop() == 0
