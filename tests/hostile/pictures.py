"""Hostile images and videos: formats, sizes, sidecar files and names."""

import os
import struct
import zlib

from PIL import Image

from tests.hostile import FILE_NAMES, table, write

PREDICT = (("predict", "{given}", "--checkpoint", "{checkpoint}", "--out", "out", "--polygons"),)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size=(64, 64), before=b"", kind=2, pixels=64 * 193):
    """Return a PNG of (width, height) with extra chunks, and with `pixels` bytes of pixel data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(pixels))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + before + body


def profile(name):
    """Return a broken colour profile, whose name libpng prints."""
    head = struct.pack(">I", 3000) + bytes(4) + struct.pack(">I", 0x02000000) + b"mntrRGB XYZ "
    data = head + bytes(12) + b"acsp" + bytes(20) + struct.pack(">I", 9999) + bytes(range(250)) * 16
    return chunk(b"iCCP", name + b"\0\0" + zlib.compress(data[:3000]))


def _tiff(width, height, following=0):
    """Return a little-endian TIFF with 16 bytes of pixel data."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 4, height), (279, 4, 16)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries
    return b"II*\0" + struct.pack("<I", 24) + bytes(16) + directory + struct.pack("<I", following)


SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
VRT = '<VRTDataset rasterXSize="64" rasterYSize="64">{}</VRTDataset>'
BAND = '<VRTRasterBand dataType="Byte" band="1"{}</VRTRasterBand>'
SOURCE = '<SimpleSource><SourceFilename relativeToVRT="0">{}</SourceFilename></SimpleSource>'
OUTSIDE = VRT.format(BAND.format(f">{SOURCE.format('OUTSIDE/secret.png')}") * 3)
ADDRESS = OUTSIDE.replace("OUTSIDE/secret.png", "/vsicurl/URL")
PYTHON = VRT.format(BAND.format(
    ' subClass="VRTDerivedRasterBand"><PixelFunctionType>hostile_code</PixelFunctionType>'
    "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode>"
    "def hostile_code(*a): import os; os.system('touch hostile_code')</PixelFunctionCode>"
))  # fmt: skip


def _sidecars(paths):
    Image.new("RGB", (64, 64)).save(paths.given / "a.tif")
    write("a.tif.ovr", OUTSIDE)(paths)
    write("a.tif.msk", ADDRESS)(paths)


def _others(paths):
    os.mkfifo(paths.given / "a.png")
    (paths.given / "c.png").symlink_to("/dev/zero")
    (paths.given / "e").symlink_to(paths.given)


LARGE_TEXT = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**28)))
IMAGES = {
    "PNG of 40000 x 40000": write("a.png", png((40000, 40000))),
    "TIFF of 2^32 x 2^32": write("a.tif", _tiff(2**32 - 1, 2**32 - 1)),
    "TIFF with pages in a circle": write("a.tif", _tiff(64, 64, following=24)),
    "PNG with a text of 256 MB": write("a.png", png(before=LARGE_TEXT)),
    "PNG with a profile that prints": write("a.png", png(before=profile(b"A\x1b]52;c;YQ==\x07"))),
    "VRT as TIFF": write("a.tif", OUTSIDE),
    "VRT of an address": write("a.tif", ADDRESS),
    "VRT of Python": write("a.tif", PYTHON),
    "SVG as MP4": write("a.mp4", SVG),
    "a TIFF with neighbours that lead out": _sidecars,
    "pipes, devices and circles": _others,
    **{f"file name of {key}": write(f"{name}.png", png()) for key, name in FILE_NAMES.items()},
}
ARTEFACTS = table("image", IMAGES, PREDICT)
