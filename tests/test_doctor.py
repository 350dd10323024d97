"""The doctor tries each part, goes on after one that fails, says what to do; what it finds decides the exit code."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgi2v.cli import main
from sgi2v.cli.doctor import BAD, GOOD, NOTE, Found, places, studio, tried, versions
from sgi2v.errors import FieldError


def test_this_installation_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--port", "0", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if not line.lstrip().startswith("->")]
    parts = {line[6:15].strip() for line in lines[:-1]}
    assert {"python", "packages", "device", "folder", "clip", "port", "browser"} <= parts
    assert lines[-1].startswith("all is well") and BAD not in out and err == ""
    assert "two guided steps in" in out and not list(tmp_path.iterdir())


def test_what_fails_is_said_and_the_rest_is_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Iterator[Found]:
        yield Found(part="device", said="one")
        raise RuntimeError("no kernel\nimage")

    first, second = tried("device", broken)
    assert first.state == GOOD and (second.state, second.part) == (BAD, "device")
    assert second.said == "RuntimeError: no kernel image" and "docs/install.md" in second.remedy
    assert str(second).count("\n") == 1 and "-> install anew" in str(second)

    def refused() -> Iterator[Found]:
        yield from ()
        raise FieldError("device", "'abacus' cannot be used here", "try cpu")

    (one,) = tried("clip", refused)
    assert (one.said, one.remedy) == ("'abacus' cannot be used here", "try cpu")
    monkeypatch.setattr("sgi2v.cli.doctor.clip", lambda device: refused())
    monkeypatch.setattr("sgi2v.cli.doctor.devices", lambda: iter(()))
    assert main(["doctor", "--port", "0"]) == 2
    out, err = capsys.readouterr()
    assert "BAD   clip" in out and "port" in out and "all is well" not in out
    assert err == "sgi2v: doctor: 1 of these is BAD; do as the lines with -> say\n"


def test_a_folder_that_is_a_file_a_taken_port_and_an_old_package_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flat").write_text("")
    found = list(places(tmp_path / "flat" / "out"))
    assert found[0].state == BAD and "which is a file" in found[0].said and len(found) == 4
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (port,) = [one for one in studio(taken.getsockname()[1]) if one.part == "port"]
    assert port.state == NOTE and "cannot be had" in port.said and "--port 0" in port.remedy
    monkeypatch.setattr("sgi2v.cli.doctor.version", lambda name: "0.0.1")
    assert any(one.state == BAD and "torch is 0.0.1" in one.said for one in versions())
