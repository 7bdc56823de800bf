"""Make an algorithm's code ready to run: its packages, what its own build makes, its bytecode. By language."""

import json
from pathlib import Path

import msgspec

from serai_gateway.build import algorithmia_conf, bin_build, environment, manifest, node_environment, requirements
from serai_gateway.build.box import python_problem
from serai_gateway.build.built_tree import take_built
from serai_gateway.build.bytecode import compile_python
from serai_gateway.build.command import Log
from serai_gateway.build.errors import BuildError, InvalidManifest
from serai_gateway.build.manifest import Manifest
from serai_gateway.build.sections import FILE
from serai_gateway.build.tree import Tree
from serai_runner import pythons
from serai_runner.sandbox.base import ALGORITHM


def make_code(about: Manifest, files: Path, tree: Tree, home: Path, log: Log) -> tuple[Manifest, str | None, Tree]:
    """The manifest with the Python that it will run on, the key of its environment, and the tree as it is then.

    `files` is our own copy, and `tree` what was copied. Code that nothing but the author wrote keeps its hash; where
    commands of others ran, the hash is that of what they left.

    Raises BuildError.
    """
    if about.language == "python":
        return _python(about, files, tree, home, log)
    key = None
    if about.language == "javascript":
        _write_conf(about, files)
        key = node_environment.ensure_node_environment(files, home, log)
        if key:
            node_environment.link_packages(files)
    was_built = _build(about, files, home, key, log)
    tree = take_built(files, ALGORITHM, known_links={"node_modules": node_environment.LINK})
    if about.language != "javascript" or bin_build.brings_pipe(files):
        bin_build.check_pipe(files, was_built=was_built)
    else:
        node_environment.check_javascript(files, about.entry, home)
    return about, key, tree


def _python(about: Manifest, files: Path, tree: Tree, home: Path, log: Log) -> tuple[Manifest, str | None, Tree]:
    python = _version(about, log)
    key = _python_environment(about, python, files, home, log)
    if key:
        # What was installed for one Python does not run on the next one that Serai itself may run on.
        about = msgspec.structs.replace(about, python=python or pythons.OURS)
    else:
        about = msgspec.structs.replace(about, python=python)
    if problem := python_problem(home, about.python):
        raise InvalidManifest(f"{FILE}: algorithm.language: {problem}")
    if about.kind == "algorithmia" and _build(about, files, home, key, log):
        tree = take_built(files, ALGORITHM)
    if about.kind == "algorithmia" and bin_build.brings_pipe(files):
        bin_build.check_pipe(files, was_built=False)
        if not (files / "src" / f"{about.entry}.py").is_file():
            return about, key, tree  # it knows itself what to run
    compile_python(files, about.entry, python)
    return about, key, tree


def _version(about: Manifest, log: Log) -> str:
    """The Python that it asks for, if it is here. Raises InvalidManifest."""
    try:
        pythons.find(about.python)
    except pythons.UnknownPython as error:
        if about.kind == "algorithmia":
            # They name what Algorithmia had; most run on what came after it, too.
            log(f"Python {about.python} is not installed on this server; taking {pythons.OURS}")
            return ""
        have = ", ".join(f"python{version}" for version in pythons.installed())
        raise InvalidManifest(
            f'{FILE}: algorithm.language: {error}; write one of {have}, or "python" for {pythons.OURS}'
        ) from None
    return about.python


def _python_environment(about: Manifest, python: str, files: Path, home: Path, log: Log) -> str | None:
    path = files / requirements.FILE
    if not path.is_file() and (files / "environment.yml").is_file():
        raise InvalidManifest(
            "environment.yml: conda environments are not made here; list packages in requirements.txt"
        )
    text = manifest.read_text(path) if path.is_file() else ""
    with_sdk = about.permissions.calls and about.kind == "python"
    return environment.ensure_environment(text, home, log, python=python, with_sdk=with_sdk)


def _build(about: Manifest, files: Path, home: Path, key: str | None, log: Log) -> bool:
    """Run bin/build, if that is what makes this code; whether it did."""
    if not bin_build.needs_bin_build(files, about.language):
        if (files / bin_build.BUILD).is_file():
            log(f"{bin_build.BUILD} is not run: packages are installed already, and there is no {bin_build.PIPE}")
        return False
    bin_build.run_bin_build(files, home, home / "environments" / key if key else None, log)
    return True


def _write_conf(about: Manifest, files: Path) -> None:
    """What starts an algorithm inside reads its language there; algorithm.toml, where there is one, decides it."""
    place = files / algorithmia_conf.FILE
    if (files / FILE).is_file():
        place.unlink(missing_ok=True)
        conf = {"username": about.owner, "algoname": about.name, "language": about.language}
        place.write_text(json.dumps(conf) + "\n")
    elif not place.is_file():
        raise BuildError(f"there is no {FILE} and no {algorithmia_conf.FILE}")
