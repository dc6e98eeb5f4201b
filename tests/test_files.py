"""Files that are whole or not there, whatever kills the process that writes them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from ddf_tomo import _files
from ddf_tomo._files import replaced_when_complete

WRITER = """
import os, sys
from ddf_tomo._files import replaced_when_complete
with replaced_when_complete(sys.argv[1]) as partial:
    partial.write_text("half")
    print(partial, flush=True)
    {then}
"""


def start(path, then):
    """A process that is in the middle of writing, and its partial file."""
    command = [sys.executable, "-c", WRITER.format(then=then), str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def write(path, text="whole"):
    with replaced_when_complete(path) as partial:
        partial.write_text(text)


def test_what_a_killed_process_left_is_removed_by_the_next_writer(tmp_path):
    path = tmp_path / "volume [1].h5"  # no pattern
    process, partial = start(path, "sys.stdin.read()")
    process.kill()
    process.communicate(timeout=60)
    assert os.listdir(tmp_path) == [os.path.basename(partial)]
    write(tmp_path / "volume 1.h5")  # another name: not its business
    assert os.path.exists(partial)
    write(path)
    assert sorted(os.listdir(tmp_path)) == ["volume 1.h5", "volume [1].h5"]
    assert path.read_text() == "whole"


def test_a_living_writer_keeps_its_file(tmp_path):
    path = tmp_path / "volume.h5"
    process, partial = start(path, "sys.stdin.readline()")
    write(path, "ours")
    assert os.path.exists(partial)
    process.communicate("go on\n", timeout=60)
    assert process.returncode == 0
    assert path.read_text() == "half"  # the last one to finish
    assert os.listdir(tmp_path) == ["volume.h5"]


def test_files_of_other_machines_are_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "volume.h5"
    process, partial = start(path, "os.kill(os.getpid(), 9)")
    process.communicate(timeout=60)
    monkeypatch.setattr(_files.platform, "node", lambda: "elsewhere")
    write(path)
    assert os.path.exists(partial)


def test_a_process_of_the_same_number_long_ago(tmp_path):
    """In containers, where every run is process 1, a leftover bears the number of the one that looks."""
    path = tmp_path / "volume.h5"
    left = tmp_path / f".volume.h5.{_files._machine()}.{os.getpid()}.3.part"
    left.write_text("half")
    write(path)
    assert os.listdir(tmp_path) == ["volume.h5"]


def test_two_threads_write_to_one_name(tmp_path):
    path = tmp_path / "volume.h5"
    with replaced_when_complete(path) as first:
        first.write_text("first")
        other = threading.Thread(target=write, args=(path, "second"))
        other.start()
        other.join()
        assert path.read_text() == "second"
        assert first.read_text() == "first"
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["volume.h5"]
    assert not _files._writing


def test_the_contents_are_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    path, seen = tmp_path / "volume.h5", []
    path.write_text("old")
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(_files.os, "fsync", lambda handle: (seen.append(os.fstat(handle).st_size), fsync(handle)))
    monkeypatch.setattr(_files.os, "replace", lambda *names: (seen.append(path.read_text()), replace(*names)))
    write(path, "whole")
    assert seen[:2] == [5, "old"]


def test_a_disk_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "volume.h5"
    path.write_text("old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["volume.h5"]


def test_a_folder_that_changes_meanwhile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with replaced_when_complete("volume.h5") as partial:
        partial.write_text("whole")
        monkeypatch.chdir("/")
    assert (tmp_path / "volume.h5").read_text() == "whole"
