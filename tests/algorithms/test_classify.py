import base64
import io
import json
import tracemalloc

import numpy as np
import pytest
from local_models import ALGORITHMS, manifest
from PIL import Image

ALGORITHM = "vision/classify"
SAMPLE = ALGORITHMS / "vision/classify/sample.jpg"


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def sample():
    return Image.open(io.BytesIO(SAMPLE.read_bytes()))


def test_the_cat_is_a_cat(algorithm):
    labels = algorithm.apply(SAMPLE.read_bytes())["labels"]
    assert [label["label"] for label in labels[:3]] == ["Egyptian cat", "tabby", "tiger cat"]
    assert [label["index"] for label in labels[:3]] == [285, 281, 282]
    assert labels[0]["probability"] > 0.5


def test_a_cup_of_coffee_is_espresso(algorithm):
    first = algorithm.apply((ALGORITHMS / "vision/cutout/sample.jpg").read_bytes())["labels"][0]
    assert first["label"] == "espresso"
    assert first["probability"] > 0.9


def test_five_labels_come_back_likeliest_first_as_plain_json(algorithm):
    result = algorithm.apply(SAMPLE.read_bytes())
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    probabilities = [label["probability"] for label in result["labels"]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0.99 < sum(probabilities) <= 1.0001


def test_all_ways_to_send_a_photo_give_the_same_answer(algorithm, data_url):
    raw = SAMPLE.read_bytes()
    text = base64.b64encode(raw).decode()
    expected = algorithm.apply(raw)
    for input in (bytearray(raw), text, base64.encodebytes(raw).decode(), data_url(raw, "image/jpeg")):
        assert algorithm.apply(input) == expected
    assert algorithm.apply({"image": text}) == expected


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF"])
def test_other_formats_are_read(algorithm, sample, form):
    assert algorithm.apply(encoded(sample, form))["labels"][0]["label"] == "Egyptian cat"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_camera_was_held(algorithm, orientation):
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    undo = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    turn = undo.get(orientation, algorithm.photo.UPRIGHT.get(orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = encoded(upright if turn is None else upright.transpose(turn), "PNG", exif=exif)
    assert np.array_equal(np.asarray(algorithm.photo.read(raw, 10_000)), np.asarray(upright))


def test_what_is_transparent_counts_as_white(algorithm):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 4), dtype=np.uint8)
    noise[..., 3] = 0
    white = Image.new("RGB", (300, 300), "white")
    assert algorithm.apply(encoded(Image.fromarray(noise), "PNG")) == algorithm.apply(encoded(white, "PNG"))


def test_sixteen_bit_grey_is_scaled_not_clipped(algorithm):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    read = np.asarray(algorithm.photo.read(encoded(Image.fromarray(ramp), "PNG"), 10_000))
    assert np.abs(read[..., 0].astype(int) - ramp // 257).max() <= 1


def test_of_an_animation_only_the_first_frame_is_read(algorithm, sample):
    small = sample.resize((150, 100)).convert("P")
    frames = [Image.new("P", small.size, shade % 256) for shade in range(500)]
    moving = encoded(small, "GIF", save_all=True, append_images=frames)
    assert algorithm.apply(moving) == algorithm.apply(encoded(small, "GIF"))


def test_a_photo_a_million_wide_and_one_high_stays_small(algorithm):
    raw = encoded(Image.new("RGB", (1_000_000, 1), "red"), "PNG")
    tracemalloc.start()
    try:
        assert len(algorithm.apply(raw)["labels"]) == 5
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_calls_can_be_stacked_into_one_run(algorithm):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    together = algorithm._model.run({"pixels": pixels})["logits"]
    alone = np.concatenate([algorithm._model.run({"pixels": one[None]})["logits"] for one in pixels])
    assert together.shape == (3, 1000)
    assert np.abs(together - alone).max() < 1e-4


def test_the_file_holds_the_published_weights(algorithm):
    # What torch gave for this pattern when convert.py ran.
    ramp = np.arange(224, dtype=np.uint8)
    pattern = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], ramp[:, None] ^ ramp[None, :]), -1)[None]
    (logits,) = algorithm._model.run1(np.ascontiguousarray(pattern))
    assert np.abs(logits[:5] - (-0.683306, 4.488705, -4.376071, -2.058969, -0.116300)).max() < 1e-3
    assert logits.argsort()[::-1][:5].tolist() == [794, 435, 876, 896, 868]


def test_there_is_a_label_for_each_output(algorithm):
    assert len(set(algorithm.LABELS)) == 1000


@pytest.mark.parametrize(
    ("input", "says"),
    [
        (b"", "is empty"),
        ("", "is empty"),
        ("data:image/png;base64,", "is empty"),
        (None, "NoneType is no photo"),
        ([1, 2], "list is no photo"),
        ({"photo": "…"}, 'no "image"'),
        ({"image": 7}, "int is no photo"),
        ("a picture of a cat", "not base64"),
        ("====", "not base64"),
        ("Zm9vYmFy", "6 bytes that are no photo"),
        ("data:text/plain;base64,Zm9v", "data URL of type text/plain"),
        ("data:image/png,Zm9v", "data URL of type image/png"),
        ("data:;base64,Zm9v", "data URL of type text/plain"),
        ("https://example.org/cat.jpg", "no network"),
        ("data://vision/photos/cat.jpg", "no network"),
        (b"just some text", "14 bytes that are no photo"),
        (b"%PDF-1.7\n" + bytes(100), "no photo"),
        (b"\x89PNG\r\n\x1a\n", "damaged|no photo"),
        (b"GIF89a" + b"\xff" * 50, "damaged|no photo|million pixels"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "damaged|no photo"),
    ],
)
def test_what_is_no_photo_is_refused_with_what_is_accepted(refused, input, says):
    message = refused(input)
    assert any(part in message for part in says.split("|")), message
    assert "million pixels" in message or "send a JPEG, PNG, WebP, GIF or BMP photo" in message


@pytest.mark.parametrize("kept", [100, 2_000, 20_000])
def test_a_photo_cut_short_is_refused(refused, kept):
    assert "damaged or cut short" in refused(SAMPLE.read_bytes()[:kept])


def test_a_format_that_is_not_offered_is_refused(refused, sample):
    assert "no photo" in refused(encoded(sample, "TIFF"))


@pytest.mark.parametrize("size", [(50_000, 50_000), (10_000, 8_000), (2**31 - 1, 1)])
def test_too_many_pixels_are_refused_before_they_are_decoded(refused, png_header, size):
    assert "more than 40 million pixels" in refused(png_header(*size))


def test_a_small_lie_about_the_size_is_a_damaged_photo(refused, png_header):
    assert "damaged or cut short" in refused(png_header(500, 500))


def test_bytes_flipped_anywhere_never_crash_it(algorithm):
    random = np.random.default_rng(0)
    raw = SAMPLE.read_bytes()
    for _ in range(40):
        broken = bytearray(raw)
        for at in random.integers(0, len(raw), 20):
            broken[at] = random.integers(0, 256)
        try:
            assert len(algorithm.apply(bytes(broken))["labels"]) == 5
        except algorithm.photo.InputError as error:
            assert "photo" in str(error)


def test_the_sample_of_the_manifest_runs(algorithm):
    sample = manifest(ALGORITHMS / ALGORITHM)["sample"]["input"]
    assert algorithm.apply(sample)["labels"][0]["label"] == "Egyptian cat"
