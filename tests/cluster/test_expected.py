"""Which beginnings of prompts the gateway expects on which worker, and what makes it think so."""

from __future__ import annotations

import pytest

from epd.cluster.expected import Expected, continued
from epd.cluster.placement import SLACK, Placed
from epd.cluster.recent import Recent
from epd.prefix import next_hash, prefix_of
from epd.types import FinishReason, Member, Prompt, RequestKey
from epd.wire import messages as m
from tests.cluster.owning import Gateway, R, one, root_of, told
from tests.cluster.samples import decode, fused, prefill, run
from tests.cluster.test_membership import table

ROOT = root_of("")
ASKED = tuple(range(40))
ANSWER = tuple(range(100, 130))


def blocks_of(*token_ids: int, salt: str = "") -> tuple[bytes, ...]:
    """Hashes of a text prompt."""
    return prefix_of(Prompt(text=(token_ids,)), root_of(salt)).blocks


# ---- a bounded set


def test_what_was_not_touched_for_longest_is_forgotten() -> None:
    recent = Recent[int](2)
    recent.touch([1, 2])
    recent.touch([1])
    recent.touch([3])
    assert [key in recent for key in (1, 2, 3)] == [True, False, True]
    recent.discard([1, 7])
    assert 1 not in recent and len(recent) == 1


# ---- the index


def expected(kv_tokens: int = 64) -> Expected:
    return Expected(table(prefill(kv_tokens=kv_tokens)))


def test_a_beginning_ends_with_the_first_block_that_is_missing() -> None:
    """A block without those before it is of no use."""
    index = expected()
    blocks = blocks_of(*range(48))
    assert index.tokens("P", blocks) == 0
    index.add("P", [blocks[0], blocks[2]])
    assert index.tokens("P", blocks) == 16
    index.add("P", blocks)
    assert index.tokens("P", blocks) == 48
    assert index.tokens("P", blocks_of(*range(40), 7, 7, 7, 7, 7, 7, 7, 7)) == 32


def test_a_worker_holds_no_more_than_its_kv() -> None:
    """The ends of old prompts go first: their beginnings are of use to others."""
    index = expected(kv_tokens=64)
    old, new = blocks_of(*range(48)), blocks_of(*range(100, 132))
    index.add("P", old)
    index.add("P", new)
    assert index.tokens("P", new) == 32
    assert index.tokens("P", old) == 32


def test_a_workers_word_replaces_the_guess() -> None:
    """It has less than expected, or more; what it was not asked about stays."""
    index = expected()
    blocks = blocks_of(*range(48))
    index.correct("P", blocks, 0, 48)
    assert index.tokens("P", blocks) == 0
    index.correct("P", blocks, 32, 48)
    assert index.tokens("P", blocks) == 32
    index.add("P", blocks)
    index.correct("P", blocks, 32, 32)
    assert index.tokens("P", blocks) == 48
    index.correct("P", blocks, 16, 48)
    assert index.tokens("P", blocks) == 16


def test_nothing_is_expected_of_who_is_gone_or_was_never_there() -> None:
    index = expected()
    blocks = blocks_of(*range(48))
    index.add("P", blocks)
    index.add("stranger", blocks)
    assert index.tokens("stranger", blocks) == 0
    index.correct("stranger", blocks, 0, 48)
    index.forget("P")
    assert index.tokens("P", blocks) == 0


@pytest.mark.parametrize("num", [0, 5, 16, 40])
@pytest.mark.parametrize("generated", [0, 7, 12, 60])
def test_an_answers_blocks_are_those_of_the_next_turns_prompt(num: int, generated: int) -> None:
    """Whatever is left of the prompt after its last whole block."""
    prompt = Prompt(text=(tuple(range(num)),))
    answer = tuple(range(200, 200 + generated))
    prefix = prefix_of(prompt, ROOT)
    tail = prompt.token_ids()[len(prefix.blocks) * 16 :]
    whole = blocks_of(*range(num), *answer)
    assert (*prefix.blocks, *continued(prefix, tail, answer)) == whole


def test_an_items_end_inside_an_answers_first_block_is_part_of_its_hash() -> None:
    prefix = prefix_of(Prompt(text=((1,),)), ROOT)
    with_item = type(prefix)(root=ROOT, blocks=(), tail=b"item")
    (first, second) = continued(with_item, [1], range(31))
    assert first == next_hash(ROOT, [1, *range(15)], b"item")
    assert second == next_hash(first, range(15, 31))


# ---- what the gateway learns


def served(*members: Member) -> Gateway:
    """A prompt of 40 tokens was answered with 30 on P and D."""
    gateway = Gateway(prefill(), decode(), *members, root_of=root_of)
    gateway.running(text=ASKED, max_tokens=30)
    gateway.emits("P", run(0, *ANSWER[:1]))
    gateway.emits("D", run(1, *ANSWER[1:], finish=FinishReason.LENGTH))
    assert gateway.owner.idle
    return gateway


def known(gateway: Gateway, name: str, *token_ids: int, salt: str = "") -> int:
    return gateway.placement.expected.tokens(name, blocks_of(*token_ids, salt=salt))


def test_prefill_has_the_prompt_and_decode_the_answer_too() -> None:
    """The last token was sampled and never computed: 69 of 70 have KV."""
    gateway = served()
    assert known(gateway, "P", *ASKED, *ANSWER) == 32
    assert known(gateway, "D", *ASKED, *ANSWER) == 64
    assert known(gateway, "D", *ASKED, *ANSWER, salt="tenant") == 0


def test_a_fused_worker_has_both() -> None:
    gateway = Gateway(fused(), root_of=root_of)
    gateway.submit(text=ASKED, max_tokens=30)
    gateway.admitted("F")
    gateway.emits("F", run(0, *ANSWER, finish=FinishReason.LENGTH))
    assert known(gateway, "F", *ASKED, *ANSWER) == 64


def test_each_choice_leaves_its_answer() -> None:
    gateway = Gateway(fused(), root_of=root_of)
    gateway.submit(text=ASKED, max_tokens=9, n=2)
    gateway.admitted("F")
    gateway.emits("F", run(0, *range(9), finish=FinishReason.LENGTH))
    other = range(50, 59)
    gateway.emits("F", run(0, *other, choice=1, finish=FinishReason.LENGTH))
    assert known(gateway, "F", *ASKED, *range(9)) == 48
    assert known(gateway, "F", *ASKED, *other) == 48


def test_what_was_never_admitted_is_nowhere() -> None:
    """A request that is cancelled while it is being reserved has computed nothing."""
    gateway = Gateway(prefill(), decode(), root_of=root_of)
    gateway.submit(text=ASKED)
    gateway.owner.cancel("r")
    assert known(gateway, "P", *ASKED) == known(gateway, "D", *ASKED) == 0


def test_decodes_word_is_heard_when_it_reserves() -> None:
    """It has evicted a block since."""
    gateway = served()
    gateway.submit("s", text=(*ASKED, *ANSWER), max_tokens=10)
    again = RequestKey("s", 1)
    admit = one(gateway.reserved(request=again, cached=32), m.Admit)
    assert admit.cached_tokens == 32
    assert known(gateway, "D", *ASKED, *ANSWER) == 32


def test_a_worker_that_dies_has_nothing_and_neither_has_its_successor() -> None:
    """Also what was under way on it."""
    gateway = served()
    gateway.running("s", text=ASKED)
    gateway.dies("D")
    gateway.joins(decode())
    assert known(gateway, "D", *ASKED) == 0


def test_a_preempted_attempt_leaves_what_it_computed() -> None:
    gateway = Gateway(prefill(), decode(), root_of=root_of)
    gateway.running(text=ASKED, max_tokens=30)
    gateway.emits("P", run(0, *ANSWER[:1]))
    gateway.emits("D", run(1, *ANSWER[1:10]))
    again = gateway.failed("D", 429)
    reserve = one(again, m.Reserve)
    assert reserve.prefix.blocks == blocks_of(*ASKED, *ANSWER[:10])
    assert known(gateway, "D", *ASKED, *ANSWER[:10]) == 48


# ---- what workers are told


def test_reserve_and_admit_carry_the_prefix() -> None:
    """Of the resolved prompt, under the tenant's salt; resumed, with the tokens that it emitted."""
    gateway = Gateway(prefill(), decode(), root_of=root_of)
    prefix = prefix_of(Prompt(text=(ASKED,)), root_of("tenant"))
    assert one(gateway.submit(text=ASKED, salt="tenant"), m.Reserve).prefix == prefix
    assert one(gateway.reserved(), m.Admit).prefix == prefix
    gateway.admitted()
    gateway.emits("P", run(0, 7))
    gateway.joins(decode("D2"))
    resumed = one(gateway.dies("D"), m.Reserve).prefix
    assert resumed == prefix_of(Prompt(text=((*ASKED, 7),)), root_of("tenant"))


def test_no_prefix_is_sent_where_no_kv_is_reused() -> None:
    gateway = Gateway(prefill(), decode())
    assert one(gateway.submit(text=ASKED), m.Reserve).prefix is None
    assert one(gateway.reserved(), m.Admit).prefix is None


def test_wanted_prompt_logprobs_still_publish_the_prompts_kv() -> None:
    gateway = Gateway(fused(), root_of=root_of)
    admit = one(gateway.submit(text=ASKED, prompt_logprobs=0), m.Admit)
    assert admit.prefix is not None


# ---- where requests go


def test_a_second_turn_goes_where_the_first_one_went() -> None:
    """On an idle cluster, though the others were used longer ago."""
    gateway = served(prefill("P2"), decode("D2"))
    gateway.submit("s", text=(*ASKED, *ANSWER, 5), max_tokens=10)
    assert told(gateway.submit("t", text=tuple(range(500, 540))), m.Reserve)[0][0] == "D2"
    turn = gateway.owner.cancel("s")
    assert [to for to, _ in told(turn, m.Cancel)] == ["P", "D"]


def test_a_hot_prefix_does_not_pile_up_on_one_worker() -> None:
    """Beyond the slack the less loaded workers compute it once themselves, and share it then."""
    gateway = served(prefill("P2"), decode("D2"))
    chosen = [
        (to, reserve.prefill)
        for k in range(12)
        for to, reserve in told(gateway.submit(f"s{k}", text=ASKED), m.Reserve)
    ]
    assert chosen[0] == ("D", "P")
    decoders, prefills = zip(*chosen, strict=True)
    for name in ("D", "D2"):
        assert abs(decoders.count(name) - 6) <= SLACK // 2
    for name in ("P", "P2"):
        assert abs(prefills.count(name) - 6) <= SLACK // 2


def test_a_prefix_counts_among_those_within_the_slack_only() -> None:
    """One request more than that, and the least loaded pair takes it."""
    gateway = served(prefill("P2"), decode("D2"))
    place, blocks = gateway.placement, blocks_of(*ASKED)
    for _ in range(SLACK):
        place.began("P")
    assert place.language(1, set(), None, blocks) == Placed("P", "D")
    place.began("P")
    assert place.language(1, set(), None, blocks) == Placed("P2", "D")
    place.began("D")
    assert place.language(1, set(), None, blocks) == Placed("P2", "D")
    assert place.language(1, {"D"}, None, blocks) == Placed("P2", "D2")


def test_computing_is_saved_before_copying() -> None:
    """Prefill's prefix first: what decode has not got is only sent."""
    place = served(prefill("P2"), decode("D2")).placement
    place.expected.forget("P")
    more = blocks_of(*ASKED, *ANSWER)
    place.expected.add("P2", more[:1])
    assert place.language(1, set(), None, more) == Placed("P2", "D")


def test_the_longest_beginning_is_one_of_a_prefill_worker_of_the_pool() -> None:
    """What decode has got saves no encoding."""
    place = served(prefill("other", pool="b")).placement
    blocks = blocks_of(*ASKED, *ANSWER)
    assert place.longest(blocks, {""}) == 32
    assert place.longest(blocks, {"b"}) == place.longest(blocks, set()) == 0


def test_hashes_are_those_of_the_current_attempts_prompt() -> None:
    """Once computed they are kept, until there are more tokens."""
    gateway = Gateway(fused(), root_of=root_of)
    first = one(gateway.submit(text=ASKED), m.Admit).prefix
    gateway.refused("F")
    again = one(gateway.owner.room(), m.Admit)
    assert again.request == RequestKey(R.request_id, 2)
    assert again.prefix is first
