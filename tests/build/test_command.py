"""Commands of a build: their output, their limits, and that nothing of them outlives us."""

import os
import select
import signal
import sys

import pytest

from serai_gateway.build import command
from serai_gateway.build.build_log import MAX_LOG_CHARS, BuildLog
from serai_gateway.build.command import MAX_LINE_CHARS, run_command
from serai_gateway.build.errors import BuildError


@pytest.fixture
def run(tmp_path):
    def run_python(code, timeout_s=30.0, **limits):
        lines = []
        argv = (sys.executable, "-I", "-S", "-c", code)
        env = {"PATH": os.environ["PATH"], "A": "b"}
        finished = run_command(argv, cwd=tmp_path, env=env, timeout_s=timeout_s, log=lines.append, **limits)
        return finished, lines

    return run_python


def test_output_comes_line_by_line_without_anything_that_moves_a_cursor(run):
    finished, lines = run(
        r"print('one\n\n\x1b[31mtwo\x1b[0m\r\x00'); print('\udcff'.encode('latin1', 'replace'), flush=True); 1/0"
    )
    assert (finished.code, lines[:3]) == (1, ["one", "two", "b'?'"])
    assert finished.tail == "\n".join(lines) and lines[-1].startswith("ZeroDivisionError")


def test_the_second_set_of_controls_steers_no_terminal_either():
    assert command.clean_line("a\x9b31m\x85b\tc") == "a31mb\tc"


def test_it_sees_the_environment_it_was_given_and_no_input(run):
    _, lines = run("import os, sys; print(sorted(set(os.environ) - {'LC_CTYPE'}), sys.stdin.read())")
    assert lines == ["['A', 'PATH']"]


def test_a_flood_without_a_newline_is_cut_into_lines(run):
    _, lines = run("print('x' * 1_000_000)")
    assert sum(map(len, lines)) <= 1_000_000 and max(map(len, lines)) <= MAX_LINE_CHARS


def test_of_very_much_output_the_last_lines_are_known_and_one_without_end_is_stopped(run, monkeypatch):
    finished, lines = run("print('x\\n' * 5_000_000, end=''); print('end')")
    assert finished.tail.endswith("end") and len(lines) < 3_000_000
    monkeypatch.setattr(command, "MAX_OUTPUT_BYTES", 1 << 20)
    with pytest.raises(BuildError, match="printed more than 1 MiB and was stopped"):
        run("while True: print()")


def wait_for_end(pid):
    """Until the process is gone; fails after 20 s."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(20_000), f"process {pid} still runs"
    finally:
        os.close(descriptor)


FORKING = "import os, time; print(os.getpid() if os.fork() else os.getpid(), flush=True); time.sleep(1000)"


def test_a_command_that_takes_too_long_is_killed_with_its_children(run):
    with pytest.raises(BuildError, match=r"took longer than 0\.5 s"):
        run(FORKING, timeout_s=0.5)
    with pytest.raises(BuildError, match="took longer"):
        run("import os, time; os.close(1); os.close(2); time.sleep(1000)", timeout_s=0.5)


def test_what_a_command_leaves_running_is_killed(run):
    finished, (left_behind,) = run(
        """
import os, time
read, write = os.pipe()
if os.fork():
    os.read(read, 1)
    os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
os.close(2)
os.write(write, b"x")
time.sleep(1000)
"""
    )
    assert finished.code == 0
    wait_for_end(int(left_behind))


def test_a_command_dies_with_the_process_that_runs_it(tmp_path):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = f"import os, time; os.write({write}, b'%d\\n' % os.getpid()); time.sleep(1000)"
        os.set_inheritable(write, True)
        try:
            import subprocess

            whole = subprocess.Popen
            subprocess.Popen = lambda *args, **rest: whole(*args, **rest, pass_fds=(write,))  # type: ignore
            run_command((sys.executable, "-c", code), cwd=tmp_path, env={}, timeout_s=900, log=print)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        command = int(pipe.readline())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_for_end(command)


def test_limits_on_memory_and_file_size_hold(run):
    finished, lines = run("x = bytearray(1 << 30)", max_memory_bytes=256 << 20)
    assert finished.code != 0 and "MemoryError" in lines[-1]
    finished, _ = run("open('big', 'wb').write(bytes(2 << 20))", max_file_bytes=1 << 20)
    assert finished.code != 0


def test_a_log_has_an_end_and_still_says_how_it_ended():
    passed_on = []
    log = BuildLog(passed_on.append)
    for number in range(3000):
        log("x" * 1000 + f"\n{number}")
    log.last("failed: because")
    assert len(log.text) <= MAX_LOG_CHARS
    assert log.text.endswith("the log is cut here: it is longer than 1 MiB\nfailed: because")
    assert "\n".join(passed_on) == log.text


def test_how_a_build_ended_is_passed_on_in_one_piece():
    passed_on = []
    log = BuildLog(passed_on.append)
    log("first\nsecond")
    log.last("failed: because\nof \x1b[2Jthis")
    assert passed_on == ["first", "second", "failed: because\nof this"]
    assert log.text == "first\nsecond\nfailed: because\nof this"
