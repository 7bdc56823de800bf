"""Repositories of new algorithms, as Algorithmia's templates had them: an algorithmia.conf, and a file that says hello.

Pure. Names are the caller's to check; with `PLACEHOLDERS` for them the files are the template that clients download.
"""

import json
import re

from serai_gateway.build.languages import parse_conf_language

#: Owner and name in a template that is not yet an algorithm's.
PLACEHOLDERS = ("__USER__", "__ALGO__")
_WITH_FILES = re.compile(
    r"(bin/)?(java|scala|r|ruby|rust|csharp|c#|go|c|c\+\+)([0-9.-].*)?\Z", re.ASCII | re.IGNORECASE
)


class CannotMake(ValueError):
    """No algorithm can be made of what was asked for. `number` is Algorithmia's code for why."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


#: UnknownAlgorithmLanguage, UnsupportedAlgorithmLanguage, UnsupportedMachineType, PackageSetNotFound.
UNKNOWN, UNSUPPORTED, NO_SUCH_MACHINE, NO_SUCH_PACKAGE_SET = 4001, 4002, 4004, 1003


def template_files(language: str, owner: str, name: str) -> dict[str, bytes]:
    """Path to content of a repository that builds as it is, and answers "hello John" to "John".

    `language` is as Algorithmia's clients write it: python3, python3-1, python3.12, anaconda3, javascript.

    Raises CannotMake.
    """
    files = _FILES[check_language(language)]
    conf = {"username": owner, "algoname": name, "language": language}
    said = {"src/__init__.py": ""} if files is _PYTHON else {"package.json": _package(name)}
    said |= {"algorithmia.conf": json.dumps(conf, indent=4) + "\n"}
    said |= {path.replace(PLACEHOLDERS[1], name): text for path, text in files.items()}
    for placeholder, word in zip(PLACEHOLDERS, (owner, name), strict=True):
        said = {path: text.replace(placeholder, word) for path, text in said.items()}
    return {path: text.encode() for path, text in sorted(said.items())}


def check_language(language: str) -> str:
    """python or javascript, what runs it here. Raises CannotMake."""
    try:
        parsed = parse_conf_language(language)
    except ValueError as error:
        is_known = language.lower().startswith(("python", "anaconda"))
        raise CannotMake(UNSUPPORTED if is_known else UNKNOWN, str(error)) from None
    if parsed.name in _FILES:
        return parsed.name
    if _WITH_FILES.match(language):
        raise CannotMake(
            UNSUPPORTED,
            f'there is no template for "{language[:40]}"; create the algorithm as python3, then push a repository '
            "with bin/build, which makes it, and bin/pipe, which runs it",
        )
    raise CannotMake(UNKNOWN, f'"{language[:40]}" is not known; python3 and javascript are')


def _package(name: str) -> str:
    package = {"name": name.lower().strip("_") or "algorithm", "version": "1.0.0", "private": True, "dependencies": {}}
    return json.dumps(package, indent=2) + "\n"


_PYTHON = {
    "src/__ALGO__.py": '''\
def apply(input):
    """Called once for each input: a str, bytes, or whatever the JSON says. What it returns is the result."""
    return "hello {}".format(input)
''',
    "requirements.txt": "# One package a line, like numpy==2.1.0\n",
    "README.md": """\
# __USER__/__ALGO__

Says hello. `src/__ALGO__.py` is what runs, `requirements.txt` is what it may import.
""",
    ".gitignore": "__pycache__/\n*.pyc\n.venv/\n",
}
_JAVASCRIPT = {
    "src/__ALGO__.js": """\
/** Called once for each input: a string, a Buffer, or whatever the JSON says. cb(error, result) ends the call. */
exports.apply = function (input, cb) {
  cb(null, `hello ${input}`);
};
""",
    "README.md": """\
# __USER__/__ALGO__

Says hello. `src/__ALGO__.js` is what runs, `package.json` is what it may require.
""",
    ".gitignore": "node_modules/\n",
}
_FILES = {"python": _PYTHON, "javascript": _JAVASCRIPT}
