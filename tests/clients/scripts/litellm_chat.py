"""LiteLLM, which names a server of OpenAI's API by a prefix of the model."""

from __future__ import annotations

from typing import Any

import litellm

from tests.clients.scripts.asked import Asked, report


def _ask(asked: Asked, content: Any, **options: Any) -> Any:
    return litellm.completion(
        **{
            "model": f"openai/{asked.model}",
            "api_base": asked.base_url,
            "api_key": "none",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": asked.max_tokens,
            "temperature": 0,
            "num_retries": 0,
            **options,
        }
    )


def _told(text: str | None, finish: str, usage: Any) -> dict[str, Any]:
    counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    return {"text": text, "finish": finish, **counts}


def whole(asked: Asked) -> dict[str, Any]:
    answer = _ask(asked, asked.question)
    choice = answer.choices[0]
    return _told(choice.message.content, choice.finish_reason, answer.usage)


def picture(asked: Asked) -> dict[str, Any]:
    answer = _ask(asked, asked.with_picture)
    choice = answer.choices[0]
    return _told(choice.message.content, choice.finish_reason, answer.usage)


def stream(asked: Asked) -> dict[str, Any]:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(_ask(asked, asked.question, **options))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    finish = next(choice.finish_reason for choice in choices if choice.finish_reason)
    return _told(text, finish, chunks[-1].usage)


def unknown_model(asked: Asked) -> dict[str, Any]:
    return _refused(asked, model="openai/another")


def bad_field(asked: Asked) -> dict[str, Any]:
    return _refused(asked, top_p=7)


def left(asked: Asked) -> dict[str, Any]:
    options = {"stream": True, "max_tokens": 4000, "extra_body": {"ignore_eos": True}}
    chunks = _ask(asked, asked.question, **options)
    next(chunks)
    chunks.completion_stream.close()
    return {"pieces": 1, "idle": asked.becomes_idle()}


def _refused(asked: Asked, **options: Any) -> dict[str, Any]:
    try:
        _ask(asked, asked.question, **options)
    except (litellm.NotFoundError, litellm.BadRequestError) as error:
        return {"status": error.status_code, "message": error.message}
    return {"status": 200}


if __name__ == "__main__":
    report(whole, picture, stream, unknown_model, bad_field, left)
