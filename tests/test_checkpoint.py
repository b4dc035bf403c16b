"""A directory of checkpoints: written whole or not at all, the newest whole one found, locked."""

import errno
import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from convnet import checkpoint_file
from convnet.checkpoint import (
    NewerVersion,
    checkpoint_name,
    checkpoints,
    lock,
    newest_valid,
    prune,
    save,
    verify,
)
from convnet.errors import CannotCreate, MissingInput, WriteFailed


def save_some(directory, epoch=1, batch=1):
    tensors = {"w": np.arange(5000, dtype=np.float32)}
    return save(directory, checkpoint_name(epoch, batch), {"epoch": epoch}, tensors)


def names(directory):
    return sorted(os.listdir(directory))


def damage(path):
    """Changes one of the weights."""
    two_weights = np.array([2500, 2501], np.float32).tobytes()
    path.write_bytes(path.read_bytes().replace(two_weights, bytes(8)))


def run_python(code, *args, **kwargs):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], text=True,
                            stdout=subprocess.PIPE, stdin=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, **kwargs)


@pytest.mark.parametrize("name", ["../1.1.ckpt", ".1.ckpt", "1.1", ""])
def test_a_name_that_is_no_checkpoint_s_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="expected a file name"):
        save(tmp_path, name, {}, {})


# The newest that is whole

def test_the_newest_is_by_number_not_by_letters(tmp_path):
    for epoch, batch in [(9, 1), (10, 2), (10, 10), (2, 99)]:
        save_some(tmp_path, epoch, batch)
    assert newest_valid(tmp_path) == (tmp_path / "10.10.ckpt", [])


def test_a_damaged_newest_gives_way_to_an_older_one_and_is_named(tmp_path):
    for epoch in (1, 2, 3, 4):
        save_some(tmp_path, epoch)
    damage(tmp_path / "4.1.ckpt")
    (tmp_path / "3.1.ckpt").write_bytes(b"")
    path, warnings = newest_valid(tmp_path)
    assert path == tmp_path / "2.1.ckpt"
    about_4, about_3 = warnings
    assert "4.1.ckpt" in about_4 and "tensor w" in about_4
    assert "3.1.ckpt" in about_3


def test_without_a_whole_one_there_is_none(tmp_path):
    assert newest_valid(tmp_path) == (None, [])
    damage(save_some(tmp_path))
    path, warnings = newest_valid(tmp_path)
    assert path is None and len(warnings) == 1


def test_files_with_other_names_are_no_checkpoints(tmp_path):
    for name in ["1.1", "01.1.ckpt", "1.ckpt", "1.1.ckpt.bak", ".1.1.ckpt.77.tmp", "-1.1.ckpt"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "2.1.ckpt").mkdir()
    assert checkpoints(tmp_path) == []


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(MissingInput, match=r"absent: .*No such file"):
        newest_valid(tmp_path / "absent")


def test_a_newer_version_is_refused_and_no_older_file_takes_its_place(tmp_path, monkeypatch):
    save_some(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_file, "VERSION", 2)
        save_some(tmp_path, 2)
    with pytest.raises(NewerVersion, match=r"2\.1\.ckpt: format version 2; this convnet reads"):
        newest_valid(tmp_path)


# A write that fails leaves what was there

def check_intact(directory, before):
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert newest_valid(directory)[0] == directory / "1.1.ckpt"


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("name", ["1.1.ckpt", "1.2.ckpt"])
def test_a_full_disk_leaves_the_older_files(tmp_path, monkeypatch, function, name):
    path = save_some(tmp_path)
    before = {path.name: path.read_bytes()}

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(WriteFailed, match=rf"{name}: .*No space left on device; .*make room"):
        save(tmp_path, name, {}, {"t": np.ones(4)})
    check_intact(tmp_path, before)


def test_a_write_that_is_cut_short_leaves_the_older_files(tmp_path):
    path = save_some(tmp_path)
    before = {path.name: path.read_bytes()}
    child = run_python("""if True:
        import resource, sys
        import numpy as np
        from convnet.checkpoint import save
        from convnet.errors import WriteFailed
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        try:
            save(sys.argv[1], "1.2.ckpt", {}, {"a": np.ones(100), "t": np.ones(1_000_000)})
        except WriteFailed as error:
            print(error)
            sys.exit(error.exit_code)
        """, tmp_path)
    output, _ = child.communicate(timeout=30)
    assert child.returncode == 74
    assert "checkpoint of 8.0 MB: File too large" in output
    check_intact(tmp_path, before)


def test_an_interrupt_leaves_the_older_files_and_is_passed_on(tmp_path, monkeypatch):
    path = save_some(tmp_path)
    before = {path.name: path.read_bytes()}

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, "1.2.ckpt", {}, {})
    check_intact(tmp_path, before)


def test_the_file_is_synced_before_it_gets_its_name_and_the_directory_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(handle):
        calls.append("directory" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        fsync(handle)

    def logged_replace(source, target):
        verify(source)  # it is all there already
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    save_some(tmp_path)
    assert calls == ["file", "replace", "directory"]


# Pruning

def test_prune_keeps_the_newest_and_the_best(tmp_path):
    for batch in range(1, 7):
        save_some(tmp_path, 1, batch)
    removed = prune(tmp_path, keep=2, best="1.3.ckpt")
    assert names(tmp_path) == ["1.3.ckpt", "1.5.ckpt", "1.6.ckpt"]
    assert sorted(path.name for path in removed) == ["1.1.ckpt", "1.2.ckpt", "1.4.ckpt"]


def test_prune_does_not_count_the_best_among_the_newest_twice(tmp_path):
    for batch in (1, 2, 3):
        save_some(tmp_path, 1, batch)
    prune(tmp_path, keep=2, best="1.3.ckpt")
    assert names(tmp_path) == ["1.2.ckpt", "1.3.ckpt"]


def test_prune_touches_nothing_that_is_not_ours(tmp_path):
    (tmp_path / "0.1").write_bytes(b"a pickle of the original")
    (tmp_path / "0.2.ckpt").write_bytes(b"a checkpoint of another program")
    with zipfile.ZipFile(tmp_path / "0.3.ckpt", "w") as archive:
        archive.writestr("data.pkl", b"torch's are zips too")
    (tmp_path / "0.4.ckpt").mkdir()
    outside = save_some(tmp_path / "0.4.ckpt")
    (tmp_path / "0.5.ckpt").symlink_to(outside)
    before = names(tmp_path)
    for batch in (1, 2, 3):
        save_some(tmp_path, 9, batch)
    prune(tmp_path, keep=1)
    assert names(tmp_path) == [*before, "9.3.ckpt"]
    assert outside.exists()


def test_prune_does_not_count_a_truncated_file(tmp_path):
    for batch in (1, 2, 3):
        save_some(tmp_path, 1, batch)
    (tmp_path / "1.3.ckpt").write_bytes((tmp_path / "1.3.ckpt").read_bytes()[:-100])
    prune(tmp_path, keep=1)
    assert newest_valid(tmp_path)[0] == tmp_path / "1.2.ckpt"
    assert names(tmp_path) == ["1.2.ckpt", "1.3.ckpt"]


def test_prune_refuses_to_keep_none(tmp_path):
    with pytest.raises(ValueError, match="keep=0"):
        prune(tmp_path, keep=0)


# The lock

HOLD = """if True:
    import sys
    from convnet.checkpoint import lock
    with lock(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.read()
    """


def test_a_directory_held_by_another_process_is_refused_until_it_ends(tmp_path):
    child = run_python(HOLD, tmp_path / "run")
    try:
        assert child.stdout.readline() == "held\n"
        refusal = rf"run: in use by process {child.pid} on .*--save-path"
        with pytest.raises(CannotCreate, match=refusal), lock(tmp_path / "run"):
            pass
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=30)
    with lock(tmp_path / "run") as directory:
        assert directory == tmp_path / "run"


def test_the_lock_ends_with_its_block_even_by_an_exception(tmp_path):
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    with lock(tmp_path):
        pass


def test_one_process_cannot_hold_a_directory_twice(tmp_path):
    again = pytest.raises(CannotCreate, match=f"in use by process {os.getpid()}")
    with lock(tmp_path), again, lock(tmp_path):
        pass


def test_the_lock_makes_the_directory(tmp_path):
    with lock(tmp_path / "a" / "b") as directory:
        assert directory.is_dir()


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with (pytest.raises(CannotCreate, match=r"file/run: cannot .*Not a directory"),
          lock(tmp_path / "file" / "run")):
        pass


def test_the_lock_clears_what_a_killed_run_was_writing_and_nothing_else(tmp_path):
    save_some(tmp_path)
    for name in [".1.2.ckpt.4711.tmp", "notes.tmp", ".hidden"]:
        (tmp_path / name).write_bytes(b"PK")
    with lock(tmp_path):
        assert names(tmp_path) == [".hidden", ".lock", "1.1.ckpt", "notes.tmp"]
