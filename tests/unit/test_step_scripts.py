"""What opens and closes a build's steps, run by the shell here."""

import subprocess

from kit import paths


def test_what_a_step_writes_at_once_is_newer_than_its_start(tmp_path):
    begin = (paths.templates_dir() / "begin.sh").read_text().replace("/dev/shm", str(tmp_path))
    assert str(tmp_path) in begin
    (tmp_path / "begin").write_text(begin)
    script = 'echo before > before; . ./begin; echo after > after; find before after -newer "$start"'
    for _ in range(30):
        done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, check=True, timeout=20)
        assert done.stdout == b"after\n"
