"""The gateway node between HTTP and the cluster: calls, their choices, their items' bytes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from epd.config import Config
from epd.errors import EpdError, Unavailable
from epd.gateway import CallSpec
from epd.models.spec import Checkpoint, read_checkpoint
from epd.observe import Metrics, shown
from epd.prompt import Draft, MediaPart, Source
from epd.types import (
    Activity,
    FinishReason,
    ItemForm,
    ItemKey,
    MediaOptions,
    Member,
    Modality,
    Origin,
    RequestKey,
    SamplingParams,
    Span,
    TokenLogprobs,
    TokenRun,
)
from epd.types import Stage as Stages
from epd.wire import messages as m
from epd.wire.links import Delivery
from epd.workers.gateway import Node
from tests.checkpoints import build
from tests.cluster.samples import decode, encode, layout, prefill, run

STOP = FinishReason.STOP


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return read_checkpoint(build("qwen2_5_vl", tmp_path_factory.mktemp("checkpoint")))


@dataclass
class Stage:
    """A node whose links only remember what they were to send."""

    node: Node
    checkpoint: Checkpoint
    sent: list[tuple[str, Any, Any]] = field(default_factory=list)

    def send(self, to: str, message: object, frame: Any = None) -> bool:
        self.sent.append((to, message, frame))
        return True

    def hear(self, sender: str, message: object) -> None:
        delivery = Delivery(sender=sender, incarnation="1", message=message, frame=None)
        self.node._handle(delivery)

    def join(self, *members: Member) -> None:
        fingerprint = {**self.checkpoint.fingerprint(), "protocol": str(m.PROTOCOL_VERSION)}
        for member in members:
            self.hear(member.name, m.Register(member=member, fingerprint=fingerprint, via=""))

    def told(self, kind: type[Any]) -> list[tuple[Any, Any]]:
        """Messages of one kind, with their frames."""
        return [(message, frame) for _, message, frame in self.sent if isinstance(message, kind)]

    def admit(self, request: RequestKey, *, cached: int = 0) -> None:
        self.hear("D", m.Reserved(request=request, cached_tokens=0))
        self.hear("P", m.Admitted(request=request, cached_tokens=cached))

    def tokens(self, sender: str, *runs: TokenRun) -> None:
        self.hear(sender, m.Tokens(runs=runs))

    def metric(self, name: str) -> float:
        lines = self.node.metrics().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@contextmanager
def stage(checkpoint: Checkpoint, folder: Path, config: dict[str, Any]) -> Iterator[Stage]:
    """To be entered on an event loop; one worker per stage has joined."""
    settings = Config.model_validate({"listen": f"ipc://{folder}", **config})
    found = Stage(Node(settings, checkpoint, Metrics()), checkpoint)
    with pytest.MonkeyPatch.context() as patch:
        links = found.node.links
        patch.setattr(links, "send", found.send)
        patch.setattr(links, "connect", lambda member: None)
        patch.setattr(links, "forget", lambda name: None)
        try:
            found.join(encode(), prefill(), decode(), decode("D2"))
            yield found
        finally:
            links.close()


Scene = Callable[[Stage], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(checkpoint: Checkpoint, tmp_path: Path) -> Play:
    """Runs a scene on an event loop of its own."""

    def perform(scene: Scene, **config: Any) -> None:
        async def main() -> None:
            with stage(checkpoint, tmp_path, config) as found:
                await scene(found)

        asyncio.run(main())

    return perform


def call(*data: bytes, url: str | None = None, **sampling: Any) -> CallSpec:
    """A prompt of four tokens and these pictures."""
    parts = [(None, one) for one in data] + ([(url, None)] if url is not None else [])
    media = tuple(
        MediaPart(
            modality=Modality.IMAGE,
            index=k,
            source=Source(url=where) if one is None else Source.file(one),
            text_before="",
            where="here",
        )
        for k, (where, one) in enumerate(parts)
    )
    draft = Draft(text=((1, 1, 1, 1), *[()] * len(media)), parts=media)
    params = SamplingParams(max_tokens=10, **sampling)
    return CallSpec(draft=draft, sampling=params, deadline_s=60.0, cache_salt="tenant")


async def rest(runs: Any) -> list[tuple[int, tuple[int, ...]]]:
    """What is left of a call's runs."""
    return [(one.choice, one.token_ids) async for one in runs]


def test_the_runs_of_all_choices_end_with_the_last_one(play: Play) -> None:
    """What is known of the prompt is there with the first; every count is of the whole request."""

    async def scene(stage: Stage) -> None:
        live = await stage.node.submit(call(n=2, prompt_logprobs=0))
        key = live.request_id
        stage.admit(RequestKey(key, 1), cached=2)
        scores = tuple(TokenLogprobs(logprob=-k) for k in (1.0, 2.0, 3.0))
        prompt = m.PromptLogprobs(request=RequestKey(key, 1), first_token=1, logprobs=scores)
        stage.hear("P", prompt)
        first = run(0, 10, request=key), run(0, 20, choice=1, request=key)
        stage.tokens("P", *first)
        stage.tokens("D", run(1, 11, request=key, finish=STOP))
        stage.tokens("D", run(1, 21, choice=1, request=key, finish=STOP))
        assert await rest(live.runs()) == [(0, (10,)), (1, (20,)), (0, (11,)), (1, (21,))]
        assert (live.num_prompt_tokens, live.num_cached_tokens) == (4, 2)
        assert live.prompt_logprobs == scores
        assert stage.metric("epd_prompt_tokens_cached_total") == 2
        assert stage.metric("epd_first_token_seconds_count") == 1
        assert stage.metric("epd_requests_total") == 1
        assert stage.metric("epd_live_requests") == 0

    play(scene)


def test_what_arrives_from_another_thread_is_heard_in_order_and_wakes_the_loop_once(
    play: Play,
) -> None:
    """However many events come before the loop has its turn, and after it."""

    async def scene(stage: Stage) -> None:
        live = await stage.node.submit(call())
        key = RequestKey(live.request_id, 1)
        stage.admit(key)

        def put(*indices: int) -> None:
            for index in indices:
                end = STOP if index == 8 else None
                message = m.Tokens(runs=(run(index, index, request=key.request_id, finish=end),))
                delivery = Delivery(sender="P", incarnation="1", message=message, frame=None)
                assert stage.node.put(delivery)

        wakes: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            wake = stage.node._loop.call_soon_threadsafe
            patch.setattr(
                stage.node._loop, "call_soon_threadsafe", lambda do: wakes.append(wake(do))
            )
            thread = threading.Thread(target=put, args=range(5))
            thread.start()
            thread.join()
            assert len(wakes) == 1 and not live.more
            runs = live.runs()
            assert [(await anext(runs)).token_ids[0] for _ in range(5)] == [0, 1, 2, 3, 4]
            put(5, 6)
            put(7, 8)
            assert await rest(runs) == [(0, (index,)) for index in (5, 6, 7, 8)]
            assert len(wakes) == 2

    play(scene)


def test_a_choice_that_its_reader_ends_is_stopped_and_shown_no_more(play: Play) -> None:
    """Not even what had come already; the last one ends the call."""

    async def scene(stage: Stage) -> None:
        live = await stage.node.submit(call(n=2))
        key = live.request_id
        stage.admit(RequestKey(key, 1))
        stage.tokens("P", run(0, 10, request=key), run(0, 20, choice=1, request=key))
        stage.tokens("D", run(1, 11, request=key), run(1, 21, choice=1, request=key))
        seen = []
        async for one in live.runs():
            seen.append(one.token_ids)
            live.end_choice(one.choice)
        assert seen == [(10,), (20,)]
        assert [stop.choice for stop, _ in stage.told(m.StopChoice)] == [0]
        assert stage.told(m.Cancel) != []
        assert stage.metric("epd_requests_total") == 1
        await live.cancel()
        live.end_choice(1)
        assert stage.metric("epd_requests_total") == 1

    play(scene)


def test_a_call_ends_when_the_other_choices_end_is_still_to_be_read(play: Play) -> None:
    """Nothing of it may stay behind once its reader has the rest."""

    async def scene(stage: Stage) -> None:
        live = await stage.node.submit(call(n=2))
        key = live.request_id
        stage.admit(RequestKey(key, 1))
        stage.tokens("P", run(0, 10, request=key), run(0, 20, choice=1, request=key, finish=STOP))
        live.end_choice(0)
        assert stage.metric("epd_live_requests") == 0
        assert await rest(live.runs()) == [(1, (20,))]
        assert stage.metric("epd_requests_total") == 1

    play(scene)


def test_a_reader_that_waits_is_woken_when_its_last_choice_is_ended(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        live = await stage.node.submit(call())
        reader = asyncio.create_task(rest(live.runs()))
        await asyncio.sleep(0)
        live.end_choice(0)
        assert await reader == []

    play(scene)


def test_the_parts_of_a_request_are_encoded_from_its_bytes(play: Play) -> None:
    """Decode died with tokens out, so each choice goes on by itself; an error ends all of them."""

    async def scene(stage: Stage) -> None:
        live = await stage.node.submit(call(b"picture", n=2))
        key = live.request_id
        ((job, _),) = stage.told(m.EncodeItem)
        stage.hear("E", m.LayoutReady(item=job.item, layout=layout()))
        stage.admit(RequestKey(key, 1))
        stage.tokens("P", run(0, 10, request=key), run(0, 20, choice=1, request=key))
        stage.hear("D", m.Leaving(reason="bye"))
        jobs = stage.told(m.EncodeItem)[1:]
        assert [job.item.request_id for job, _ in jobs] == [f"{key}/0", f"{key}/1"]
        assert [frame for _, frame in jobs] == [b"picture", b"picture"]
        live.holder.cancel(key, Unavailable("over"))
        with pytest.raises(EpdError, match="over"):
            await rest(live.runs())
        assert stage.metric("epd_live_requests") == 0

    play(scene)


def test_an_item_that_no_worker_serves_is_a_503_that_says_so(play: Play) -> None:
    """The encode worker that is there reads pictures."""

    async def scene(stage: Stage) -> None:
        asked = call(b"sound")
        (part,) = asked.draft.parts
        draft = replace(asked.draft, parts=(replace(part, modality=Modality.AUDIO),))
        live = await stage.node.submit(replace(asked, draft=draft))
        with pytest.raises(Unavailable, match="no encode worker serves audio"):
            await rest(live.runs())
        assert stage.told(m.EncodeItem) == []

    play(scene)


def test_a_job_says_how_its_item_came_and_is_read(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        asked = call(b"")
        (part,) = asked.draft.parts
        source = Source.of([("image_embeds", b"rows"), ("image_grid_thw", b"g")], ItemForm.EMBEDS)
        options = MediaOptions(siblings=3, processor="{}")
        draft = replace(asked.draft, parts=(replace(part, source=source, options=options),))
        await stage.node.submit(replace(asked, draft=draft))
        ((job, frame),) = stage.told(m.EncodeItem)
        assert (job.form, job.pieces) == (ItemForm.EMBEDS, source.pieces)
        assert (job.options, job.salt, frame) == (options, "tenant", b"rowsg")
        stage.node.end_all()

    play(scene)


def test_reserve_carries_the_prefix_only_where_the_cache_is_on(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        await stage.node.submit(call())
        ((reserve, _),) = stage.told(m.Reserve)
        found.append(reserve.prefix is not None)
        stage.node.end_all()

    found: list[bool] = []
    play(scene)
    play(scene, language={"prefix_cache": False})
    assert found == [True, False]


def test_whoever_works_for_a_request_knows_how_much_time_it_has(play: Play) -> None:
    """What is left when the message goes out, of what the client or the operator allows."""

    async def scene(stage: Stage) -> None:
        live = await stage.node.submit(call(b"pixels"))
        ((job, _),) = stage.told(m.EncodeItem)
        live.ends -= 3.0
        stage.hear("E", m.LayoutReady(item=job.item, layout=layout()))
        ((reserve, _),) = stage.told(m.Reserve)
        stage.admit(RequestKey(live.request_id, 1))
        ((admit, _),) = stage.told(m.Admit)
        assert 0 < admit.deadline_ms <= reserve.deadline_ms <= job.deadline_ms - 3000 <= 4000
        stage.node.end_all()

    play(scene, gateway={"request_timeout_s": 7.0})


def test_an_item_that_was_answered_before_is_held(play: Play) -> None:
    """The node names its source."""

    async def scene(stage: Stage) -> None:
        for _ in range(2):
            live = await stage.node.submit(call(b"picture"))
            job, _ = stage.told(m.EncodeItem)[-1]
            stage.hear("E", m.LayoutReady(item=job.item, layout=layout()))
            stage.admit(RequestKey(live.request_id, 1))
            await live.cancel()
        assert [job.hold for job, _ in stage.told(m.EncodeItem)] == [False, True]

    play(scene)


def registers(stage: Stage, member: Member, *, draining: bool = False, **other: Any) -> None:
    """As a worker says it, with parts of its fingerprint that differ from the gateway's."""
    fingerprint = {**stage.checkpoint.fingerprint(), "protocol": str(m.PROTOCOL_VERSION), **other}
    register = m.Register(member=member, fingerprint=fingerprint, via="", draining=draining)
    stage.hear(member.name, register)


def test_an_idle_worker_that_drains_is_released_at_once_and_shown(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        registers(stage, decode(), draining=True)
        assert len(stage.told(m.Released)) == 1
        states = {row["name"]: row["state"] for row in stage.node.cluster()["workers"]}
        assert states == {"D": "draining", "D2": "serving", "E": "serving", "P": "serving"}

    play(scene)


def test_a_busy_worker_that_drains_is_released_when_its_request_has_ended(play: Play) -> None:
    """However often it says that it drains; the table is published once."""

    async def scene(stage: Stage) -> None:
        live = await stage.node.submit(call())
        ((_, _),) = stage.told(m.Reserve)
        stage.admit(RequestKey(live.request_id, 1))
        registers(stage, decode(), draining=True)
        tables = len(stage.told(m.Members))
        registers(stage, decode(), draining=True)
        assert stage.told(m.Released) == [] and len(stage.told(m.Members)) == tables
        assert stage.node.where(live.request_id)["parts"][0]["decode"] == "D"
        await live.cancel()
        registers(stage, decode(), draining=True)
        assert len(stage.told(m.Released)) == 1

    play(scene)


def test_an_operators_order_reaches_the_worker(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        stage.node.drain("D", None)
        stage.node.drain("D", 1.5)
        assert [one.deadline_ms for one, _ in stage.told(m.Drain)] == [7000, 1500]
        with pytest.raises(EpdError) as caught:
            stage.node.drain("nobody", 1.0)
        assert caught.value.status == 404

    play(scene, gateway={"drain_s": 7})


def test_another_revision_joins_and_another_vocabulary_does_not(play: Play) -> None:
    """Its tokens would be wrong; other weights only make another pool."""

    async def scene(stage: Stage) -> None:
        registers(stage, decode("N", pool="new"), weights="new")
        assert stage.told(m.RegisterRefused) == []
        for part in ("architecture", "tokenizer", "vocabulary"):
            other: dict[str, Any] = {part: "other"}
            registers(stage, decode("X"), **other)
            refused, _ = stage.told(m.RegisterRefused)[-1]
            assert part in refused.reason and "X other" in refused.reason
        pools = {row["name"]: row["pool"] for row in stage.node.cluster()["workers"]}
        assert set(pools) == {"D", "D2", "E", "N", "P"} and pools["N"] != pools["D"]

    play(scene)


def test_a_revision_that_the_operator_does_not_allow_is_refused(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        registers(stage, decode("N"), dtype="float16")
        ((refused, _),) = stage.told(m.RegisterRefused)
        assert refused.reason == "dtype: gateway allows float32, bfloat16, N float16"

    async def joined(stage: Stage) -> None:
        registers(stage, decode("N"), dtype="bfloat16")
        assert stage.told(m.RegisterRefused) == []

    for one in (scene, joined):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Stage, "join", lambda stage, *members: None)
            play(one, gateway={"allow": {"dtype": ["float32", "bfloat16"]}})


def span(activity: Activity, ms: float, ago_ms: float = 0.0) -> Span:
    return Span(activity=activity, ago_ms=ago_ms, ms=ms)


def item_spans(item: ItemKey, origin: Origin | None, *spans: Span) -> m.ItemSpans:
    return m.ItemSpans(item=item, origin=origin, num_bytes=4, batch_items=1, spans=spans)


def test_the_path_of_a_call_is_what_its_workers_said(play: Play) -> None:
    """From the first job to the last token; its metrics are counted once, when it has ended."""

    async def scene(stage: Stage) -> None:
        live = await stage.node.submit(call(b"1234"))
        key, item = RequestKey(live.request_id, 1), ItemKey(live.request_id, 0, 1)
        assert stage.metric('epd_items_pending{modality="image"}') == 1
        assert stage.metric("epd_num_requests_waiting") == 1
        stage.hear("E", item_spans(item, None, span(Activity.DECODE, 3)))
        stage.hear("E", m.LayoutReady(item=item, layout=layout()))
        stage.hear("E", item_spans(item, Origin.TOWER, span(Activity.ENCODE, 5)))
        stage.hear("stranger", item_spans(item, Origin.CACHE, span(Activity.ENCODE, 99)))
        stage.admit(key)
        assert stage.metric("epd_num_requests_running") == 1
        rows = m.RowsIn(index=0, num_rows=2, num_bytes=64, transfer=span(Activity.TRANSFER, 1))
        prefill = (span(Activity.QUEUE, 1), span(Activity.PREFILL, 2))
        chunks = tuple(m.Chunk(num_tokens=num, ago_ms=9.0, ms=1.0) for num in (3, 2))
        spoken = m.RequestSpans(
            request=key, stage=Stages.PREFILL, spans=prefill, rows=(rows,), chunks=chunks
        )
        stage.hear("P", spoken)
        stage.tokens("P", run(0, 10, request=key.request_id))
        spans = (span(Activity.TRANSFER, 4), span(Activity.DECODE, 6))
        stage.hear("D", m.RequestSpans(request=key, stage=Stages.DECODE, spans=spans, num_bytes=9))
        stage.tokens("D", run(1, 11, request=key.request_id, finish=STOP))
        assert await rest(live.runs()) == [(0, (10,)), (0, (11,))]
        told = shown(live.path)
        assert told["items"][0]["ms"] == {"decode": 3.0, "encode": 5.0, "transfer": 1.0}
        assert told["items"][0]["encoder"] == "E" and told["items"][0]["rows_from"] == "tower"
        assert told["prefill"]["worker"] == "P" and told["prefill"]["ms"]["prefill"] == 2.0
        assert [chunk["tokens"] for chunk in told["prefill"]["chunks"]] == [3, 2]
        assert told["decode"]["worker"] == "D" and told["decode"]["kv_bytes"] == 9
        assert told["decode"]["ms"] == {"transfer": 4.0, "decode": 6.0}
        encode = 'epd_activity_seconds_count{activity="encode",modality="image",stage="encode"}'
        assert stage.metric(encode) == 1
        assert stage.metric('epd_item_rows_total{modality="image",origin="tower"}') == 1
        assert stage.metric('epd_moved_bytes_total{what="kv"}') == 9
        assert stage.metric("epd_retries_total") == 0

    play(scene)


def test_spans_of_calls_that_have_ended_are_ignored(play: Play) -> None:
    """Decode says how long it took when its gateway has stopped it already."""

    async def scene(stage: Stage) -> None:
        live = await stage.node.submit(call())
        key = RequestKey(live.request_id, 1)
        await live.cancel()
        late = m.RequestSpans(request=key, stage=Stages.DECODE, spans=(span(Activity.DECODE, 1),))
        stage.hear("D", late)
        assert stage.metric('epd_failures_total{cause="cancelled"}') == 1
        assert stage.metric("epd_activity_seconds_count") == 0

    play(scene)


def test_a_worker_that_dies_shows_as_a_retry(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        live = await stage.node.submit(call())
        key = RequestKey(live.request_id, 1)
        decoder = next(to for to, sent, _ in stage.sent if isinstance(sent, m.Reserve))
        stage.hear(decoder, m.Reserved(request=key, cached_tokens=0))
        stage.hear("P", m.Admitted(request=key))
        stage.hear(decoder, m.Leaving(reason="gone"))
        again = RequestKey(live.request_id, 2)
        other = "D2" if decoder == "D" else "D"
        stage.hear(other, m.Reserved(request=again, cached_tokens=0))
        stage.hear("P", m.Admitted(request=again))
        assert live.path.retries == 1
        assert shown(live.path)["decode"]["worker"] == other
        await live.cancel()
        assert stage.metric('epd_retries_total{what="request"}') == 1

    play(scene)
