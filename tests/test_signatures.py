"""Files are what their first bytes say: every listed kind is read, and nothing that only pretends to be one."""

import io
import socket
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from clips import reds, write_animated, write_clip
from sgi2v.images import load_image
from sgi2v.reference import load_reference
from sgi2v.scene_io import scene_from_dict
from sgi2v.signatures import is_clip, kind_of
from sgi2v.training.videos import find_videos
from sgi2v.video import check_video, load_video, read_run

VIDEOS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9", ".avi": "mpeg4"}

ORIENTATION = 0x0112  # EXIF


def clip_of(suffix: str, folder: Path, count: int = 5) -> Path:
    path = folder / f"clip{suffix}"
    if suffix in VIDEOS:
        return write_clip(path, reds(count, step=40), codec=VIDEOS[suffix])
    return write_animated(path, reds(count, step=40), [100] * count)


@pytest.mark.parametrize("suffix", [*VIDEOS, ".gif", ".webp", ".apng", ".avif"])
def test_every_kind_is_read_whatever_its_name(suffix: str, tmp_path: Path) -> None:
    path = clip_of(suffix, tmp_path)
    for name in (path, tmp_path / "renamed.mp4", tmp_path / "none"):
        path = path.rename(name)
        clip = load_video(name)
        check_video(name)
        assert (clip.frames[:, 0, 4:-4, 4:-4].mean((1, 2)) * 255 / 40).round().tolist() == [1, 2, 3, 4, 5]
        assert clip.fps == pytest.approx(10, rel=0.01)
        pictures = load_reference(name).frames
        assert [round(np.asarray(p)[4:-4, 4:-4, 0].mean() / 40) for p in pictures] == [1, 2, 3, 4, 5]
        with pytest.raises(ValueError, match="carries no sgi2v run"):
            read_run(name)
        with pytest.raises(ValueError, match="too large: 5 frames of 32×32"):
            check_video(name, max_pixels=5 * 32 * 32 - 1)
        with pytest.raises(ValueError, match="too large"):
            load_video(name, max_pixels=5 * 32 * 32 - 1)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{secret}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{secret}</BaseURL></MPD>',
        "{secret}",
        "\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41#EXTM3U\nhttp://127.0.0.1:{port}/a.ts\n",
        "RIFF\x00\x00\x00\x00AVI #EXTM3U\nhttp://127.0.0.1:{port}/a.ts\n",
        "\x1aE\xdf\xa3ffconcat version 1.0\nfile '{secret}'\n",
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif", "a.webp"])
def test_a_file_that_names_others_opens_none_of_them(text: str, name: str, tmp_path: Path) -> None:
    secret = clip_of(".mp4", tmp_path)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        written = text.replace("{port}", str(server.getsockname()[1])).replace("{secret}", str(secret))
        path = tmp_path / name
        path.write_bytes(written.encode("latin-1"))
        for read in (load_video, check_video, read_run, load_reference):
            with pytest.raises(ValueError) as caught:
                read(path)
            assert "\n" not in str(caught.value) and name in str(caught.value)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_still_picture_is_no_clip_and_a_clip_no_frame(tmp_path: Path) -> None:
    still, moving = tmp_path / "still.webp", clip_of(".webp", tmp_path)
    Image.new("RGB", (32, 32), (40, 0, 0)).save(still)
    assert load_image(still).size == load_image(moving).size == (32, 32)
    with pytest.raises(ValueError, match=r"still\.webp: it holds one picture"):
        load_video(still)
    assert len(load_reference(still).frames) == 1
    for value in (["still.webp", "clip.webp"], ["clip.webp"]):
        data = {"format": "sgi2v-scene", "version": 2, "image": "still.webp", "motions": []}
        with pytest.raises(ValueError, match=r"reference\.frames\[\d\]: clip\.webp holds several pictures"):
            scene_from_dict({**data, "reference": {"frames": value}}, tmp_path)
    folder = tmp_path / "frames"
    folder.mkdir()
    for source in (still, moving):
        (folder / source.name).write_bytes(source.read_bytes())
    with pytest.raises(ValueError, match=r"reference\.frames: clip\.webp holds several pictures"):
        load_reference(folder)


def test_the_picture_for_programs_without_animation_is_no_frame(tmp_path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in reds(4, step=60)]
    pictures[0].save(tmp_path / "a.png", save_all=True, default_image=True, append_images=pictures[1:], duration=50)
    assert (load_video(tmp_path / "a.png").frames[:, 0].mean((1, 2)) * 255 / 60).round().tolist() == [2, 3, 4]


def test_a_film_is_told_from_a_picture_of_the_same_family() -> None:
    def iso(*brands: str) -> io.BytesIO:
        size = (12 + 4 * len(brands)).to_bytes(4, "big")
        return io.BytesIO(size + b"ftyp" + brands[0].encode() + bytes(4) + "".join(brands[1:]).encode() + b"moov")

    assert kind_of(iso("isom", "mp41")) == kind_of(iso("qt  ")) == kind_of(iso("mp42", "heic")) == "mov"
    assert kind_of(iso("avif", "mif1")) == kind_of(iso("mif1", "avif")) == "AVIF"
    assert kind_of(iso("heic", "mif1")) == kind_of(iso("mif1", "heic")) == "HEIC"
    assert is_clip(iso("avis")) and not is_clip(iso("avif")) and not is_clip(iso("heic"))
    assert kind_of(io.BytesIO(b"")) == kind_of(io.BytesIO(b"no video")) == ""


def test_a_picture_that_needs_another_library_names_it_and_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100))
    monkeypatch.setattr("sgi2v.images.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"image: '.*IMG_0001\.HEIC' is HEIC: it needs pillow-heif; pip install"):
        load_image(path)
    Image.new("RGB", (8, 8), (10, 200, 30)).save(tmp_path / "a.avif")
    assert np.abs(np.asarray(load_image(tmp_path / "a.avif")).astype(int) - (10, 200, 30)).max() < 6


def test_a_phones_heic_is_read_and_stands_upright(tmp_path: Path) -> None:
    pillow_heif.register_heif_opener()
    colours = np.zeros((32, 48, 3), dtype=np.uint8)
    colours[:, :24] = (200, 40, 30)
    photo = Image.fromarray(colours)
    photo.save(tmp_path / "a.heic", quality=95)
    turned = Image.Exif()
    turned[ORIENTATION] = 6  # taken with the camera held upright: a viewer turns it clockwise
    photo.save(tmp_path / "b.HEIC", quality=95, exif=turned.tobytes())
    for name, wanted in (("a.heic", colours), ("b.HEIC", np.rot90(colours, -1))):
        found = np.asarray(load_image(tmp_path / name)).astype(int)
        assert found.shape == wanted.shape and np.abs(found - wanted)[2:-2, 2:-2].mean() < 6


def test_clips_of_every_kind_are_found_in_a_folder(tmp_path: Path) -> None:
    for name in ("b.mov", "a.webm", "._a.webm", "notes.txt", "c.WEBP"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in find_videos(tmp_path)] == ["a.webm", "b.mov", "c.WEBP"]
