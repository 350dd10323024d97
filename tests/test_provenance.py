"""Credentials: signed by a certificate made once, kept through every failure, and true to what was changed."""

import hashlib
import json
import multiprocessing
import os
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import c2pa
import pytest
import torch
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from PIL import Image

from sgi2v.cli import main
from sgi2v.errors import FieldError
from sgi2v.images import data_uri
from sgi2v.provenance import identity
from sgi2v.provenance.credentials import PICTURE, ProvenanceWarning, check, read
from sgi2v.provenance.identity import Choice, Signatory, choose, credentials_folder, made, signatory
from sgi2v.provenance.verify import verify
from sgi2v.video import Video, load_video, read_run
from tampering import RECORD, boxes, tampered_folder, tampered_gif, tampered_mp4


@pytest.fixture(autouse=True)
def configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    return tmp_path / "configuration"


def clip(seed: int = 0, run: dict[str, object] | None = RECORD) -> Video:
    generator = torch.Generator().manual_seed(seed)
    return Video(frames=torch.rand(4, 3, 64, 96, generator=generator), run=run, record="full")


def _asked(_: int) -> tuple[str, int]:
    folder = made()
    return (folder / "key.pem").read_text(), len(list(folder.iterdir()))


def test_many_that_begin_at_once_have_one_key() -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        found = pool.map(_asked, range(32))
    assert len(set(found)) == 1 and found[0][1] == 3
    own = credentials_folder() / "own"
    assert [stat.S_IMODE(file.stat().st_mode) for file in own.iterdir()] == [0o600] * 3
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert [p.name for p in credentials_folder().iterdir()] == ["own"]


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
def test_what_was_signed_is_valid_and_carries_its_record(tmp_path: Path, name: str) -> None:
    path = clip().save(tmp_path / name)
    found = verify(path)
    assert found.credentials is not None and not found.is_changed
    assert (found.credentials.state, found.credentials.authority) == ("valid", "own")
    assert found.credentials.signer == identity.OWN and found.credentials.is_generated
    assert found.record == "ours" and (found.model, found.method) == ("aa", "bb") and read_run(path) == RECORD
    assert len(load_video(path).frames) == 4
    left = {"a.mp4", "a.gif", "frames", "configuration"}
    assert {p.name for p in tmp_path.iterdir()} <= left


def test_c2pas_own_validator_accepts_the_files(tmp_path: Path) -> None:
    clip().save(tmp_path / "frames")
    for file in (clip().save(tmp_path / "a.mp4"), clip().save(tmp_path / "a.gif"), tmp_path / "frames/frame_0002.png"):
        with c2pa.Reader(str(file)) as reader:
            results = reader.get_validation_results() or {}
            assert reader.get_validation_state() == "Valid"
        failed = [one["code"] for one in results["activeManifest"]["failure"]]
        assert failed == ["signingCredential.untrusted"]  # an authority of one's own


def test_the_index_still_stands_before_the_pictures(tmp_path: Path) -> None:
    kinds = [kind for kind, _ in boxes(clip().save(tmp_path / "a.mp4").read_bytes())]
    assert kinds.index(b"uuid") < kinds.index(b"moov") < kinds.index(b"mdat")


def test_an_authority_is_unknown_elsewhere_and_trusted_where_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = clip().save(tmp_path / "a.mp4")
    root = credentials_folder() / "own" / "root.pem"
    made(anew=True)
    again = verify(file).credentials
    assert again is not None and again.authority == "own"  # roots of before stay known
    former = next((credentials_folder() / "former").iterdir())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    for roots, expected in ((None, "unknown"), (former, "trusted"), (root, "unknown")):
        found = verify(file, trusted=roots).credentials
        assert found is not None and (found.state, found.authority) == ("valid", expected)
    with pytest.raises(FieldError, match=r"trust: .*holds no certificate|trust: .*PEM|certificate"):
        verify(file, trusted=file)


def test_thirty_changes_are_all_named(tmp_path: Path) -> None:
    mp4, other = (clip(seed).save(tmp_path / f"{seed}.mp4").read_bytes() for seed in (0, 1))
    gif = clip().save(tmp_path / "a.gif").read_bytes()
    folder = clip().save(tmp_path / "frames")
    missed, count = [], 0
    for suffix, whole, changes in ((".mp4", mp4, tampered_mp4(mp4, other)), (".gif", gif, tampered_gif(gif))):
        for name, data in changes:
            (tmp_path / f"changed{suffix}").write_bytes(data)
            assert data != whole, name
            count += 1
            found = verify(tmp_path / f"changed{suffix}")
            answers = dict(found.answers())
            if not found.is_changed or "changed since" not in answers["credentials"]:
                missed.append(f"{suffix} {name}: {answers}")
    for name, changed in tampered_folder(folder):
        count += 1
        found = verify(changed)
        if not found.is_changed:
            missed.append(f"folder {name}: {dict(found.answers())}")
    assert (missed, count) == ([], 30)
    assert not verify(folder).is_changed  # every change there was undone


def test_removed_credentials_are_missed_where_the_file_speaks_of_them(tmp_path: Path) -> None:
    whole = clip().save(tmp_path / "a.gif").read_bytes()
    bare = clip().save(tmp_path / "b.gif", provenance="off").read_bytes()
    removed = bare.replace(b'"provenance": "off"', b'"provenance": "on" ')
    assert len(whole) > len(removed) == len(bare)
    (tmp_path / "c.gif").write_bytes(removed)
    assert "removed" in dict(verify(tmp_path / "c.gif").answers())["credentials"]
    assert dict(verify(tmp_path / "b.gif").answers())["credentials"] == "none"


def test_off_is_off_and_the_file_says_so(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.gif"):
        found = verify(clip().save(tmp_path / name, provenance="off"))
        assert found.credentials is None and found.says == {"provenance": "off", "watermark": None}
    assert not credentials_folder().exists()


def test_the_statement_holds_no_path_and_no_picture(tmp_path: Path) -> None:
    picture = Image.effect_noise((64, 48), 60).convert("RGB")
    run = {**RECORD, "scene": {"image": data_uri(picture)}}
    file = clip(run=run).save(tmp_path / "secret-folder" / "name-of-a-person.mp4")
    with c2pa.Reader(str(file)) as reader:
        text = reader.json()
    assert "secret-folder" not in text and "name-of-a-person" not in text and "data:image" not in text
    assert "thumbnail" not in text
    active = json.loads(text)
    (ingredient,) = active["manifests"][active["active_manifest"]]["ingredients"]
    digest = hashlib.sha256(f"{picture.mode} {picture.size} ".encode() + picture.tobytes()).hexdigest()
    assert (ingredient["title"], ingredient["instance_id"]) == (PICTURE, f"sha256:{digest}")


def _expired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_DAYS", -0.5)


def _bad_key(_: pytest.MonkeyPatch) -> None:
    (made() / "key.pem").write_text("no key")


def _anothers_key(_: pytest.MonkeyPatch) -> None:
    before = (made() / "key.pem").read_bytes()
    (made(anew=True) / "key.pem").write_bytes(before)


def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(os.environ["XDG_CONFIG_HOME"]).write_text("a file")


def _no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)


@pytest.mark.parametrize("failure", [_expired, _bad_key, _anothers_key, _no_folder, _no_library])
def test_a_failure_to_sign_never_loses_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[[pytest.MonkeyPatch], None]
) -> None:
    failure(monkeypatch)
    (tmp_path / "out").mkdir()
    for name in ("a.mp4", "a.gif", "frames"):
        with pytest.warns(ProvenanceWarning, match="without content credentials") as told:
            path = clip().save(tmp_path / "out" / name)
        assert len(told) == 1
        assert len(load_video(path).frames) == 4 and read_run(path) == RECORD
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.mp4", "a.gif", "frames"}


def test_an_external_signer_that_fails_never_loses_the_clip(tmp_path: Path) -> None:
    def refuses(data: bytes) -> bytes:
        raise RuntimeError("the token was pulled out")

    chain = (made() / "chain.pem").read_text()
    by = Signatory(certificates=chain, algorithm="es256", key=refuses)
    with pytest.warns(ProvenanceWarning):
        path = clip().save(tmp_path / "a.mp4", signatory=by)
    assert verify(path).credentials is None and len(load_video(path).frames) == 4


def test_no_space_for_the_signed_file_never_loses_the_clip(tmp_path: Path) -> None:
    run = {**RECORD, "filler": "x" * 2**20}  # larger than what is tried before a clip is written
    bare = clip(run=run).save(tmp_path / "bare.mp4", provenance="off").stat().st_size
    program = (
        "import resource, signal, sys, torch\n"
        "from sgi2v.provenance.identity import made\n"
        "from sgi2v.video import Video\n"
        "made()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"most = {bare} + 200\n"  # the unsigned clip fits, the signed one does not
        "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))\n"
        "generator = torch.Generator().manual_seed(0)\n"
        f"run = {RECORD!r} | {{'filler': 'x' * 2**20}}\n"
        "video = Video(frames=torch.rand(4, 3, 64, 96, generator=generator), run=run, record='full')\n"
        "video.save(sys.argv[1])\n"
    )
    out = tmp_path / "out" / "a.mp4"
    done = subprocess.run([sys.executable, "-c", program, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "without content credentials" in done.stderr
    assert [p.name for p in out.parent.iterdir()] == ["a.mp4"]
    assert verify(out).credentials is None and len(load_video(out).frames) == 4


def test_an_external_signer_signs(tmp_path: Path) -> None:
    folder = made()
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    asked = []

    def token(data: bytes) -> bytes:
        asked.append(len(data))
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    by = Signatory(certificates=(folder / "chain.pem").read_text(), algorithm="es256", key=token)
    choose(Choice(kind="none"))  # what is given in Python goes before
    found = verify(clip().save(tmp_path / "a.mp4", signatory=by)).credentials
    assert asked and found is not None and (found.state, found.authority) == ("valid", "own")
    assert "key" not in repr(by)


def test_what_was_read_is_not_signed_again_as_our_own(tmp_path: Path) -> None:
    again = replace(load_video(clip().save(tmp_path / "a.mp4")), record="full")
    assert again.provenance == "off" and verify(again.save(tmp_path / "b.mp4")).credentials is None
    signed = replace(again, provenance="on").save(tmp_path / "c.mp4")
    assert verify(signed).credentials is not None


def test_ones_own_certificate_is_used_and_an_unfit_one_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "OWN", "Studio Example")
    theirs = made().rename(tmp_path / "theirs")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    use = ["credentials", "use", "--certificate", str(theirs / "chain.pem"), "--key", str(theirs / "key.pem")]
    assert main(use) == 0
    file = clip().save(tmp_path / "a.mp4")
    found = verify(file, trusted=theirs / "root.pem").credentials
    assert found is not None and (found.signer, found.authority) == ("Studio Example", "trusted")
    assert main(["credentials", "show"]) == 0
    assert "Studio Example" in capsys.readouterr().out
    # The root signs nothing itself, and has no key any more.
    assert main([*use[:3], str(theirs / "root.pem"), *use[4:]]) == 2
    assert "is not the key of" in capsys.readouterr().err
    assert main(["credentials", "use", "--none"]) == 0 and signatory() is None
    assert verify(clip().save(tmp_path / "b.mp4")).credentials is None
    assert main(["credentials", "use"]) == 2 and main(["credentials", "lose"]) == 2
    (credentials_folder() / "choice.json").write_text("{}")
    with pytest.raises(FieldError, match="damaged"):
        signatory()
    assert main(["credentials", "use", "--own"]) == 0 and signatory() is not None


def test_a_signer_that_vouches_for_itself_is_refused_at_once() -> None:
    folder = made()
    alone = "-----BEGIN" + (folder / "chain.pem").read_text().split("-----BEGIN")[2]  # the second of the two
    with pytest.raises(FieldError, match="an authority signed"):
        check(Signatory(certificates=alone, algorithm="es256", key=(folder / "key.pem").read_text()))


def test_a_password_is_not_asked_for(tmp_path: Path) -> None:
    folder = made()
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), password=None)
    protected = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "key.pem").write_bytes(protected)
    with pytest.raises(FieldError, match="password"):
        choose(Choice(kind="files", certificate=folder / "chain.pem", key=tmp_path / "key.pem"))


def test_verify_answers_plainly_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = clip().save(tmp_path / "a.mp4")
    assert main(["verify", str(file)]) == 0
    said = capsys.readouterr().out
    assert "valid" in said and "its own authority" in said and "not found" in said and "bb on aa" in said
    assert main(["verify", "--json", str(file), str(file)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2 and rows[0]["credentials"]["state"] == "valid" and rows[0]["record"] == "ours"
    (tmp_path / "x.mp4").write_bytes(b"nothing of the kind")
    for nothing in (tmp_path / "x.mp4", tmp_path / "y.mp4"):
        assert main(["verify", str(nothing)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_file_from_elsewhere_is_answered_on(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "red").save(tmp_path / "a.jpg")
    found = verify(tmp_path / "a.jpg")
    assert found.credentials is None and found.mark == "not found" and found.record == "none" and not found.is_changed
    assert read(tmp_path / "a.jpg", "image/jpeg") is None


def test_nothing_is_said_of_a_clip_that_was_signed(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip().save(tmp_path / "a.mp4")
