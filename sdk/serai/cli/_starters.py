"""The working algorithms that `serai new` writes: per language, path to text. Each says hello."""

import sys

_MANIFEST = """\
[algorithm]
owner = "{owner}"
name = "{name}"
tagline = "Says hello"
language = "{language}"
{entry}
[limits]
timeout = "30s"
memory = "512MiB"
concurrency = 1                     # calls that one process handles at once

[permissions]
network = false
calls = false                       # may call other algorithms

[sample]
input = "HAL"
"""

_README = """\
# {name}

Says hello to whoever is named.

```
serai call {owner}/{name} -d HAL
```

{files}
"""

_PYTHON = '''\
def apply(input):
    """Called once for each input: a str, bytes, or whatever the JSON says. What it returns is the result."""
    return f"Hello, {input}"
'''

_JAVASCRIPT = """\
// Called once for each input: a string, a Buffer, or whatever the JSON says. What it returns is the result.
exports.apply = async function (input) {
  return `Hello, ${input}`;
};
"""

_PACKAGE = """\
{{
  "name": "{package}",
  "version": "1.0.0",
  "private": true,
  "dependencies": {{}}
}}
"""

_BUILD = """\
#!/bin/sh
# Runs once when the algorithm is published, without network. It makes bin/pipe, which is what runs.
set -e
cc -std=c99 -O2 -Wall -o bin/pipe src/main.c
"""

_C = r"""/* Speaks the pipe protocol: a request is a line of JSON on stdin, its answer goes into /tmp/algoout. */
#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <string.h>

/* A request with a text begins with one of these, and ends with a quote, a brace and the end of the line. */
static const char *const STARTS[] = {
    "{\"content_type\":\"text\",\"data\":\"",
    "{\"content_type\":\"json\",\"data\":\"",
};
static const long END = 3;

static void answer(FILE *out, const char *line, long length) {
  for (int i = 0; i < 2; i++) {
    long start = (long)strlen(STARTS[i]);
    if (strncmp(line, STARTS[i], (size_t)start) == 0 && length >= start + END) {
      /* What is between is a JSON string without its quotes, and goes into another one as it is. */
      fprintf(out, "{\"result\":\"Hello, %.*s\",\"metadata\":{\"content_type\":\"text\"}}", (int)(length - start - END),
              line + start);
      return;
    }
  }
  fputs("{\"error\":{\"message\":\"send a text\",\"error_type\":\"InputError\"}}", out);
}

int main(void) {
  char *line = NULL;
  size_t size = 0;
  long length;
  printf("PIPE_INIT_COMPLETE\n"); /* ready for requests */
  fflush(stdout);
  while ((length = (long)getline(&line, &size, stdin)) > 0) {
    FILE *out = fopen("/tmp/algoout", "w");
    if (out == NULL) return 1;
    answer(out, line, length);
    fclose(out);
  }
  return 0;
}
"""

LANGUAGES = ("python", "javascript", "c")


def starter(language: str, owner: str, name: str) -> dict[str, str]:
    """Path to text of a new algorithm. What lies in bin/ is to be executable."""
    make = {"python": _python, "javascript": _javascript, "c": _c}[language]
    return make(owner, name)


def module_name(name: str) -> str:
    """The module under src/: the algorithm's name, unless Python could not import it or means another by it."""
    module = name.replace("-", "_")
    return f"{module}_algorithm" if module in sys.stdlib_module_names or module == "serai" else module


def _python(owner: str, name: str) -> dict[str, str]:
    module = module_name(name)
    entry = "" if module == name else f'entry = "{module}"  # src/{module}.py\n'
    files = (
        f"`src/{module}.py` is the algorithm, `requirements.txt` the packages it needs, `algorithm.toml` all the rest."
    )
    return {
        "algorithm.toml": _MANIFEST.format(owner=owner, name=name, language="python", entry=entry),
        f"src/{module}.py": _PYTHON,
        "README.md": _README.format(owner=owner, name=name, files=files),
        "requirements.txt": "",
        ".gitignore": "__pycache__/\n.venv/\n",
    }


def _javascript(owner: str, name: str) -> dict[str, str]:
    files = f"`src/{name}.js` is the algorithm, `package.json` the packages it needs, `algorithm.toml` all the rest."
    return {
        "algorithm.toml": _MANIFEST.format(owner=owner, name=name, language="javascript", entry=""),
        f"src/{name}.js": _JAVASCRIPT,
        "package.json": _PACKAGE.format(package=name.lower()),
        "README.md": _README.format(owner=owner, name=name, files=files),
        ".gitignore": "node_modules/\n",
    }


def _c(owner: str, name: str) -> dict[str, str]:
    files = (
        "`src/main.c` is the algorithm, `bin/build` compiles it when it is published, `algorithm.toml` is all the rest."
    )
    return {
        "algorithm.toml": _MANIFEST.format(owner=owner, name=name, language="pipe", entry=""),
        "src/main.c": _C,
        "bin/build": _BUILD,
        "README.md": _README.format(owner=owner, name=name, files=files),
        ".gitignore": "bin/pipe\n",
    }
