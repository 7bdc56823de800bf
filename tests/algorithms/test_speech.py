import base64
import json
import struct
import wave

import numpy as np
import pytest
from local_models import ALGORITHMS, LocalModel, manifest, model_bytes

ALGORITHM = "audio/speech"
SAMPLE = ALGORITHMS / "audio/speech/sample.wav"
#: Where the two sentences of the sample were put, in seconds; a tone lies between them, at 3.8 to 4.3.
SPOKEN = ((1.0, 3.016), (5.016, 6.287))
#: The detector looks at 32 ms at a time, waits for the last breath, and pads by 30 ms.
TOLERANCE_S = 0.2


@pytest.fixture(scope="module")
def sample():
    """The sample's float samples at 16 kHz."""
    with wave.open(str(SAMPLE)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def wav(body, kind=1, bits=16, rate=16_000, channels=1, data_size=None, form_extra=b""):
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * frame % 2**32, frame % 2**16, bits)
    form += form_extra
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"LIST" + struct.pack("<I", 3) + b"abc\0"  # an odd chunk that readers skip
    chunks += b"data" + struct.pack("<I", len(body) if data_size is None else data_size) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def as_bits(samples, kind, bits):
    if kind == 3:
        return samples.astype(f"<f{bits // 8}").tobytes()
    if bits == 8:
        return (samples * 128 + 128).round().astype(np.uint8).tobytes()
    whole = (samples * (2.0 ** (bits - 1) - 1)).astype("<i8")
    return whole.view(np.uint8).reshape(-1, 8)[:, : bits // 8].tobytes()


def assert_both_sentences(result):
    assert [set(segment) for segment in result["segments"]] == [{"start", "end"}] * 2
    for segment, (start, end) in zip(result["segments"], SPOKEN, strict=True):
        assert abs(segment["start"] - start) < TOLERANCE_S
        assert abs(segment["end"] - end) < TOLERANCE_S


def test_two_sentences_are_found_and_the_tone_is_not(algorithm):
    result = algorithm.apply(SAMPLE.read_bytes())
    assert_both_sentences(result)
    assert result["duration"] == 7.087
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_all_ways_to_send_a_recording_give_the_same_answer(algorithm, data_url):
    raw = SAMPLE.read_bytes()
    text = base64.b64encode(raw).decode()
    expected = algorithm.apply(raw)
    for input in (bytearray(raw), text, data_url(raw, "audio/wav"), {"audio": text}):
        assert algorithm.apply(input) == expected


@pytest.mark.parametrize(("kind", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
def test_each_kind_of_sample_is_read(algorithm, sample, kind, bits):
    samples, rate = algorithm.wav.read(wav(as_bits(sample, kind, bits), kind, bits), 60)
    assert rate == 16_000
    assert np.abs(samples - sample).max() < (1 / 128 if bits == 8 else 1e-4)


def test_the_extensible_header_is_read(algorithm, sample):
    extra = struct.pack("<HHIH", 22, 16, 4, 1) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    assert_both_sentences(algorithm.apply(wav(as_bits(sample, 1, 16), 0xFFFE, 16, form_extra=extra)))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_any_rate_and_any_number_of_channels_is_heard(algorithm, sample, rate):
    other = algorithm.resample(sample.astype(np.float32), 16_000, rate)
    stereo = np.stack([other, other * 0.5, np.zeros_like(other)], axis=1).ravel()
    result = algorithm.apply(wav(as_bits(stereo, 1, 16), rate=rate, channels=3))
    assert_both_sentences(result)
    assert abs(result["duration"] - 7.087) < 0.002


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 44_099, 48_000, 96_000])
def test_resampling_keeps_a_tone_and_drops_what_would_alias(algorithm, rate):
    at = np.arange(rate) / rate
    tone = algorithm.resample(np.sin(2 * np.pi * 440 * at).astype(np.float32), rate, 16_000)
    assert len(tone) == 16_000
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(tone - expected)[500:-500].max() < 1e-3
    if rate > 20_000:
        high = algorithm.resample(np.sin(2 * np.pi * 9_000 * at).astype(np.float32), rate, 16_000)
        assert np.abs(high)[500:-500].max() < 1e-3


def test_silence_noise_and_a_hum_are_no_speech(algorithm):
    at = np.arange(48_000) / 16_000
    for sound in (
        np.zeros(48_000),
        0.1 * np.random.default_rng(0).standard_normal(48_000).clip(-3, 3),
        0.5 * np.sin(2 * np.pi * 50 * at),
    ):
        assert algorithm.apply(wav(as_bits(sound, 1, 16))) == {"segments": [], "duration": 3.0}


def test_a_recording_shorter_than_one_look_is_answered(algorithm):
    assert algorithm.apply(wav(bytes(2))) == {"segments": [], "duration": 0.0}


def test_runs_of_the_model_are_few_and_their_borders_are_not_heard(algorithm, sample, monkeypatch):
    samples = np.tile(sample, 5).astype(np.float32)
    monkeypatch.setattr(algorithm, "_model", LocalModel(ALGORITHMS / ALGORITHM, "silero"))
    in_few = algorithm.probabilities(samples)
    assert algorithm._model.num_runs == 3
    monkeypatch.setattr(algorithm, "STEPS_A_RUN", 10_000)
    assert np.abs(np.subtract(algorithm.probabilities(samples), in_few)).max() < 1e-5


def test_the_net_for_many_steps_says_what_the_net_for_one_step_says(algorithm, sample):
    import onnxruntime

    folder = ALGORITHMS / ALGORITHM
    spec = {
        **manifest(folder)["models"]["silero"],
        "path": "silero_vad/data/silero_vad.onnx",
        "sha256": "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    }
    session = onnxruntime.InferenceSession(model_bytes(folder, spec), providers=["CPUExecutionProvider"])
    state, expected = np.zeros((2, 1, 128), np.float32), []
    for window in algorithm.to_windows(sample.astype(np.float32)):
        got, state = session.run(None, {"input": window[None], "state": state, "sr": np.array(16_000)})
        expected.append(float(np.asarray(got)[0, 0]))
    assert np.abs(np.subtract(algorithm.probabilities(sample.astype(np.float32)), expected)).max() < 1e-4


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([], []),
        ([0.0] * 50, []),
        ([1.0] * 50, [(0.0, 5.0)]),
        ([0.0] * 10 + [0.9] * 10 + [0.0] * 30, [(0.97, 2.03)]),
        ([0.0] * 10 + [0.9, 0.9] + [0.0] * 38, []),  # a click
        ([0.0] * 10 + [0.9] * 5 + [0.4] * 20 + [0.9] * 5 + [0.0] * 10, [(0.97, 4.03)]),  # wavers, does not end
        ([0.0] * 10 + [0.9] * 5 + [0.0] * 5 + [0.9] * 5 + [0.0] * 25, [(0.97, 1.53), (1.97, 2.53)]),
        ([0.0] * 40 + [0.9] * 10, [(3.97, 5.0)]),  # speaks until the end
    ],
)
def test_stretches_begin_end_and_are_padded(algorithm, probabilities, expected):
    found = algorithm.segments.find_segments(probabilities, 0.1, len(probabilities) * 0.1)
    assert [(segment["start"], segment["end"]) for segment in found] == expected


def test_a_stream_whose_size_was_never_written_is_read(algorithm, sample):
    assert_both_sentences(algorithm.apply(wav(as_bits(sample, 1, 16), data_size=0xFFFFFFFF)))


@pytest.mark.parametrize(
    ("input", "says"),
    [
        (b"", "is empty"),
        ("", "is empty"),
        (None, "NoneType is no recording"),
        ({"sound": ""}, 'no "audio"'),
        ("hello", "not base64"),
        ("data:image/png;base64,Zm9v", "data URL of type image/png"),
        ("https://example.org/a.wav", "no network"),
        (b"ID3\x03 an mp3", "no WAV file"),
        (b"RIFF\x04\0\0\0WAVE", "before its sound begins"),
        (b"RIFF\x0c\0\0\0WAVEfmt \x02\0\0\0\1\0", "format is cut short"),
        (b"RIFF\xff\xff\xff\xffWAVEdata\x04\0\0\0abcd", "data before its format"),
        (wav(bytes(64), data_size=1_000_000), "says 1000000 bytes of sound, but only 64 follow"),
        (wav(bytes(64))[:50], "cut short|before its sound begins"),
        (wav(b""), "holds no sound"),
        (wav(bytes(64), kind=6, bits=8), "format 6 with 8 bits"),
        (wav(bytes(64), bits=12), "format 1 with 12 bits"),
        (wav(bytes(64), kind=3, bits=16), "format 3 with 16 bits"),
        (wav(bytes(64), channels=0), "0 channels"),
        (wav(bytes(64), channels=65_535), "65535 channels"),
        (wav(bytes(64), rate=0), "0 samples a second"),
        (wav(bytes(64), rate=2**31), "2147483648 samples a second"),
        (wav(np.full(99, np.nan, "<f4").tobytes(), 3, 32), "NaN"),
        (wav(np.array([0, np.inf], "<f8").tobytes(), 3, 64), "NaN or infinite"),
        (wav(np.array([0, 1e300], "<f8").tobytes(), 3, 64), "NaN or infinite"),
        (wav(bytes(4_000 * 601), bits=8, rate=4_000), "601 s long; at most 600 s"),
    ],
)
def test_what_is_no_recording_is_refused_with_what_is_wrong(refused, input, says):
    message = refused(input)
    assert any(part in message for part in says.split("|")), message


def test_bytes_flipped_in_the_header_never_crash_it(algorithm):
    random = np.random.default_rng(0)
    raw = SAMPLE.read_bytes()[:32_000]
    for _ in range(200):
        broken = bytearray(raw)
        for at in random.integers(0, 48, 4):
            broken[at] = random.integers(0, 256)
        try:
            assert algorithm.apply(bytes(broken))["duration"] >= 0
        except algorithm.wav.InputError as error:
            assert str(error)


def test_the_sample_of_the_manifest_runs(algorithm):
    sample = manifest(ALGORITHMS / ALGORITHM)["sample"]["input"]
    assert len(algorithm.apply(sample)["segments"]) == 1
