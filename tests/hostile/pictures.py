"""Images and videos with false formats, sizes, neighbours and names."""

import os
import struct
import zlib

from PIL import Image

from tests.hostile import CONTROL, MARKUP, SCRIPT, table, write

PREDICT = (("predict", "{given}", "--checkpoint", "{checkpoint}", "--out", "out", "--polygons"),)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size=(64, 64), before=b"", kind=2, claimed=False):
    """A PNG of (width, height) with extra chunks; `claimed`: with nearly no pixels."""
    width, height = size
    raw = bytes(100 if claimed else height * (1 + {0: 1, 2: 3, 3: 1}[kind] * width))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + before + body


def profile(name):
    """A broken colour profile, whose name libpng prints."""
    head = struct.pack(">I", 3000) + bytes(4) + struct.pack(">I", 0x02000000) + b"mntrRGB XYZ "
    data = head + bytes(12) + b"acsp" + bytes(20) + struct.pack(">I", 9999) + bytes(range(250)) * 16
    return chunk(b"iCCP", name + b"\0\0" + zlib.compress(data[:3000]))


def _tiff(width, height, tile=None, following=0):
    """A little-endian TIFF with nearly no pixels."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1)]
    tags += [(322, 4, tile), (323, 4, tile), (324, 4, 8), (325, 4, 16)] if tile else [
        (273, 4, 8), (278, 4, height), (279, 4, 16)]  # fmt: skip
    entries = b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(tags)
    )
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
WMS = "<GDAL_WMS><Service name='TMS'><ServerUrl>URL</ServerUrl></Service></GDAL_WMS>"


def _avi():
    """An AVI with a header for frames of 60,000 x 60,000."""
    head = struct.pack("<10I", 1, 0, 0, 16, 2**31 - 1, 0, 1, 0, 60000, 60000) + bytes(16)
    stream = b"vidsMJPG" + struct.pack("<12I", 0, 0, 0, 0, 1, 10**9, 0, 2**31 - 1, 0, 0, 0, 0)
    form = struct.pack("<IIIHH", 40, 60000, 60000, 1, 24) + b"MJPG" + bytes(20)

    def box(kind, data):
        return kind + struct.pack("<I", len(data)) + data

    lists = box(b"LIST", b"strl" + box(b"strh", stream) + box(b"strf", form))
    header = box(b"LIST", b"hdrl" + box(b"avih", head) + lists)
    body = box(b"LIST", b"movi" + box(b"00dc", b"\xff\xd8\xff\xd9"))
    return box(b"RIFF", b"AVI " + header + body)


BMP = struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 40000, 40000, 1, 24, 0, 0, 0, 0, 0, 0)
IMAGES = {
    "PNG of 40000 x 40000": write("a.png", png((40000, 40000), claimed=True)),
    "PNG of 2^31 x 2^31": write("a.png", png((2**31 - 1, 2**31 - 1), claimed=True)),
    "TIFF of 2^32 x 2^32": write("a.tif", _tiff(2**32 - 1, 2**32 - 1)),
    "TIFF of 40000 x 40000 in tiles of 40000": write("a.tif", _tiff(40000, 40000, 40000)),
    "TIFF of 2^31 x 32": write("a.tif", _tiff(2**31 - 1, 32)),
    "TIFF with pages in a circle": write("a.tif", _tiff(64, 64, following=24)),
    "BMP of 40000 x 40000": write("a.bmp", b"BM" + BMP + bytes(40)),
    "WebP of 16384 x 16384": write("a.webp", b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" +
                                   struct.pack("<I", 10) + bytes(4) + b"\xff\x3f\0" * 2 +
                                   bytes(40)),
    "PNG with a text of 256 MB": write("a.png", lambda place: png(
        before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**28))))),
    "PNG with a profile that prints": write("a.png", png(before=profile(b"A\x1b]52;c;YQ==\x07"))),
    "SVG as PNG": write("a.png", SVG),
    "EPS as PNG": write("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/x) (w) file"),
    "HTML as PNG": write("a.png", SCRIPT),
    "pickle as PNG": write("a.png", b"cos\nsystem\n(S'touch hostile_code'\ntR."),
    "VRT as TIFF": write("a.tif", OUTSIDE),
    "VRT as PNG": write("a.png", OUTSIDE),
    "VRT of an address": write("a.tif", ADDRESS),
    "VRT of Python": write("a.tif", PYTHON),
    "WMS as TIFF": write("a.tif", WMS),
    "SVG as MP4": write("a.mp4", SVG),
    "AVI of 60000 x 60000": write("a.avi", _avi()),
}  # fmt: skip


def _named(*names):
    def make(place):
        for name in names:
            with open(os.fsencode(place.given) + b"/" + os.fsencode(name), "wb") as file:
                file.write(png())

    return make


NAMES = {
    "control": _named(f"{CONTROL.replace(chr(13), '')}a.png"),
    "newline": _named("a\nhrseg: all is well\nb.png"),
    "markup": _named(f"{MARKUP.replace('/', ';')}.png", "[;].png"),
    "script": _named("<img src=x onerror=alert(1)>.png"),
    "255 bytes": _named("a" * 251 + ".png"),
    "not UTF-8": _named(b"a\xff\xfe.png"),
    "devices of Windows": _named("CON.png", "COM1.png", "a:b.png", "a?.png"),
    "patterns": _named(
        "a%03d.png", "{x}.png", "$HOME.png", "`touch hostile_code`.png", "[a-z].png"
    ),
}


def _sidecars(place):
    Image.new("RGB", (64, 64)).save(place.given / "a.tif")
    aux = f"<PAMDataset><Metadata><MDI key='a'>{place.url}</MDI></Metadata></PAMDataset>"
    for suffix, text in (("aux.xml", aux), ("ovr", OUTSIDE), ("msk", ADDRESS)):
        write(f"a.tif.{suffix}", text)(place)


def _pipes(place):
    os.mkfifo(place.given / "a.png")
    os.mkfifo(place.given / "b.mp4")
    (place.given / "c.png").mkdir()


def _links(place):
    (place.given / "a.png").symlink_to("/dev/zero")
    (place.given / "b.png").symlink_to(place.outside / "gone.png")
    (place.given / "c").symlink_to(place.given)


ARTEFACTS = [
    *table("image", IMAGES, PREDICT),
    *table("file name", NAMES, PREDICT),
    *table("image", {
        "a TIFF with neighbours that lead out": _sidecars,
        "pipes and folders": _pipes,
        "links to devices and circles": _links,
    }, PREDICT),
]  # fmt: skip
