"""From an image file to RGB pixels (chapter 2).

Files of 8 bits per channel give the pixels of the official code, `Image.open(path).convert("RGB")`:
the first frame of an animation, as it is stored, whatever its EXIF orientation. They differ where
that would not show the picture: transparent pixels become white, and of 16 bits the upper 8 are
taken. A file whose black and white are unknown is an error.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from cocoop_tutorial.errors import DataError

# Formats of pictures. Pillow's others are left out: EPS and WMF start other programs, FITS, GRIB
# or HDF5 hold measurements, FLI and MPEG films, and the rest are rare. Pillow opens HEIF only after
# pillow_heif.register_heif_opener().
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM",
    "QOI", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
LONGEST = 200  # times the shorter side; resizing a longer strip would need too much memory
BITS, PHOTOMETRIC, SAMPLE_FORMAT, ORIENTATION = 258, 262, 339, 274  # TIFF's tags
WHITE_IS_ZERO, SIGNED = 0, 2


def image_suffixes() -> set[str]:
    """The suffixes of files that `open_image` can read, in lower case, such as ".jfif"."""
    return {s for s, kind in Image.registered_extensions().items() if kind in FORMATS}


def open_image(path: Path | str) -> Image.Image:
    """Reads an image as RGB; transparent pixels become white.

    Args:
        path: An image file in one of `FORMATS`.

    Returns:
        A PIL image in mode "RGB".

    Raises:
        DataError: The file is missing, cut off, or not an image; it is larger than
            `PIL.Image.MAX_IMAGE_PIXELS` or a very long strip; all of it is transparent; or its
            pixels are signed, 32-bit or float, so nobody knows which are black and white.
    """
    try:
        Image.init()
        with Image.open(path, formats=[f for f in FORMATS if f in Image.OPEN]) as image:
            _check_size(*image.size)
            return _to_rgb(image)
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:  # Pillow's decoders raise errors of any kind
        raise DataError(
            f"Cannot read the image {os.fspath(path)}: {str(error) or type(error)}. Replace "
            "the file, or leave such images out with check_images(data, skip=True)."
        ) from error


def is_turned(image: Image.Image) -> bool:
    """Whether viewers turn or mirror an image because of its EXIF orientation."""
    try:
        return image.getexif().get(ORIENTATION) in range(2, 9)
    except Exception:  # a damaged EXIF block, which viewers ignore
        return False


def _check_size(width: int, height: int) -> None:
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"it has {width} x {height} pixels, which may be an attack by decompression; make it "
            "smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
        )
    if max(width, height) > LONGEST * min(width, height):
        raise ValueError(f"it has {width} x {height} pixels, a strip of which little would be seen")


def _to_rgb(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    sixteen = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")  # there "I" means 16 bits
    )
    if (image.mode in ("I", "F") and not sixteen) or SIGNED in tags.get(SAMPLE_FORMAT, ()):
        raise ValueError(
            "its pixels are signed, of 32 bits or float, so which of them are black and white is "
            "unknown; save it with 8 or 16 bits per channel"
        )
    if sixteen:
        return _upper_bits(image, tags).convert("RGB")
    _correct_transparency(image)
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _correct_transparency(image: Image.Image) -> None:
    """Makes the transparent colour of a PNG one of the pixels' values.

    Pillow widens the pixels to 8 bits, or cuts them to 8, but keeps this colour as it is stored.
    """
    if image.format != "PNG" or "transparency" not in image.info:
        return
    stored = image.tile[0][3] if image.tile else ""
    if stored in ("L;2", "L;4"):
        image.info["transparency"] *= 255 // (2 ** int(stored[-1]) - 1)
    elif stored == "RGB;16B":
        raise ValueError(
            "it has a transparent colour of 16 bits per channel, of which only 8 are read; save it "
            "with 8 bits or with an alpha channel"
        )


def _upper_bits(image: Image.Image, tags: dict[int, tuple[int, ...]]) -> Image.Image:
    """Grey of 16 bits as grey of 8; Pillow does this for colours, but clips grey to white."""
    values = np.asarray(image)
    grey = (values >> (tags.get(BITS, (16,))[0] - 8)).astype(np.uint8)  # some TIFFs have 12 bits
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _on_white(image: Image.Image) -> Image.Image:
    if image.getextrema()[3][1] == 0:
        raise ValueError("all of it is transparent")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
