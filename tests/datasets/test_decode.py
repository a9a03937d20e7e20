"""Pixels of every kind of image file: as the official code reads them, or as they look."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cocoop_tutorial.datasets.decode import FORMATS, image_suffixes, open_image
from cocoop_tutorial.errors import DataError

NOISE = Image.effect_noise((32, 24), 90)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")
RAMP = np.linspace(0, 65535, 256).astype(np.uint16).reshape(4, 64)  # 16 bits, black to white
GREY = np.linspace(0, 255.999, 256).astype(np.uint8).reshape(4, 64)  # the same in 8 bits


def in_mode(mode: str) -> Image.Image:
    bands = [NOISE, NOISE.rotate(180), NOISE.point(lambda value: value // 2)]
    if mode == "LAB":
        return Image.merge("LAB", bands)
    colour = Image.merge("RGB", bands)
    return colour.convert("P").convert("PA") if mode == "PA" else colour.convert(mode)


def files_of_8_bits() -> list[tuple[str, str, bytes]]:
    """Format, mode and content of every file that Pillow can write."""
    found = []
    for kind in FORMATS:
        for mode in MODES:
            file = io.BytesIO()
            try:
                in_mode(mode).save(file, kind)
            except (KeyError, OSError, ValueError):  # this format has no such mode
                continue
            found.append((kind, mode, file.getvalue()))
    return found


def test_files_of_8_bits_are_read_as_the_official_code_reads_them(tmp_path: Path) -> None:
    files = files_of_8_bits()
    assert {kind for kind, *_ in files} == set(FORMATS) - {"HEIF"}  # needs another package
    for kind, mode, content in files:
        path = tmp_path / f"{mode}.{kind}"
        path.write_bytes(content)
        official = Image.open(path).convert("RGB")
        assert open_image(str(path)).tobytes() == official.tobytes(), (kind, mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(colour: int, *channels: np.ndarray, transparent: bytes = b"", bits: int = 16) -> bytes:
    """A PNG of 64 x 4 pixels of so many bits per channel."""
    rows = np.stack(channels, -1).reshape(4, -1)
    lines = ["".join(f"{value:0{bits}b}" for value in row) for row in rows]
    data = b"".join(b"\0" + int(line, 2).to_bytes(len(line) // 8, "big") for line in lines)
    size = struct.pack(">IIBBBBB", 64, 4, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", size), chunk(b"tRNS", transparent) if transparent else b""]
    parts += [chunk(b"IDAT", zlib.compress(data))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def tiff(bits: int, data: bytes, photometric: int = 1, kind: int = 1) -> bytes:
    """A grey TIFF; `kind` is 1 for unsigned, 2 for signed, 3 for float."""
    tags = {256: 64, 257: 4, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 4}
    tags |= {279: len(data), 339: kind}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    where = struct.pack("<I", 8 + len(data))
    return b"II*\0" + where + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def twelve_bits() -> bytes:
    text = "".join(f"{value:012b}" for value in (RAMP >> 4).ravel())
    return int(text, 2).to_bytes(len(text) // 8, "big")


def saved(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(RAMP).save(file, kind)
    return file.getvalue()


OPAQUE = np.full_like(RAMP, 65535)
SIXTEEN = {
    "grey.png": png(0, RAMP),
    "grey_alpha.png": png(4, RAMP, OPAQUE),
    "rgb.png": png(2, RAMP, RAMP, RAMP),
    "rgb_alpha.png": png(6, RAMP, RAMP, RAMP, OPAQUE),
    "grey.tif": tiff(16, RAMP.astype("<u2").tobytes()),
    "negative.tif": tiff(16, (65535 - RAMP).astype("<u2").tobytes(), photometric=0),
    "12 bits.tif": tiff(12, twelve_bits()),
    "grey.jp2": saved("JPEG2000"),
    "grey.pgm": b"P5 64 4 65535\n" + RAMP.astype(">u2").tobytes(),
    "12 bits.pgm": b"P5 64 4 4095\n" + (RAMP >> 4).astype(">u2").tobytes(),
    "text.pgm": b"P2 64 4 65535\n" + " ".join(map(str, RAMP.ravel())).encode(),
    "rgb.ppm": b"P6 64 4 65535\n" + np.stack([RAMP] * 3, -1).astype(">u2").tobytes(),
}


@pytest.mark.parametrize("name", SIXTEEN)
def test_more_than_8_bits_are_scaled_and_not_clipped(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(SIXTEEN[name])
    pixels = np.asarray(open_image(tmp_path / name)).astype(int)
    assert abs(pixels - GREY[..., None]).max() <= 1  # Pillow may round instead of cutting


def test_transparent_grey_of_16_bits_becomes_white(tmp_path: Path) -> None:
    value = int(RAMP[0, 5])
    (tmp_path / "t.png").write_bytes(png(0, RAMP, transparent=struct.pack(">H", value)))
    pixels = np.asarray(open_image(tmp_path / "t.png"))[..., 0]
    assert np.argwhere(pixels != GREY).tolist() == [[0, 5]] and pixels[0, 5] == 255


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_transparent_grey_of_few_bits_becomes_white(bits: int, tmp_path: Path) -> None:
    """Pillow widens the pixels but not the transparent value."""
    most = 2**bits - 1
    values = np.arange(256).reshape(4, 64) % (most + 1)
    for value in {0, 1, most // 2 + 1, most}:
        content = png(0, values, transparent=struct.pack(">H", value), bits=bits)
        (tmp_path / "t.png").write_bytes(content)
        pixels = np.asarray(open_image(tmp_path / "t.png"))[..., 0]
        assert (pixels == np.where(values == value, 255, values * 255 // most)).all()


def test_a_transparent_colour_of_16_bits_cannot_be_found_in_8(tmp_path: Path) -> None:
    content = png(2, RAMP, RAMP, RAMP, transparent=struct.pack(">HHH", 9, 9, 9))
    (tmp_path / "t.png").write_bytes(content)
    with pytest.raises(DataError, match="transparent colour of 16 bits"):
        open_image(tmp_path / "t.png")


UNKNOWN = {
    "signed 8.tif": tiff(8, GREY.tobytes(), kind=2),
    "signed 16.tif": tiff(16, RAMP.astype("<i2").tobytes(), kind=2),
    "32 bits.tif": tiff(32, RAMP.astype("<u4").tobytes()),
    "float.tif": tiff(32, RAMP.astype("<f4").tobytes(), kind=3),
    "float.pfm": b"Pf 64 4 -1.0\n" + RAMP.astype("<f4").tobytes(),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_pixels_without_a_known_black_and_white_are_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(UNKNOWN[name])
    with pytest.raises(DataError, match=f"{name}.* black and white"):
        open_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
def test_the_first_frame_of_an_animation_is_read(kind: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    assert Image.open(tmp_path / "a").n_frames == 3
    r, g, b = open_image(tmp_path / "a").getpixel((8, 8))
    assert r > 240 and max(g, b) < 15


def test_orientation_is_ignored_as_in_the_official_code(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    NOISE.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == NOISE.size


def test_nothing_but_transparency_is_an_error(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "blank.png")
    with pytest.raises(DataError, match="all of it is transparent"):
        open_image(tmp_path / "blank.png")


def test_bombs_and_strips_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    side = int(Image.MAX_IMAGE_PIXELS**0.5) + 1  # Pillow itself only warns at this size
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b""))
    Image.new("1", (1, 201)).save(tmp_path / "strip.png")
    for name, words in (("bomb", "decompression"), ("strip", "1 x 201 pixels, a strip")):
        with warnings.catch_warnings(), pytest.raises(DataError, match=words):
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            open_image(tmp_path / f"{name}.png")


def test_no_other_program_is_started(tmp_path: Path) -> None:
    NOISE.save(tmp_path / "drawing.png", "EPS")
    with pytest.raises(DataError, match="cannot identify"):
        open_image(tmp_path / "drawing.png")


def test_suffixes_follow_the_formats() -> None:
    assert {".jpg", ".jfif", ".pgm", ".apng", ".avif", ".tiff"} <= image_suffixes()
    assert not {".eps", ".psd", ".fits", ".mpg", ".h5"} & image_suffixes()
