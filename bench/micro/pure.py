"""Prefix hashes, the prefix cache's look-up, and the codec: Python alone."""

from __future__ import annotations

import hashlib

import msgpack

from bench.micro.figures import Figure, cpu_us
from epd.engine.kv.blocks import BlockPool
from epd.engine.kv.prefixes import PageHashes
from epd.prefix import PREFIX_TOKENS, prefix_of, prefix_root
from epd.types import Prompt, RequestKey, TokenRun
from epd.wire import codec
from epd.wire.messages import Tokens

PROMPT_TOKENS = 4096
RUNS = 64


def figures() -> list[Figure]:
    """Of a prompt of 4,096 tokens, all of them known; of the tokens of 64 requests in a message."""
    return [_hashes(), _look_up(), *_codec()]


def _hashes() -> Figure:
    prompt = Prompt(text=(tuple(range(PROMPT_TOKENS)),), items=())
    root = prefix_root({}, "")
    data = bytes(PREFIX_TOKENS * 8)

    def floor() -> None:
        parent = root
        for _ in range(PROMPT_TOKENS // PREFIX_TOKENS):
            digest = hashlib.blake2b(parent, digest_size=16)
            digest.update(data)
            parent = digest.digest()

    return Figure(
        name="prefix hashes, 4096 tokens",
        unit="prompt",
        us=cpu_us(lambda: prefix_of(prompt, root), times=20),
        floor=cpu_us(floor, times=20),
        floor_is="blake2b over as many bytes, block by block",
    )


def _look_up() -> Figure:
    """A prompt whose every page but the last is cached: reserved, and given back."""
    prompt = Prompt(text=(tuple(range(PROMPT_TOKENS)),), items=())
    prefix = prefix_of(prompt, prefix_root({}, ""))
    pages = PageHashes(prefix, block_size=PREFIX_TOKENS)
    pool = BlockPool(num_blocks=2 * len(prefix.blocks), block_size=PREFIX_TOKENS)
    first = RequestKey("first", 0)
    assert pool.reserve(first, PROMPT_TOKENS) == 0
    for number, page_hash in enumerate(prefix.blocks):
        pool.publish(first, -1, number, page_hash)
    pool.release(first)
    key = RequestKey("again", 0)
    known = dict.fromkeys(prefix.blocks, 0)

    def again() -> None:
        found = pool.reserve(key, PROMPT_TOKENS, pages.leading(PROMPT_TOKENS - 1))
        assert found == len(prefix.blocks) - 1
        pool.release(key)

    def floor() -> list[int]:
        return [known[one] for one in prefix.blocks]

    return Figure(
        name="prefix cache, 255 pages found",
        unit="prompt",
        us=cpu_us(again, times=20),
        floor=cpu_us(floor, times=20),
        floor_is="as many look-ups in a dict",
    )


def _codec() -> list[Figure]:
    runs = tuple(
        TokenRun(request=RequestKey(f"request-{number}", 0), first_index=9, token_ids=(number,))
        for number in range(RUNS)
    )
    message = Tokens(runs=runs)
    data = codec.encode(message, to="gateway-0")
    plain = msgpack.unpackb(data, use_list=False)
    return [
        Figure(
            name="codec, 64 runs out",
            unit="message",
            us=cpu_us(lambda: codec.encode(message, to="gateway-0"), times=50),
            floor=cpu_us(lambda: msgpack.packb(plain), times=50),
            floor_is="msgpack on plain tuples, which checks and makes nothing",
        ),
        Figure(
            name="codec, 64 runs in",
            unit="message",
            us=cpu_us(lambda: codec.decode(data), times=50),
            floor=cpu_us(lambda: msgpack.unpackb(data, use_list=False), times=50),
            floor_is="msgpack on plain tuples, which checks and makes nothing",
        ),
    ]
