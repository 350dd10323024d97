"""Pictures from anywhere: upright RGB, or one clear line."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sgi2v.images import data_bytes, data_uri, load_image, load_mask, png_bytes


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def test_a_photo_on_its_side_is_turned_upright() -> None:
    upright = Image.new("RGB", (16, 32), "black")
    upright.paste("white", (0, 0, 16, 16))  # the sky is up
    for orientation, back in ((3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = load_image(jpeg(upright.transpose(back), exif=exif))
        assert image.size == (16, 32) and image.info == {}
        assert image.getpixel((8, 4)) == (255, 255, 255) and image.getpixel((8, 28)) == (0, 0, 0)


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def test_every_mode_becomes_rgb() -> None:
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert load_image(saved(half)).getpixel((0, 0)) == (255, 127, 127)
    assert load_image(saved(Image.new("LA", (4, 4), (0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    assert load_image(saved(Image.new("L", (4, 4), 77))).getpixel((0, 0)) == (77, 77, 77)
    assert load_image(saved(Image.new("1", (4, 4), 1))).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.full((4, 4), 0x8080, dtype=np.uint16))
    assert load_image(saved(deep)).getpixel((0, 0)) == (128, 128, 128)
    indexed = Image.new("RGB", (4, 4), (1, 2, 3)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert load_image(saved(indexed)).getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG"])
def test_every_listed_format_is_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(saved(Image.new("RGB", (8, 8), (255, 255, 255)), kind))
    image = load_image(tmp_path / "x")
    assert (image.mode, image.size, image.getpixel((3, 3))) == ("RGB", (8, 8), (255, 255, 255))
    assert type(image) is Image.Image and image == load_image((tmp_path / "x").read_bytes())


def test_of_a_moving_picture_the_first_frame_is_read() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(
        file, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "black")]
    )
    assert load_image(file.getvalue()).getpixel((0, 0)) == (255, 255, 255)


def declared(width: int, height: int) -> bytes:
    """A PNG whose header declares a size; there are no pixels behind it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize("size", [(8001, 8000), (64_000_001, 1), (20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_by_the_header(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"image: .* declares .* pixels; give at most 64 megapixels"):
        load_image(declared(*size))


def test_up_to_64_megapixels_the_header_passes() -> None:
    with pytest.raises(ValueError, match=r"image: .* cannot be (read|decoded)"):  # there is nothing behind it
        load_image(declared(8000, 8000))


def test_a_bad_image_is_refused(tmp_path: Path) -> None:
    whole = jpeg(noise(64, 64))
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    for name in ("half.jpg", "text.png", "drawing.svg"):
        with pytest.raises(ValueError, match=rf"image: .*{name}.* cannot be (read|decoded).*; give"):
            load_image(tmp_path / name)
    with pytest.raises(ValueError, match=r"image: .*none.png' is no file; give the path of a picture"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"is no file"):
        load_image(tmp_path)
    with pytest.raises(ValueError, match=r"mask: .*none.png' is no file"):
        load_mask(tmp_path / "none.png")


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]), st.data())
def test_no_image_gives_any_other_error(kind: str, data: st.DataObject) -> None:
    raw = bytearray(saved(noise(9, 7), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert load_image(bytes(raw)).mode == "RGB"
    except ValueError as error:
        assert str(error).startswith("image: ") and "\n" not in str(error)


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_an_embedded_picture_comes_back(mode: str) -> None:
    picture = noise(9, 7).convert(mode)
    load = load_image if mode == "RGB" else load_mask
    assert load(data_bytes("image", data_uri(picture))) == load(png_bytes(picture)) == picture


def test_a_mask_is_grey_or_one_bit_and_of_the_size_asked_for() -> None:
    assert load_mask(png_bytes(noise(9, 7)), (9, 7)).mode == "L"
    with pytest.raises(ValueError, match=r"mask: .* has 9x7 pixels; give \(9, 8\), as the image has"):
        load_mask(png_bytes(noise(9, 7)), (9, 8))


def test_a_picture_too_large_for_a_record_is_refused_when_it_is_embedded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sgi2v.images.MAX_URI", 2**20)
    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="image: 700x700 pixels are 1 MiB"):
        data_uri(Image.fromarray(noise))
