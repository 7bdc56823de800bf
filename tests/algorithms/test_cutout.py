import io

import numpy as np
import pytest
from local_models import ALGORITHMS, manifest
from PIL import Image

ALGORITHM = "vision/cutout"
SAMPLE = ALGORITHMS / "vision/cutout/sample.jpg"


def opened(png):
    image = Image.open(io.BytesIO(png), formats=["PNG"])
    assert image.mode == "RGBA"
    return np.asarray(image)


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def sample():
    return Image.open(io.BytesIO(SAMPLE.read_bytes()))


@pytest.fixture(scope="module")
def cup(algorithm):
    """The sample without its table, uint8 [height, width, RGBA]."""
    return opened(algorithm.apply(SAMPLE.read_bytes()))


def test_the_cut_out_has_the_size_of_the_photo(cup, sample):
    assert (cup.shape[1], cup.shape[0]) == sample.size


def test_the_cup_stays_and_the_table_goes(cup):
    alpha = cup[..., 3]
    assert (alpha[100:300, 200:350] > 200).mean() > 0.99  # the cup
    corners = np.concatenate([alpha[:60, :60], alpha[:60, -60:], alpha[-60:, -60:]])
    assert (corners < 20).mean() > 0.99  # the table
    assert 0.25 < (alpha > 128).mean() < 0.6


def test_colours_of_what_stays_are_those_of_the_photo(cup, sample):
    photo = np.asarray(sample)
    seen = cup[..., 3] > 0
    assert np.array_equal(cup[seen][:, :3], photo[seen])


def test_nothing_is_left_under_what_is_transparent(cup):
    assert not cup[cup[..., 3] == 0].any()


def test_what_was_transparent_before_stays_transparent(algorithm, sample):
    photo = sample.convert("RGBA")
    alpha = np.full((photo.height, photo.width), 255, dtype=np.uint8)
    alpha[:, :300] = 0
    photo.putalpha(Image.fromarray(alpha))
    result = opened(algorithm.apply(encoded(photo)))
    assert not result[:, :300].any()


def test_a_photo_of_nothing_is_answered(algorithm):
    assert opened(algorithm.apply(encoded(Image.new("RGB", (40, 30))))).shape == (30, 40, 4)


def test_an_even_matte_keeps_the_photo(algorithm):
    assert (algorithm.to_alpha(np.full((320, 320), 0.3, dtype=np.float32)) == 255).all()


@pytest.mark.parametrize("size", [(50_000, 50_000), (5_000, 4_000)])
def test_too_many_pixels_are_refused_before_they_are_decoded(refused, png_header, size):
    assert "more than 16 million pixels" in refused(png_header(*size))


@pytest.mark.parametrize("input", [b"", "", None, {}, "no photo", b"GIF89a", SAMPLE.read_bytes()[:3_000]])
def test_what_is_no_photo_is_refused_with_what_is_accepted(refused, input):
    assert "send a JPEG, PNG, WebP, GIF or BMP photo" in refused(input)


def test_it_reads_photos_as_the_classifier_does():
    # Each algorithm is a repository of its own, so the reader is there twice; its tests are with the classifier's.
    assert (ALGORITHMS / "vision/cutout/src/photo.py").read_text() == (
        ALGORITHMS / "vision/classify/src/photo.py"
    ).read_text()


def test_the_sample_of_the_manifest_runs(algorithm):
    sample = manifest(ALGORITHMS / ALGORITHM)["sample"]["input"]
    assert (opened(algorithm.apply(sample))[..., 3] > 128).any()
