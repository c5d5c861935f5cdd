"""Roles started one by one, over TCP with CURVE keys, as on several machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from epd.cli.main import main
from tests.cluster.roles import role
from tests.cluster.running import data_url, eventually, picture
from tests.reference import Reference


@pytest.fixture(scope="module")
def url(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    keys = tmp_path_factory.mktemp("by-hand") / "keys"
    assert main(["keys", str(keys)]) == 0
    secure = (f"wire.curve_dir={keys}", "language.kv_tokens=4096")
    with ExitStack() as stack:
        gateway = stack.enter_context(
            role("gateway", path, *secure, "gateway.port=0", "listen=tcp://127.0.0.1")
        )
        for name in ("encode", "prefill", "decode"):
            stack.enter_context(role(name, path, *secure, f"gateways=[{gateway['control']}]"))
        yield gateway["url"]


def test_roles_started_by_hand_over_tcp_and_curve_answer_as_hugging_face_does(
    url: str, path: Path, reference: Reference
) -> None:
    image = picture(140, 112)
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    prompt, new = reference.generate([{"role": "user", "content": content}], [image], 16)
    content[0] = {"type": "image_url", "image_url": {"url": data_url(image)}}  # type: ignore[dict-item]
    body = {
        "model": path.name,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 16,
        "temperature": 0,
    }

    eventually(
        lambda: httpx.get(f"{url}/ready", timeout=60).status_code == 200, "every stage is there"
    )
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()

    text = reference.processor.tokenizer.decode(new, skip_special_tokens=True)
    assert answer["choices"][0]["message"]["content"] == text
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    assert answer["usage"]["completion_tokens"] == len(new)
