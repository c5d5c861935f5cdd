"""LangChain's ChatOpenAI."""

from __future__ import annotations

from typing import Any

import openai
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from tests.clients.scripts.asked import Asked, report


def _model(asked: Asked, **options: Any) -> Any:
    return ChatOpenAI(
        **{
            "model": asked.model,
            "base_url": asked.base_url,
            "api_key": "none",
            "max_tokens": asked.max_tokens,
            "temperature": 0,
            "max_retries": 0,
            "stream_usage": True,
            **options,
        }
    )


def _told(message: Any) -> dict[str, Any]:
    return {
        "text": message.content,
        "finish": message.response_metadata["finish_reason"],
        "prompt_tokens": message.usage_metadata["input_tokens"],
        "completion_tokens": message.usage_metadata["output_tokens"],
    }


def whole(asked: Asked) -> dict[str, Any]:
    return _told(_model(asked).invoke(asked.question))


def picture(asked: Asked) -> dict[str, Any]:
    return _told(_model(asked).invoke([HumanMessage(content=asked.with_picture)]))


def stream(asked: Asked) -> dict[str, Any]:
    chunks = list(_model(asked).stream(asked.question))
    message = chunks[0]
    for chunk in chunks[1:]:
        message += chunk
    return _told(message)


def unknown_model(asked: Asked) -> dict[str, Any]:
    return _refused(asked, model="another")


def bad_field(asked: Asked) -> dict[str, Any]:
    return _refused(asked, top_p=7)


def left(asked: Asked) -> dict[str, Any]:
    model = _model(asked, max_tokens=4000, extra_body={"ignore_eos": True})
    chunks = model.stream(asked.question)
    next(chunks)
    chunks.close()
    return {"pieces": 1, "idle": asked.becomes_idle()}


def _refused(asked: Asked, **options: Any) -> dict[str, Any]:
    try:
        _model(asked, **options).invoke(asked.question)
    except openai.APIStatusError as error:
        said = {"kind": error.type, "param": error.param, "code": error.code}
        return {"status": error.status_code, "message": error.message, **said}
    return {"status": 200}


if __name__ == "__main__":
    report(whole, picture, stream, unknown_model, bad_field, left)
