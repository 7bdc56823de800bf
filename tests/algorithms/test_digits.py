import json

import numpy as np
import onnxruntime
import pytest
from local_models import ALGORITHMS, manifest, model_bytes

FOLDER = ALGORITHMS / "vision/digits"
#: Digits drawn for this test: rows of a 7 x 7 picture, '#' is ink.
DRAWN = {
    0: (".####..", "##..##.", "##..##.", "##..##.", "##..##.", "##..##.", ".####.."),
    1: ("...#...", "...#...", "...#...", "...#...", "...#...", "...#...", "...#..."),
    7: ("######.", ".....#.", "....#..", "....#..", "...#...", "...#...", "..#...."),
}


@pytest.fixture(scope="module")
def session():
    raw = model_bytes(FOLDER, manifest(FOLDER)["models"]["digits"])
    return onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def sample():
    return np.array(manifest(FOLDER)["sample"]["input"], dtype=np.float32)


def run(session, images):
    (probabilities,) = session.run(None, {"image": images})
    return probabilities


def test_the_sample_of_the_manifest_is_a_three(session, sample):
    assert sample.shape == (28, 28)
    assert json.loads((FOLDER / "sample.json").read_text()) == manifest(FOLDER)["sample"]["input"]
    (probabilities,) = run(session, sample[None])
    assert probabilities.argmax() == 3
    assert probabilities[3] > 0.95


@pytest.mark.parametrize("digit", DRAWN)
def test_digits_drawn_by_hand_are_read(session, digit):
    ink = np.array([[mark == "#" for mark in row] for row in DRAWN[digit]], dtype=np.float32)
    image = np.zeros((28, 28), dtype=np.float32)
    image[4:25, 4:25] = ink.repeat(3, 0).repeat(3, 1)
    assert run(session, image[None]).argmax() == digit


def test_a_digit_off_the_middle_is_read_too(session, sample):
    for rows, columns in ((2, 2), (-2, 2), (2, -2), (-2, -2)):
        assert run(session, np.roll(sample, (rows, columns), (0, 1))[None]).argmax() == 3


def test_probabilities_sum_to_one_and_calls_can_be_stacked(session, sample):
    images = np.stack([sample, sample.T, np.zeros_like(sample), 1 - sample])
    together = run(session, images)
    assert together.shape == (4, 10)
    assert np.abs(together.sum(1) - 1).max() < 1e-5
    assert np.abs(together - np.concatenate([run(session, image[None]) for image in images])).max() < 1e-5


def test_it_is_a_model_and_nothing_else():
    assert "language" not in manifest(FOLDER)["algorithm"]
    assert not (FOLDER / "src").exists()
    assert len(manifest(FOLDER)["models"]) == 1
