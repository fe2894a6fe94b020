"""What a file is by its first bytes: the image formats that are decoded, and what people take for images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
_MAGIC: Sequence[tuple[str, bytes, int]] = (
    ("JPEG", b"\xff\xd8\xff", 0),
    ("PNG", b"\x89PNG\r\n\x1a\n", 0),
    ("GIF", b"GIF8", 0),
    ("WEBP", b"WEBP", 8),
    ("BMP", b"BM", 0),
    ("TIFF", b"II*\x00", 0),
    ("TIFF", b"MM\x00*", 0),
    ("JPEG2000", b"\0\0\0\x0cjP  \r\n\x87\n", 0),
    ("JPEG2000", b"\xff\x4f\xff\x51", 0),
    ("AVIF", b"ftypavif", 4),
    ("AVIF", b"ftypavis", 4),
    *(("HEIF", b"ftyp" + brand, 4) for brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")),
)
_NETPBM = {b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"}


class FileKind(NamedTuple):
    """What a file is, and what its user can do about it."""

    name: str
    remedy: str


_UNPACK = "unpack it, and give the folder"
_EXPORT = "export it as PNG or TIFF"
_KINDS: Sequence[tuple[bytes, int, FileKind]] = (
    (b"version https://git-lfs", 0, FileKind("a Git LFS pointer", "fetch the file itself with `git lfs pull`")),
    (b"PK\x03\x04", 0, FileKind("a ZIP archive (or an Office document)", _UNPACK)),
    (b"\x1f\x8b", 0, FileKind("a gzip archive", _UNPACK)),
    (b"BZh", 0, FileKind("a bzip2 archive", _UNPACK)),
    (b"\xfd7zXZ\0", 0, FileKind("an xz archive", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", 0, FileKind("a 7-Zip archive", _UNPACK)),
    (b"Rar!\x1a\x07", 0, FileKind("a RAR archive", _UNPACK)),
    (b"ustar", 257, FileKind("a tar archive", _UNPACK)),
    (b"MATLAB 5.0", 0, FileKind("a MATLAB file", "save the images as PNG files, or as arrays in an .npz file")),
    (b"\x89HDF\r\n\x1a\n", 0, FileKind("an HDF5 (or MATLAB 7.3) file", "save the images as PNG files, or in an .npz file")),
    (b"\x93NUMPY", 0, FileKind("a NumPy array", "save images and labels together in an .npz file")),
    (b"\x80\x02", 0, FileKind("a Python pickle", "save the images as PNG files, or in an .npz file")),
    (b"\x80\x04", 0, FileKind("a Python pickle", "save the images as PNG files, or in an .npz file")),
    (b"%PDF", 0, FileKind("a PDF document", _EXPORT)),
    (b"8BPS", 0, FileKind("a Photoshop document", _EXPORT)),
    (b"DICM", 128, FileKind("a DICOM file", "export it as 16-bit PNG")),
    (b"SIMPLE  =", 0, FileKind("a FITS file", _EXPORT)),
    (b"\x00\x00\x01\x00", 0, FileKind("an icon (ICO)", _EXPORT)),
    (b"\x00\x00\x00\x0cJXL ", 0, FileKind("a JPEG XL image", "convert it to JPEG or PNG")),
    (b"\xff\x0a", 0, FileKind("a JPEG XL image", "convert it to JPEG or PNG")),
    (b"v/1\x01", 0, FileKind("an OpenEXR image", _EXPORT)),
    (b"#?RADIANCE", 0, FileKind("a Radiance HDR image", _EXPORT)),
    (b"II+\x00", 0, FileKind("a BigTIFF", "save it as classic TIFF or PNG")),
    (b"MM\x00+", 0, FileKind("a BigTIFF", "save it as classic TIFF or PNG")),
    (b"FUJIFILMCCD-RAW", 0, FileKind("a camera RAW file", "export it as JPEG or TIFF")),
    (b"ftypcrx", 4, FileKind("a camera RAW file", "export it as JPEG or TIFF")),
    (b"ftyp", 4, FileKind("a video", "save its frames as images")),
    (b"\x1aE\xdf\xa3", 0, FileKind("a video", "save its frames as images")),
    (b"AVI ", 8, FileKind("a video", "save its frames as images")),
    (b"bplist00", 0, FileKind("a property list, perhaps the placeholder of a file in a cloud", "download the file itself")),
)


def find_format(data: bytes) -> str | None:
    """Return the image format, one of `FORMATS`, by the first bytes and not by the file name; None for another file."""
    for name, magic, offset in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return name
    return "PPM" if data[:2] in _NETPBM and data[2:3].isspace() else None


def describe_kind(data: bytes) -> FileKind:
    """Return what a file is that is no image to decode; its first bytes if they tell nothing."""
    for magic, offset, kind in _KINDS:
        if data[offset : offset + len(magic)] == magic:
            return kind
    if not data.strip(b"\0"):
        return FileKind("nothing but zero bytes, as a broken download or a placeholder of a cloud leaves", "get it again")
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return FileKind("an HTML page, such as an error page in place of a download", "download the file again")
    if b"<svg" in head:
        return FileKind("an SVG drawing", "export it as PNG")
    if head.startswith(b"<?xml"):
        return FileKind("an XML document", "download the file again")
    if _is_tf_record(data):
        return FileKind("a TFRecord file", "write its images to files")
    if head.startswith((b"{", b"[")):
        return FileKind("a JSON document", "download the file again")
    return FileKind(f"unknown format: file starts with {data[:8]!r}", f"supported are {', '.join(FORMATS)}")


def _is_tf_record(data: bytes) -> bool:
    """Return whether the file begins with the length of a record that is a TensorFlow Example."""
    length = int.from_bytes(data[:8], "little")
    return 0 < length <= len(data) and data[12:13] == b"\n" and b"image" in data[:2048]
