"""Files of the formats that are programs: what is taken, what is refused, and what the refusal says."""

import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai.ipc.messages import ModelSpec, TensorSpec
from serai_gpu_pool.formats import ModelFileError, pack_saved_model, sniff, unpack_saved_model
from serai_gpu_pool.formats.saved_model import allowed_operations, read_saved_model
from serai_gpu_pool.formats.torch_export import read_export
from serai_gpu_pool.formats.torchscript import read_torchscript
from serai_gpu_pool.formats.zip_file import ZipFile
from serai_gpu_pool.testing.formats import maker


@pytest.fixture(scope="module")
def made():
    return maker("torchscript")


@pytest.fixture(scope="module")
def tf_made():
    return maker("saved_model")


@pytest.fixture(scope="module")
def script(made) -> bytes:
    return made.net_script()


@pytest.fixture(scope="module")
def export(made) -> bytes:
    return made.net_export()


def refusal(read, data: bytes) -> str:
    with pytest.raises(ModelFileError) as error:
        read(memoryview(data))
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


def archive(members: dict[str, bytes], **options) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as written:
        for name, content in members.items():
            written.writestr(zipfile.ZipInfo(name), content, options.get("compression"))
    return file.getvalue()


# ── zip archives ─────────────────────────────────────────────────────────────────────────────────────────────


@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}(/[a-z]{1,6})?", fullmatch=True), st.binary(max_size=300), min_size=1))
@settings(max_examples=60, deadline=None)
def test_our_reader_sees_what_pythons_sees(members):
    names = set(members)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = archive(members, compression=compression)
        if any(name.partition("/")[0] in names for name in names if "/" in name):
            with pytest.raises(ModelFileError, match="lies below a file"):
                ZipFile(memoryview(data))
            return
        seen = ZipFile(memoryview(data))
        assert {name: seen.read(name) for name in seen.members} == members


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_archive_is_refused_or_reads_as_before(data):
    members = {"net/data.pkl": b"\x80\x02).", "net/code/a.py": b"def forward(): pass\n" * 20, "net/version": b"3\n"}
    whole = bytearray(archive(members, compression=zipfile.ZIP_DEFLATED))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        seen = ZipFile(memoryview(bytes(whole)))
        contents = {name: seen.read(name) for name in seen.members}
    except ModelFileError:
        return
    assert all(content in members.values() for content in contents.values())


@pytest.mark.parametrize("name", ["../x", "a/../x", "/x", "a//x", "a\\x", "a/", "a\x07b", "a/./x"])
def test_names_that_lead_elsewhere_are_refused(name):
    data = archive({"placeholder": b"x"}).replace(b"placeholder", name.encode().ljust(11, b"_")[:11])
    if len(name) < 11:  # lengths stand in the headers
        data = archive({name: b"x"}) if not name.endswith("/") else archive({"dir/": b""})
    assert "a member with the name" in refusal(ZipFile, data)


def test_an_encrypted_member_is_refused():
    data = bytearray(archive({"a": b"secret"}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refusal(ZipFile, bytes(data))


def test_members_that_overlap_are_refused():
    data = bytearray(archive({"a": b"x" * 50, "b": b"y" * 50}))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[second + 46 : second + 47] = b"a"  # both entries describe the first member
    struct.pack_into("<L", data, second + 42, 0)
    struct.pack_into("<L", data, second + 16, struct.unpack_from("<L", data, data.index(b"PK\x01\x02") + 16)[0])
    assert "overlaps" in refusal(ZipFile, bytes(data)) or "the same name" in refusal(ZipFile, bytes(data))


def test_a_member_that_would_unpack_to_a_gigabyte_is_refused_before_it_does():
    data = bytearray(archive({"a": bytes(1 << 20)}, compression=zipfile.ZIP_DEFLATED))
    central = data.index(b"PK\x01\x02")
    for at in (22, central + 24):
        struct.pack_into("<L", data, at, 1 << 30)
    assert "would unpack to" in refusal(ZipFile, bytes(data))


def test_many_members_that_unpack_to_much_together_are_refused(monkeypatch):
    monkeypatch.setattr("serai_gpu_pool.formats.zip_file.MAX_PACKED_BYTES", 1 << 20)
    seen = ZipFile(memoryview(archive({f"m{at}": bytes(400_000) for at in range(4)}, compression=zipfile.ZIP_DEFLATED)))
    with pytest.raises(ModelFileError, match="program text of more than 1 MiB"):
        for name in seen.members:
            seen.read(name)


def test_bytes_before_between_and_after_members_are_refused():
    data = archive({"a": b"x"})
    assert "another place" in refusal(ZipFile, b"#!/bin/sh\n" + data)
    assert "does not end" in refusal(ZipFile, data + b"more")


def test_a_member_that_is_described_in_two_ways_is_refused():
    data = bytearray(archive({"abc": b"x"}))
    data[30:33] = b"xyz"
    assert "in two ways" in refusal(ZipFile, bytes(data))


# ── what a file is ───────────────────────────────────────────────────────────────────────────────────────────


def test_formats_are_told_from_content(script, export):
    assert sniff(memoryview(script)) == "torchscript"
    assert sniff(memoryview(export)) == "torch_export"
    assert sniff(memoryview(b"\x08\x07\x12\x04test")) == "onnx"


def test_files_of_torch_save_are_refused_with_a_way_out(made):
    import torch

    for module_or_weights in (made.Net().state_dict(), [1, 2]):
        for new in (True, False):
            file = io.BytesIO()
            torch.save(module_or_weights, file, _use_new_zipfile_serialization=new)
            said = refusal(sniff, file.getvalue())
            assert "pickled Python objects" in said and "torch.jit.script(model).save" in said


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\x80\x04\x95" + b"x" * 20, "pickled Python objects"),
        (b"\x89HDF\r\n\x1a\n" + b"x" * 20, "model.export"),
        (b"\x1f\x8b" + b"x" * 20, "unpack it"),
        (b"\x20\0\0\0TFL3" + b"x" * 20, "TensorFlow Lite"),
        (b"\x10\0\0\0\0\0\0\0{" + b"x" * 40, "safetensors"),
        (b"\x7fELF" + b"x" * 20, "shared library"),
        (b"version https://git-lfs.github.com", "Git LFS"),
        (b"hello", "no model file of a known format"),
        (archive({"config.json": b"{}", "metadata.json": b"{}"}), r".keras file"),
        (archive({"serialized_exported_program.json": b"{}"}), "older PyTorch"),
        (archive({"a.txt": b"x"}), "neither TorchScript nor"),
    ],
)
def test_other_files_are_called_by_their_name(data, says):
    assert says in refusal(sniff, data)


# ── TorchScript ──────────────────────────────────────────────────────────────────────────────────────────────


def test_torchscript_that_pytorch_writes_is_taken(made, script):
    from serai_gpu_pool.testing import nets

    assert read_torchscript(memoryview(script)).num_nodes > 5
    assert read_torchscript(memoryview(made.trace(made.Net(), nets.example()))).format == "torchscript"


def program(text: str) -> bytes:
    return archive(
        {
            "net/data.pkl": b"\x80\x02c__torch__\nNet\n.",
            "net/constants.pkl": b"\x80\x02).",
            "net/version": b"3\n",
            "net/code/__torch__.py": text.encode(),
        }
    )


@pytest.mark.parametrize(
    "text",
    [
        'x = torch.from_file("/etc/passwd", False, 4)',
        'x = torch . from_file ("/etc/passwd")',
        'x = torch. # comment\n  from_file("/etc/passwd")',
        'x = torch.\\\nsave(y, "f")',
        'x = ops.aten.from_file("/etc/passwd")',
        "x = ops.mine.run(y)",
        "class A(__torch__.torch.classes.mine.Thing): pass",
        's = "a\\"b"; x = torch.save(y, "f")',
    ],
)
def test_program_text_that_reaches_out_is_refused(text):
    assert "its program calls" in refusal(read_torchscript, program(text))


@pytest.mark.parametrize(
    "text", ["x = torch.relu(y) # torch.save(", 'x = torch.add(y, "torch.save(")', "x = torch.neg(self.save)"]
)
def test_words_in_comments_text_and_other_places_are_no_calls(text):
    assert read_torchscript(memoryview(program(text))).num_nodes == 1


@pytest.mark.parametrize(
    "text",
    [
        "f = fork(__torch__.spin, x)",
        "f = fork\ng = f(__torch__.spin, x)",
        "y = torch.wait(f)",
        "g = awaitable(__awaitable_function)",
        "y = ops.prim.awaitable_wait(g)",
        'y = rpc_async("other", x)',
    ],
)
def test_program_text_that_goes_on_after_its_call_is_refused(text):
    assert "may not go on after their call" in refusal(read_torchscript, program(text))


def test_methods_and_attributes_may_be_called_fork_and_wait():
    text = "def wait(self):\n  return torch.relu((self).fork(self.wait))\n"
    assert read_torchscript(memoryview(program(text))).num_nodes == 1


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_quote_without_an_end_is_refused_at_once(quote):
    # Looking for its end anew at each of these would take minutes, and gigabytes of memory.
    for text in (quote + ("\\" + quote) * 2_000_000, (quote + "x\n") * 2_000_000, "x = " + quote):
        assert "a quote in it does not end" in refusal(read_torchscript, program(text))


def test_text_with_many_escaped_quotes_is_taken():
    assert read_torchscript(memoryview(program("x = torch.add('" + "\\'" * 500_000 + "')"))).num_nodes == 1


def test_program_text_beyond_its_limit_is_refused_before_it_is_read(monkeypatch):
    monkeypatch.setattr("serai_gpu_pool.formats.torchscript.MAX_TEXT_BYTES", 1 << 20)
    assert "of at most 1 MiB" in refusal(read_torchscript, program("x = torch.relu(y)\n" * 100_000))


def test_program_text_with_triple_quotes_is_refused():
    hidden = "x = '''it's''' + torch.save(y)  # '"
    assert "triple quotes" in refusal(read_torchscript, program(hidden))


def test_tables_may_only_refer_to_the_program_itself(script, made):
    for table in (
        b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00idtR.",
        b"\x80\x02cbuiltins\neval\n.",
        b"\x80\x02c__torch__.torch.classes.mine\nThing\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02(ios\nsystem\n.",
    ):
        changed = made.rewritten(script, lambda n, c, t=table: (n, t if n.endswith("/data.pkl") else c))
        assert "refers to" in refusal(read_torchscript, changed) or "not written by" in refusal(
            read_torchscript, changed
        )


@pytest.mark.parametrize("name", ["lib.so", "code/evil.so", "data/x", "bytecode.pkl"])
def test_parts_that_do_not_belong_into_torchscript_are_refused(script, made, name):
    assert "does not belong there" in refusal(read_torchscript, made.with_member(script, name, b"x"))


@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl", "version", "code/"])
def test_torchscript_without_one_of_its_parts_is_refused(script, made, name):
    changed = made.rewritten(script, lambda n, c: None if n.partition("/")[2].startswith(name) else (n, c))
    assert "TorchScript without" in refusal(read_torchscript, changed)


# ── torch.export ─────────────────────────────────────────────────────────────────────────────────────────────


def test_an_exported_graph_says_what_goes_in_and_out(export):
    found = read_export(memoryview(export))
    assert found.inputs == (TensorSpec("input", "float32", (-1, 1, 8, 8)),)
    assert found.outputs == (TensorSpec("output", "float32", (-1, 10)),)


def changed_json(made, export, name: str, change) -> bytes:
    def one(path: str, content: bytes):
        if not path.endswith(name):
            return path, content
        value = json.loads(content)
        change(value)
        return path, json.dumps(value).encode()

    return made.rewritten(export, one)


def test_rewriting_alone_changes_nothing(made, export):
    assert read_export(memoryview(changed_json(made, export, "model.json", lambda value: None)))


@pytest.mark.parametrize(
    "name",
    [
        "data/aotinductor/model/wrapper.cpp",
        "data/aotinductor/model/wrapper.so",
        "data/aotinductor/model/kernel.cubin",
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "data/executorch/model.pte",
    ],
)
def test_compiled_code_and_foreign_objects_are_refused(made, export, name):
    assert "compiled code or objects of its own" in refusal(read_export, made.with_member(export, name, b"x"))


@pytest.mark.parametrize(
    "name", ["data/weights/model.pt", "data/constants/model.pt", "evil.pkl", "data/weights/../../x"]
)
def test_parts_that_do_not_belong_into_an_export_are_refused(made, export, name):
    assert refusal(read_export, made.with_member(export, name, b"x"))


def test_pickled_weights_are_refused(made, export):
    def pickled(value):
        next(iter(value["config"].values()))["use_pickle"] = True

    data = changed_json(made, export, "weights_config.json", pickled)
    assert "plain tensors can be loaded without running code" in refusal(read_export, data)


def test_weights_larger_than_their_bytes_are_refused(made, export):
    def larger(value):
        next(iter(value["config"].values()))["tensor_meta"]["sizes"][0] = {"as_int": 1 << 39}

    assert "larger than its bytes" in refusal(read_export, changed_json(made, export, "weights_config.json", larger))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("torch.ops.aten.from_file.default", "may not reach files"),
        ("torch.ops.mine.run.default", "cannot be run here"),
        ("torch.load", "cannot be run here"),
        ("torch.hub.load", "cannot be run here"),
        ("_operator.methodcaller", "cannot be run here"),
        ("math.__loader__", "cannot be run here"),
        ("os.system", "cannot be run here"),
        ("#mine:run", "cannot be run here"),
    ],
)
def test_operations_from_elsewhere_are_refused(made, export, target, says):
    def other(value):
        value["graph_module"]["graph"]["nodes"][1]["target"] = target

    assert says in refusal(read_export, changed_json(made, export, "model.json", other))


def test_damaged_graphs_are_refused(made, export):
    def unknown(value):
        value["graph_module"]["graph"]["nodes"][1]["inputs"][0]["arg"] = {"as_tensor": {"name": "nowhere"}}

    def twice(value):
        nodes = value["graph_module"]["graph"]["nodes"]
        nodes.append(nodes[-1])

    def odd(value):
        value["graph_module"]["graph"]["nodes"][1]["inputs"][0]["arg"] = {"as_operator": "torch.load"}

    def newer(value):
        value["schema_version"]["major"] = 9

    for change, says in (
        (unknown, "before it is made"),
        (twice, "are called"),
        (odd, "kind as_operator"),
        (newer, "9"),
    ):
        assert says in refusal(read_export, changed_json(made, export, "model.json", change))
    deep = made.rewritten(export, lambda n, c: (n, b"[" * 100_000 if n.endswith("model.json") else c))
    assert "not as torch.export writes it" in refusal(read_export, deep)


@pytest.mark.parametrize("filling", ["[],", "{},", '"",'])
@pytest.mark.parametrize("where", ["model.json", "weights_config.json"])
def test_tables_that_unfold_to_gigabytes_are_refused_before_they_do(made, export, filling, where):
    bomb = ('{"config": {}, "more": [' + filling * 5_000_000).encode()
    data = made.rewritten(export, lambda n, c: (n, bomb if n.endswith(where) else c))
    assert "objects and lists, or" in refusal(read_export, data)


def test_names_of_outputs_that_unfold_to_gigabytes_are_not_read(made, export):
    """They are JSON inside of JSON, where the brackets can be written so that nobody sees them from outside."""

    def bomb(value):
        value["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = "[1, 0]" + "?" * 3_000_000

    def hidden(path, content):
        return path, content.replace(b"?", b"\\u005b") if path.endswith("model.json") else content

    whole = made.rewritten(changed_json(made, export, "model.json", bomb), hidden)
    assert "objects and lists, or" in refusal(read_export, whole)


def test_a_compressed_table_is_refused(export):
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(export)) as old, zipfile.ZipFile(file, "w") as new:
        for member in old.infolist():
            packed = zipfile.ZIP_DEFLATED if member.filename.endswith("model.json") else zipfile.ZIP_STORED
            new.writestr(zipfile.ZipInfo(member.filename), old.read(member), packed)
    assert "compressed, which torch.export.save does not do" in refusal(read_export, file.getvalue())


def test_a_model_that_keeps_state_is_refused(made):
    import torch

    class Counts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls.add_(1)
            return x + self.calls

    said = refusal(read_export, made.export(Counts(), np.zeros((2, 3), np.float32)))
    assert "calls" in said and "calls must not see each other" in said


def test_a_model_that_writes_to_a_view_of_a_weight_is_refused(made, tmp_path):
    import torch

    from serai_gpu_pool.frameworks.base import LoadError

    class Writes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("rows", torch.zeros(2, 3))

        def forward(self, x):
            self.rows.view(-1)[1:3].add_(1)
            return x + self.rows.sum()

    with pytest.raises(LoadError, match="calls must not see each other"):
        open_torch(tmp_path, made.export(Writes(), np.zeros((2, 3), np.float32)), "torch_export")


def test_sample_inputs_that_run_code_are_never_opened(made, export, tmp_path):
    """The archive's sample inputs are a program that leaves a file: nobody ever runs it."""
    mark = tmp_path / "was-here"
    code = b"\x80\x02cos\nmkdir\n(X" + struct.pack("<L", len(str(mark))) + str(mark).encode() + b"tR."
    inner = archive({"archive/data.pkl": code, "archive/version": b"3\n"})
    data = made.rewritten(export, lambda n, c: (n, inner if "sample_inputs" in n else c))
    assert read_export(memoryview(data))
    model = open_torch(tmp_path, data, "torch_export")
    from serai_gpu_pool.testing import nets

    assert model.run({"input": nets.example()}, ("output",))[0].shape == (3, 10)
    model.close()
    assert not mark.exists()


def open_torch(tmp_path, data: bytes, format: str, inputs=(), outputs=()):
    import hashlib

    from serai_gpu_pool.frameworks import registry
    from serai_gpu_pool.frameworks.base import Source

    path = tmp_path / "model"
    path.write_bytes(data)
    spec = ModelSpec("m", hashlib.sha256(data).hexdigest(), str(path), format, len(data), "alice", "", inputs, outputs)
    return registry.make("torch", "cpu", 1, 0).open(spec, Source(str(path)))


def test_graphs_with_branches_sizes_and_several_outputs_run_as_in_pytorch(made, tmp_path):
    import torch

    class Many(torch.nn.Module):
        def forward(self, x, y):
            with torch.no_grad():
                rows = x.shape[0]
                top, at = x.topk(2, dim=1)
                parts = torch.split(y, [1, 2], dim=1)
                chosen = torch.cond(x.sum() > 0, lambda a: a + 1, lambda a: a - 1, (x,))
                wide = torch.cat([parts[1], parts[0], x.view(rows, -1)], dim=1) * (rows * 2)
                filled = torch.full((rows, 2), 0.5, dtype=torch.float64)
            return {"top": top, "at": at, "chosen": chosen, "wide": wide, "filled": filled}

    x, y = np.random.default_rng(1).standard_normal((2, 3, 3)).astype(np.float32)
    data = made.export(Many(), x, y)
    found = read_export(memoryview(data))
    assert [one.name for one in found.outputs] == ["top", "at", "chosen", "wide", "filled"]
    model = open_torch(tmp_path, data, "torch_export")
    for rows in (1, 3):
        for sign in (1, -1):
            given = {"x": sign * np.abs(x[:rows]), "y": y[:rows]}
            expected = Many()(*map(torch.from_numpy, given.values()))
            results = model.run(given, tuple(expected))
            for name, result in zip(expected, results, strict=True):
                np.testing.assert_allclose(result, expected[name].numpy(), rtol=1e-6, err_msg=name)
    model.close()


def test_what_a_script_gives_has_to_be_what_is_declared(made, tmp_path):
    from serai_gpu_pool.device.stacking import ModelRunError

    x, wrong = TensorSpec("x", "int64", (-1,)), TensorSpec("y", "float64", (-1,))
    model = open_torch(tmp_path, made.script(made.TakesRow()), "torchscript", (x,), (wrong,))
    with pytest.raises(ModelRunError, match='output "y" is float32, and float64 is declared'):
        model.run({"x": np.array([1])}, ("y",))
    model.close()
    two = (TensorSpec("y", "float32", (-1,)), TensorSpec("z", "float32", (-1,)))
    model = open_torch(tmp_path, made.script(made.TakesRow()), "torchscript", (x,), two)
    with pytest.raises(ModelRunError, match="gave 1 outputs, not the 2"):
        model.run({"x": np.array([1])}, ("y", "z"))
    model.close()


def test_an_answer_beyond_memory_fails_as_out_of_memory(made, tmp_path):
    from serai_gpu_pool.device.stacking import ModelRunError

    x, y = TensorSpec("x", "int64", (1,)), TensorSpec("y", "float32", (-1,))
    model = open_torch(tmp_path, made.script(made.Explosion()), "torchscript", (x,), (y,))
    with pytest.raises(ModelRunError) as error:
        model.run({"x": np.array([1 << 46])}, ("y",))
    assert error.value.out_of_memory
    assert model.run({"x": np.array([3])}, ("y",))[0].tolist() == [0.0, 0.0, 0.0]
    model.close()


# ── SavedModel ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def folder(tf_made, tmp_path_factory) -> Path:
    return tf_made.save(tf_made.Net(), tmp_path_factory.mktemp("saved") / "net")


def packed(folder: Path) -> bytes:
    file = io.BytesIO()
    pack_saved_model(folder, file)
    return file.getvalue()


def test_a_folder_becomes_one_file_and_the_same_folder_again(folder, tmp_path):
    data = packed(folder)
    assert sniff(memoryview(data)) == "saved_model"
    unpack_saved_model(memoryview(data), tmp_path / "again")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    kept = {
        path.relative_to(tmp_path / "again").as_posix() for path in (tmp_path / "again").rglob("*") if path.is_file()
    }
    assert names - kept == {"fingerprint.pb"}
    assert all((tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes() for name in kept)
    os.utime(folder / "saved_model.pb", (1, 1))
    assert packed(folder) == data == packed(tmp_path / "again")


def test_a_saved_model_says_what_goes_in_and_out(folder):
    found = read_saved_model(memoryview(packed(folder)))
    assert found.inputs == (TensorSpec("input", "float32", (-1, 1, 8, 8)),)
    assert found.outputs == (TensorSpec("output", "float32", (-1, 10)),)


@pytest.mark.parametrize("name", ["evil.py", "variables/../x", "custom_op.so", "variables/more"])
def test_other_files_in_a_saved_model_are_refused(folder, tmp_path, name):
    copy = tmp_path / "copy"
    unpack_saved_model(memoryview(packed(folder)), copy)
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_bytes(b"x")
    with pytest.raises(ModelFileError, match="is no part of a SavedModel"):
        pack_saved_model(copy, io.BytesIO())


def test_folders_that_are_no_saved_model_are_explained(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ModelFileError, match=r"tf\.saved_model\.save writes such a folder"):
        pack_saved_model(tmp_path, io.BytesIO())
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ModelFileError, match="not a plain file"):
        pack_saved_model(tmp_path, io.BytesIO())


def test_saved_models_that_reach_out_are_refused(tf_made, tmp_path):
    for module, operation in (
        (tf_made.CallsPython(), "PyFunc"),
        (tf_made.WritesFile("/tmp/x"), "WriteFile"),
        (tf_made.ReadsFile(), "ReadFile"),
    ):
        data = packed(tf_made.save(module, tmp_path / operation))
        assert f"operation {operation}" in refusal(read_saved_model, data).replace("Eager", "")


def disguised(folder: Path, change) -> bytes:
    """A model whose function that is called takes the name of those that TensorFlow writes for saving."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString((folder / "saved_model.pb").read_bytes())
    graph = model.meta_graphs[0]
    called = next(one for one in graph.graph_def.library.function if "signature_wrapper" in one.signature.name)
    saver = graph.graph_def.library.function.add()
    saver.CopyFrom(called)
    saver.signature.name = "__inference__traced_restore_999"
    saver.node_def.add(name="save", op="SaveV2")
    change(graph, called.signature.name, saver)
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    return packed(folder)


def of_objects(graph, called, saver):
    """The object graph names it: that decides what TensorFlow runs for a signature."""
    objects = graph.object_graph_def
    objects.concrete_functions[saver.signature.name].CopyFrom(objects.concrete_functions[called])
    for node in objects.nodes:
        names = node.function.concrete_functions
        if called in names:
            names[:] = [saver.signature.name if name == called else name for name in names]


def of_one_object(graph, called, saver):
    graph.object_graph_def.nodes.add().bare_concrete_function.concrete_function_name = saver.signature.name


def of_the_graph(graph, called, saver):
    """Without objects TensorFlow runs the nodes of the graph."""
    graph.ClearField("object_graph_def")
    graph.graph_def.node.add(name="n", op="PartitionedCall").attr["f"].func.name = saver.signature.name


def of_those_that_stand_in(graph, called, saver):
    saver.attr["api_implements"].s = b"lookup"


@pytest.mark.parametrize("change", [of_objects, of_one_object, of_the_graph, of_those_that_stand_in])
def test_a_function_that_saves_may_be_run_by_nothing(tf_made, tmp_path, change):
    folder = tf_made.save(tf_made.Net(), tmp_path / "m")
    said = refusal(read_saved_model, disguised(folder, change))
    assert said.startswith("function __inference__traced_restore_") and "writes or reads files" in said


def test_a_function_that_nobody_calls_may_save(tf_made, tmp_path):
    folder = tf_made.save(tf_made.Net(), tmp_path / "m")
    assert read_saved_model(memoryview(disguised(folder, lambda *_: None)))


def test_a_function_with_two_names_is_refused(tmp_path):
    from serai_gateway.build.testing import onnx_fields

    names = onnx_fields((1, b"__inference__traced_save_1"), (1, b"called"))
    function = onnx_fields((1, names), (3, onnx_fields((1, b"n"), (2, b"SaveV2"))))
    graph = onnx_fields((2, onnx_fields((1, function))))
    (tmp_path / "saved_model.pb").write_bytes(onnx_fields((1, 1), (2, onnx_fields((2, graph)))))
    assert "a function with no name, or with several" in refusal(read_saved_model, packed(tmp_path))


def test_a_model_with_a_table_of_words_is_taken(tf_made, tmp_path):
    import tensorflow as tf

    class Looks(tf.Module):
        def __init__(self):
            super().__init__()
            keys, values = tf.constant([1, 2], tf.int64), tf.constant([10.0, 20.0])
            self.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -1.0)
            self.table.insert(keys, values)
            self.fixed = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="x")])
        def __call__(self, x):
            return {"y": self.table.lookup(x) + self.fixed.lookup(x)}

    assert read_saved_model(memoryview(packed(tf_made.save(Looks(), tmp_path / "m"))))


def test_a_saved_model_without_its_signature_is_refused(tf_made, tmp_path):
    net = tf_made.Net()
    data = packed(tf_made.save(net, tmp_path / "m", other=net.__call__.get_concrete_function()))
    assert "no signature serving_default (it has: other)" in refusal(read_saved_model, data)


def test_a_damaged_graph_is_refused(folder, tmp_path):
    copy = tmp_path / "copy"
    unpack_saved_model(memoryview(packed(folder)), copy)
    whole = (folder / "saved_model.pb").read_bytes()
    for content in (b"", b"junk", whole[: len(whole) // 2]):
        (copy / "saved_model.pb").write_bytes(content)
        assert refusal(read_saved_model, packed(copy))


def test_the_list_of_operations_is_of_tensorflow_and_reaches_nothing(tf_made):
    from tensorflow.python.framework import op_def_registry

    allowed = allowed_operations()
    assert {"Conv2D", "MatMul", "StatefulPartitionedCall", "While"} <= allowed
    for name in allowed:
        assert op_def_registry.get(name) is not None, name
    refused = ("PyFunc", "EagerPyFunc", "ReadFile", "WriteFile", "PrintV2", "SaveV2", "WholeFileReaderV2", "Abort")
    assert not allowed & {*refused, "MatchingFiles", "ImmutableConst", "MlirPassthroughOp", "RpcClient", "XlaLaunch"}
