import pytest
from local_models import ALGORITHMS, manifest

ALGORITHM = "demo/hello"


def test_a_name_is_greeted(algorithm):
    assert algorithm.apply("Ada") == "Hello Ada"


def test_the_name_is_given_back_as_it_came(algorithm):
    assert algorithm.apply("Ærøskøbing 🌍\n") == "Hello Ærøskøbing 🌍\n"


@pytest.mark.parametrize(
    ("input", "kind"),
    [(None, "nothing"), (7, "a number"), (True, "true or false"), ([], "a list"), ({}, "an object"), (b"", "bytes")],
)
def test_what_is_no_string_is_refused_by_its_name(refused, input, kind):
    assert refused(input) == f'expected a name as a string, such as "Ada", but got {kind}'


def test_the_sample_of_the_manifest_gives_what_the_manifest_says(algorithm):
    sample = manifest(ALGORITHMS / ALGORITHM)["sample"]
    assert algorithm.apply(sample["input"]) == sample["output"]
