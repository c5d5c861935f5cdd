"""What is drawn for training: the same every time, and true to its answers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from demo import questions, scenes, sizes, sounds, tower_stage, wordings
from demo.conversations import TWO_KEYS, conversation
from demo.drawing import render, strange
from demo.facts import CELLS, Scene, Thing
from demo.labels import UNSURE, WAYS, clip_labels, picture_labels, sound_labels
from demo.samples import scene
from demo.seeds import lots
from demo.sounds import Heard
from demo.tasks import TASKS

KINDS = ("picture", "clip", "sound", "two", "both", "text")
LEAST_WORDINGS = 20
NAMED = re.compile(r"<\w+>")


def test_equal_lots_draw_equal_conversations_and_pixels() -> None:
    for kind in KINDS:
        assert conversation(kind, lots(kind)) == conversation(kind, lots(kind))
    drawn = scenes.sampled_scene(lots("one"))
    assert np.array_equal(render.picture(drawn, lots("a")), render.picture(drawn, lots("a")))
    assert drawn != scenes.sampled_scene(lots("other"))


def test_each_step_of_the_tower_has_data_of_its_own() -> None:
    first, again, next_one = (tower_stage.batch(step) for step in (3, 3, 4))
    assert first.pictures.pixels.equal(again.pictures.pixels)
    assert not first.pictures.pixels.equal(next_one.pictures.pixels)


def test_no_wording_that_is_judged_as_unseen_is_trained() -> None:
    trained = {
        NAMED.sub("*", said).lower() for key in wordings.TRAINED for said in wordings.all_of(key)
    }
    unseen = {NAMED.sub("*", said).lower() for row in wordings.UNSEEN.values() for said in row}
    assert not trained & unseen


def test_each_common_question_has_many_wordings() -> None:
    few = {"how many", "moves"}
    assert set(wordings.TRAINED) == set(wordings.UNSEEN)
    for key in set(wordings.TRAINED) - few:
        assert len(wordings.all_of(key)) >= LEAST_WORDINGS, key


@pytest.mark.parametrize("group", ["picture", "two"])
def test_yes_and_no_are_balanced(group: str) -> None:
    said = []
    for i in range(400):
        rng = lots("balance", group, i)
        if group == "picture":
            turn = questions.fairly("is", scenes.sampled_scene(rng), rng)
        else:
            told = conversation("two", rng)
            turn = next((t for t in told.turns if t.answer.endswith(("yes.", "no."))), None)
        if turn:
            said.append(turn.answer.endswith("yes."))
    assert 0.35 < sum(said) / len(said) < 0.65


def test_answers_say_what_is_there() -> None:
    drawn = scene("red circle top left", "blue star right")
    rng = lots("answers")
    told = {key: questions.of_picture(key, drawn, rng) for key in ("count", "describe")}
    assert told["count"] and told["count"].answer == "There are two shapes."
    expected = "I see a red circle in the top left and a blue star on the right."
    assert told["describe"] and told["describe"].answer == expected
    for _ in range(50):
        turn = questions.of_picture("is", drawn, rng)
        assert turn and turn.answer.startswith("I see a red circle and a blue star, so ")
        turn = questions.of_picture("where", drawn, rng)
        assert turn is not None
        if "but no" not in turn.answer:
            assert turn.answer in (
                "The red circle is in the top left.",
                "The blue star is on the right.",
            )


def test_two_pictures_are_the_same_only_where_they_are() -> None:
    first, second = scene("red circle"), scene("red star")
    for key in TWO_KEYS:
        for i in range(20):
            turn = questions.of_two(key, first, second, lots(key, i))
            different = "differ" in turn.question
            if key in ("same", "same shape"):
                assert turn.answer.endswith("yes." if different else "no.")
            elif key == "same colour":
                assert turn.answer.endswith("no." if different else "yes.")


def test_a_picture_is_as_large_as_the_models_processor_makes_it() -> None:
    from epd.models.torchvision_shim import prepare_torchvision

    prepare_torchvision()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    for i in range(300):
        width, height = scenes.sampled_size(lots("size", i))
        for least, most in (sizes.IMAGE_TOKENS, sizes.FRAME_TOKENS):
            pixels = sizes.TOKEN**2
            rows, columns = smart_resize(height, width, sizes.TOKEN, least * pixels, most * pixels)
            found = sizes.grid(width, height, (least, most))
            assert found == (rows // sizes.TOKEN, columns // sizes.TOKEN)


def test_all_renderers_agree_on_what_is_where() -> None:
    """Negative control: a scene with another shape is farther away than any renderer."""
    drawn, other = (
        scene("black star left", size=(240, 200)),
        scene("black square left", size=(240, 200)),
    )

    def pixels(made: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.asarray(made.convert("L"), np.float32)

    first = pixels(strange.vector(drawn, lots("r")))
    for draw in (strange.plotted, strange.vector):
        assert np.abs(pixels(draw(drawn, lots("r"))) - first).mean() < 2
        assert np.abs(pixels(draw(other, lots("r"))) - first).mean() > 5


def test_labels_are_at_the_shapes_and_unsure_at_their_edges() -> None:
    drawn: Scene = scene("red circle top left", size=(168, 168))
    found = picture_labels([drawn], [(6, 6)], 42)[0]
    assert found[36:].eq(UNSURE).all()
    shown = found[:36].view(6, 6, 4)
    assert shown[0, 0].tolist() == [1, 1, 1, UNSURE] and shown[5, 5].tolist() == [0, 0, 0, UNSURE]


def test_a_clip_has_its_motion_where_its_shape_is() -> None:
    for way in ("left", "right", "up", "down", None):
        motion = next(
            motion
            for motion in (scenes.sampled_motion(lots("way", i)) for i in range(1000))
            if motion.direction == way
        )
        found = clip_labels([motion], [(4, 5)], 20)
        shown = found[..., 0] > 0
        assert shown.any(1).all()
        assert set(found[shown][:, 3].tolist()) == {WAYS.index(way) + 1}
        assert found[~shown][:, 3].le(0).all()


def test_rows_of_a_sound_count_its_tones() -> None:
    heard = Heard(kind="beeps", num=2, pitch="high")
    marks = np.array([0, 1, 1, 0, 0, 0, 0, 2, 2, 2])
    assert sound_labels(heard, marks, num=6, row=2).tolist() == [
        [2, 1, 2],
        [2, 1, 2],
        [0, 1, 2],
        [2, 2, 2],
        [2, 2, 2],
        [0, 2, 2],
    ]
    silence = Heard(kind="silence", num=0)
    assert not sound_labels(silence, np.zeros(9, np.int64), num=4, row=2).any()


def test_a_thing_is_in_the_cell_of_its_centre() -> None:
    for cell, name in enumerate(CELLS):
        [thing] = scene(f"red circle {name}").things
        assert isinstance(thing, Thing) and thing.cell == cell


def test_beeps_can_be_counted_in_the_samples() -> None:
    for num in range(1, 6):
        wave = sounds.sound(Heard(kind="beeps", num=num, pitch="high"), lots("beeps", num))
        frames = np.abs(wave[: len(wave) // 160 * 160]).reshape(-1, 160).max(1)
        loud = np.concatenate([[False], frames > 0.3 * frames.max()])
        assert (loud[1:] & ~loud[:-1]).sum() == num


def test_every_task_has_prompts_and_they_stay_the_same() -> None:
    for task in TASKS:
        [first], [again] = list(task.prompts(1)), list(task.prompts(1))
        assert (first.question, first.answer) == (again.question, again.answer)
