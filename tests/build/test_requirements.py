"""Lines of requirements.txt: the harmless ones in one form, the others refused by number."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai_gateway.build.errors import InvalidRequirements
from serai_gateway.build.requirements import parse_requirements


def test_names_versions_extras_markers_and_comments_are_understood():
    text = """\ufeff# what we need
    NumPy >= 2.1, <3   # arrays

Pillow==12.0
uvicorn[standard]>=0.5 ; python_version >= "3.8"
zope.interface
numpy<3,>=2.1
""".lstrip("\ufeff")
    assert parse_requirements(text) == (
        "numpy<3,>=2.1",
        "pillow==12.0",
        'uvicorn[standard]>=0.5; python_version >= "3.8"',
        "zope-interface",
    )
    assert parse_requirements("") == parse_requirements("\n# nothing\n") == ()


HOSTILE = [
    "--index-url http://evil/simple",
    "--extra-index-url=http://evil",
    "-i http://evil",
    "-e git+ssh://git@evil/x",
    "-r /etc/passwd",
    "-c constraints.txt",
    "--find-links /tmp",
    "--trusted-host evil",
    "--pre",
    "--no-binary :all:",
    "--global-option=x",
    "numpy --global-option=x",
    "numpy==1.0 --hash=sha256:00",
    "numpy==1.0 \\",
    "x @ http://169.254.169.254/x.whl",
    "x @ file:///etc/passwd",
    "x@git+https://evil/x",
    "file:///etc/passwd",
    "http://evil/x.whl",
    "git+ssh://evil/x",
    "./local",
    "../up",
    "/abs/x.whl",
    ".",
    "C:\\x.whl",
    "x.whl; touch /tmp/x",
    "$(touch /tmp/x)",
    "${HOME}",
    "numpy==",
    "nump\u200by",
    "n\x00umpy",
    "x" * 2000,
    "x_",
    'x; python_version > "3"' + " and (" * 2000,
    'x; ' + "(" * 300,
]  # fmt: skip


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_everything_else_is_refused_with_its_line_number(line):
    with pytest.raises(InvalidRequirements, match=r"^requirements\.txt line 3: ") as error:
        parse_requirements(f"six\n# comment\n{line}\n")
    assert str(error.value).isprintable() and len(str(error.value)) < 300


def test_a_line_that_another_reader_would_see_as_two_is_two_here():
    with pytest.raises(InvalidRequirements, match="line 2"):
        parse_requirements("six\r--index-url http://evil")
    with pytest.raises(InvalidRequirements, match="line 2"):
        parse_requirements("six\x0b--index-url http://evil")


def test_there_is_an_end_to_how_many():
    assert len(parse_requirements("\n".join(f"p{n}" for n in range(500)))) == 500
    with pytest.raises(InvalidRequirements, match="line 501"):
        parse_requirements("\n".join(f"p{n}" for n in range(501)))


@settings(deadline=None)
@given(st.text(max_size=80))
def test_what_passes_is_a_name_and_nothing_that_an_installer_takes_for_more(text):
    try:
        found = parse_requirements(text)
    except InvalidRequirements:
        return
    for line in found:
        assert line[0].isalnum() and "://" not in line and " @ " not in line and "\n" not in line
        assert parse_requirements(line) == (line,)
