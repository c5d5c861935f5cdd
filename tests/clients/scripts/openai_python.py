"""OpenAI's client for Python."""

from __future__ import annotations

from typing import Any

import openai
from openai.types.chat import ChatCompletion

from tests.clients.scripts.asked import Asked, report


def _client(asked: Asked) -> openai.OpenAI:
    return openai.OpenAI(base_url=asked.base_url, api_key="none", max_retries=0)


def _ask(asked: Asked, content: Any, **options: Any) -> Any:
    return _client(asked).chat.completions.create(
        **{
            "model": asked.model,
            "messages": [{"role": "user", "content": content}],
            "max_completion_tokens": asked.max_tokens,
            "temperature": 0,
            **options,
        }
    )


def _told(answer: ChatCompletion) -> dict[str, Any]:
    assert answer.usage is not None
    choice = answer.choices[0]
    return {
        "text": choice.message.content,
        "finish": choice.finish_reason,
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
    }


def models(asked: Asked) -> dict[str, Any]:
    return {"ids": [model.id for model in _client(asked).models.list()]}


def whole(asked: Asked) -> dict[str, Any]:
    return _told(_ask(asked, asked.question))


def picture(asked: Asked) -> dict[str, Any]:
    return _told(_ask(asked, asked.with_picture))


def stream(asked: Asked) -> dict[str, Any]:
    chunks = list(_ask(asked, asked.question, stream=True, stream_options={"include_usage": True}))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    return {
        "text": "".join(choice.delta.content or "" for choice in choices),
        "finish": choices[-1].finish_reason,
        "prompt_tokens": chunks[-1].usage.prompt_tokens,
        "completion_tokens": chunks[-1].usage.completion_tokens,
    }


def unknown_model(asked: Asked) -> dict[str, Any]:
    return _refused(asked, model="another")


def bad_field(asked: Asked) -> dict[str, Any]:
    return _refused(asked, top_p=7)


def left(asked: Asked) -> dict[str, Any]:
    pieces = 0
    with _ask(
        asked,
        asked.question,
        stream=True,
        max_completion_tokens=4000,
        extra_body={"ignore_eos": True},
    ) as chunks:
        for _ in chunks:
            pieces += 1
            break
    return {"pieces": pieces, "idle": asked.becomes_idle()}


def _refused(asked: Asked, **options: Any) -> dict[str, Any]:
    try:
        _ask(asked, asked.question, **options)
    except openai.APIStatusError as error:
        said = {"kind": error.type, "param": error.param, "code": error.code}
        return {"status": error.status_code, "message": error.message, **said}
    return {"status": 200}


if __name__ == "__main__":
    report(models, whole, picture, stream, unknown_model, bad_field, left)
