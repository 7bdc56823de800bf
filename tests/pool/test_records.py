"""What was measured of a model is known again, and a record that cannot be true does no harm."""

import math

import msgspec
import pytest

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.records_file import RecordsFile
from serai_gpu_pool.scheduling.model import Model
from serai_gpu_pool.scheduling.records import Record, record_of


def model(name: str = "m") -> Model:
    return Model(ModelSpec(name, name, "", "onnx", 1000), "onnx", 10)


def measured(name: str = "m") -> Model:
    one = model(name)
    one.measured_bytes, one.improve_bytes = 12345, 30000
    one.loaded_in("disk", 0.5)
    one.loaded_in("host", 0.001)
    one.times_on("cpu").learn(1, 0.002)
    one.times_on("cpu").learn(8, 0.009)
    one.improved_on.add("cpu")
    one.times_on("cpu").learn(8, 0.004)
    one.improved_on.clear()
    one.activation_bytes[8] = 4096
    return one


def test_what_was_measured_is_known_again_on_the_devices_that_are_there():
    again = model()
    record_of(measured()).apply(again, {"cpu": None, "cuda:0": None})
    assert record_of(again) == record_of(measured())
    assert again.bytes_to_reserve(1 << 30) == 12345 and again.times_on("cpu").predict(8) == 0.009


def test_devices_that_are_gone_are_not_remembered():
    again = model()
    record_of(measured()).apply(again, {"cuda:0": None})
    assert again.times == again.best_times == {}


@pytest.mark.parametrize(
    "record",
    [
        Record(resident_bytes=-5, improve_bytes=-5, load_s={"disk": -1.0}, activation_bytes={1: -7, 0: 9, -3: 9}),
        Record(resident_bytes=1 << 90, load_s={"disk": 1e300, "host": math.inf}, activation_bytes={1: 1 << 90}),
        Record(
            batch_s={"cpu": {0: 1.0, -1: 1.0, 1: -1.0, 2: math.inf, 3: math.nan, 4: 0.0}}, load_s={"disk": math.nan}
        ),
    ],
)
def test_figures_that_cannot_be_true_are_bounded_or_left_out(record):
    one = model()
    record.apply(one, {"cpu": None})
    assert 0 <= one.measured_bytes <= 1 << 50 and 0 <= one.improve_bytes <= 1 << 50
    assert all(0 <= seconds <= 3600 for seconds in one.load_s.values())
    assert all(size > 0 and 0 <= num_bytes <= 1 << 50 for size, num_bytes in one.activation_bytes.items())
    assert 0 <= one.times_on("cpu").predict(7) < 1e6


def test_records_are_there_after_a_restart(tmp_path):
    RecordsFile(tmp_path).save([measured("a"), model("never loaded")])
    file = RecordsFile(tmp_path)
    assert file.recall(model("a").spec) == record_of(measured("a"))
    assert file.recall(model("never loaded").spec) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"m": 5}', b'{"m": {"resident_bytes": "many"}}', b"\xff\xfe", b'{"m": null}']
)
def test_a_damaged_file_of_records_is_as_good_as_none(tmp_path, content):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "records.json").write_bytes(content)
    assert RecordsFile(tmp_path).recall(model().spec) is None


def test_a_record_of_an_older_pool_that_knew_less_is_read():
    assert msgspec.json.decode(b'{"resident_bytes": 7}', type=Record) == Record(resident_bytes=7)
