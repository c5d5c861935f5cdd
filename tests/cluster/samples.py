"""Members and messages for the tests of the pure room `epd.cluster`."""

from __future__ import annotations

from epd.types import (
    FinishReason,
    ItemLayout,
    Member,
    Modality,
    RequestKey,
    Stage,
    TokenLogprobs,
    TokenRun,
)

FUSED = (Stage.PREFILL, Stage.DECODE)


def member(
    name: str,
    *stages: Stage,
    pool: str = "",
    kv_tokens: int = 100,
    incarnation: str = "1",
    modalities: tuple[Modality, ...] = (Modality.IMAGE,),
) -> Member:
    """A worker; an encode worker reads images."""
    encodes = Stage.ENCODE in stages
    return Member(
        name=name,
        incarnation=incarnation,
        stages=stages,
        control="",
        bulk="",
        host="",
        pool=pool,
        modalities=modalities if encodes else (),
        kv_tokens=0 if encodes else kv_tokens,
    )


def encode(
    name: str = "E", *, pool: str = "", modalities: tuple[Modality, ...] = (Modality.IMAGE,)
) -> Member:
    """An encode worker."""
    return member(name, Stage.ENCODE, pool=pool, modalities=modalities)


def prefill(name: str = "P", *, pool: str = "", kv_tokens: int = 100) -> Member:
    """A prefill worker."""
    return member(name, Stage.PREFILL, pool=pool, kv_tokens=kv_tokens)


def decode(name: str = "D", *, pool: str = "", kv_tokens: int = 100) -> Member:
    """A decode worker."""
    return member(name, Stage.DECODE, pool=pool, kv_tokens=kv_tokens)


def fused(name: str = "F", *, pool: str = "", kv_tokens: int = 100) -> Member:
    """Prefill and decode in one."""
    return member(name, *FUSED, pool=pool, kv_tokens=kv_tokens)


def layout(num_rows: int = 2, *, content: bytes = b"key", replaces_left: int = 0) -> ItemLayout:
    """An item that becomes `num_rows` tokens."""
    return ItemLayout(
        modality=Modality.IMAGE,
        token_ids=(9,) * num_rows,
        row_spans=((0, num_rows),),
        width=1,
        dtype="float32",
        content_key=content,
        replaces_left=replaces_left,
    )


def run(
    first: int,
    *token_ids: int,
    request: str = "r",
    attempt: int = 1,
    finish: FinishReason | None = None,
    choice: int = 0,
    logprobs: tuple[TokenLogprobs, ...] = (),
) -> TokenRun:
    """Tokens from index `first` on."""
    return TokenRun(
        request=RequestKey(request, attempt),
        first_index=first,
        token_ids=token_ids,
        finish_reason=finish,
        choice=choice,
        logprobs=logprobs,
    )
