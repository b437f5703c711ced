"""Images and videos that are something else, or claim too much; their names."""

import os
import struct
import zlib

from PIL import Image

from tests.hostile import CONTROL, MARKUP, SCRIPT, Artefact

PREDICT = (("predict", "{given}", "--checkpoint", "{checkpoint}", "--out", "out", "--polygons"),)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size=(64, 64), before=b"", depth=8, kind=2, claimed=False):
    """A PNG of (width, height) with chunks of a stranger's; `claimed`: next to nothing is there."""
    width, height = size
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[kind]
    raw = bytes(100 if claimed else height * (1 + channels * width * depth // 8))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + before + body


def profile(name):
    """A broken colour profile, whose name libpng prints."""
    head = struct.pack(">I", 3000) + bytes(4) + struct.pack(">I", 0x02000000) + b"mntrRGB XYZ "
    data = head + bytes(12) + b"acsp" + bytes(20) + struct.pack(">I", 9999) + bytes(range(250)) * 16
    return chunk(b"iCCP", name + b"\0\0" + zlib.compress(data[:3000]))


SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"


def tiff(width, height, tile=None, pages=1):
    """A little-endian TIFF that has next to nothing of what it claims."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1)]
    tags += [(322, 4, tile), (323, 4, tile), (324, 4, 8), (325, 4, 16)] if tile else [
        (273, 4, 8), (278, 4, height), (279, 4, 16)]  # fmt: skip
    entries = b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(tags)
    )
    directory = struct.pack("<H", len(tags)) + entries
    out = b"II*\0" + struct.pack("<I", 8 + 16) + bytes(16)
    following = 24 if pages < 0 else 0
    return out + directory + struct.pack("<I", following)


def _file(name, data):
    def make(place):
        content = data(place) if callable(data) else data
        (place.given / name).write_bytes(content)

    return make


def _vrt(place, name="secret.png"):
    source = f'<SourceFilename relativeToVRT="0">{place.outside / name}</SourceFilename>'
    source = f"<SimpleSource>{source}</SimpleSource>"
    band = f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>'
    return f'<VRTDataset rasterXSize="64" rasterYSize="64">{band * 3}</VRTDataset>'.encode()


def _vrt_url(place):
    return _vrt(place).replace(str(place.outside).encode(), f"/vsicurl/{place.url}".encode())


def _wms(place):
    service = f"<Service name='TMS'><ServerUrl>{place.url}</ServerUrl></Service>"
    return f"<GDAL_WMS>{service}</GDAL_WMS>".encode()


def _derived(place):
    code = "def hostile_code(*a): import os; os.system('touch hostile_code')"
    kind = '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
    function = "<PixelFunctionType>hostile_code</PixelFunctionType>"
    language = "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"
    band = f"{kind}{function}{language}<PixelFunctionCode>{code}</PixelFunctionCode>"
    text = f'<VRTDataset rasterXSize="64" rasterYSize="64">{band}</VRTRasterBand></VRTDataset>'
    return text.encode()


def _sidecars(place):
    Image.new("RGB", (64, 64)).save(place.given / "a.tif")
    data = (place.given / "a.tif").read_bytes()
    (place.given / "a.tif").write_bytes(data)
    aux = f"<PAMDataset><Metadata><MDI key='a'>{place.url}</MDI></Metadata></PAMDataset>"
    (place.given / "a.tif.aux.xml").write_text(aux)
    (place.given / "a.tif.ovr").write_bytes(_vrt(place))
    (place.given / "a.tif.msk").write_bytes(_vrt_url(place))


def _avi(place):
    """An AVI whose header claims frames of 60,000 x 60,000."""
    head = struct.pack("<10I", 1, 0, 0, 16, 2**31 - 1, 0, 1, 0, 60000, 60000) + bytes(16)
    stream = b"vidsMJPG" + struct.pack("<12I", 0, 0, 0, 0, 1, 10**9, 0, 2**31 - 1, 0, 0, 0, 0)
    form = struct.pack("<IIIHH", 40, 60000, 60000, 1, 24) + b"MJPG" + bytes(20)

    def box(kind, data):
        return kind + struct.pack("<I", len(data)) + data

    lists = box(b"LIST", b"strl" + box(b"strh", stream) + box(b"strf", form))
    header = box(b"LIST", b"hdrl" + box(b"avih", head) + lists)
    body = box(b"LIST", b"movi" + box(b"00dc", b"\xff\xd8\xff\xd9"))
    return box(b"RIFF", b"AVI " + header + body)


def _named(*names):
    def make(place):
        data = png()
        for name in names:
            path = os.path.join(
                os.fsencode(place.given), name if isinstance(name, bytes) else os.fsencode(name)
            )
            with open(path, "wb") as file:
                file.write(data)

    return make


CLAIMS = {
    "PNG of 40000 x 40000": ("a.png", png((40000, 40000), claimed=True)),
    "PNG of 2^31 x 2^31": ("a.png", png((2**31 - 1, 2**31 - 1), claimed=True)),
    "TIFF of 2^32 x 2^32": ("a.tif", tiff(2**32 - 1, 2**32 - 1)),
    "TIFF of 10^6 x 10^6": ("a.tif", tiff(10**6, 10**6)),
    "TIFF of 40000 x 40000 in tiles of 40000": ("a.tif", tiff(40000, 40000, 40000)),
    "TIFF of 2^31 x 32": ("a.tif", tiff(2**31 - 1, 32)),
    "TIFF whose pages go in a circle": ("a.tif", tiff(64, 64, pages=-1)),
    "BMP of 40000 x 40000": ("a.bmp", b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack(
        "<IiiHHIIiiII", 40, 40000, 40000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(40)),
    "WebP of 16384 x 16384": ("a.webp", b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack(
        "<I", 10) + bytes(4) + b"\xff\x3f\0\xff\x3f\0" + bytes(40)),
    "PNG with a text of 1 GB": ("a.png", lambda place: png(before=chunk(
        b"zTXt", b"a\0\0" + zlib.compress(bytes(2**28))))),
    "PNG with a profile that prints": ("a.png", png(before=profile(b"A\x1b]52;c;aGFja2Vk\x07"))),
}  # fmt: skip
DISGUISES = {
    "SVG as PNG": ("a.png", SVG),
    "EPS as PNG": ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/x) (w) file\n"),
    "PDF as PNG": ("a.png", b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n"),
    "HTML as PNG": ("a.png", SCRIPT.encode()),
    "pickle as PNG": ("a.png", b"cos\nsystem\n(S'touch hostile_code'\ntR."),
    "VRT as TIFF": ("a.tif", _vrt),
    "VRT as PNG": ("a.png", _vrt),
    "VRT of an address": ("a.tif", _vrt_url),
    "VRT of Python": ("a.tif", _derived),
    "WMS as TIFF": ("a.tif", _wms),
    "SVG as MP4": ("a.mp4", SVG),
    "AVI of 60000 x 60000": ("a.avi", _avi),
}  # fmt: skip
FILENAMES = {
    "control": (f"{CONTROL.replace(chr(13), '')}a.png",),
    "newline": ("a\nhrseg: all is well\nb.png",),
    "markup": (f"{MARKUP.replace('/', ';')}.png", "[;].png"),
    "script": ("<img src=x onerror=alert(1)>.png",),
    "255 bytes": ("a" * 251 + ".png",),
    "no UTF-8": (b"a\xff\xfe.png",),
    "devices": ("CON.png", "nul.png", "COM1.png", "a:b.png", "a?.png"),
    "patterns": ("a%03d.png", "{x}.png", "$HOME.png", "`touch hostile_code`.png", "[a-z]*.png"),
}


def _pipe(place):
    os.mkfifo(place.given / "a.png")
    os.mkfifo(place.given / "b.mp4")
    (place.given / "c.png").mkdir()


def _links(place):
    (place.given / "a.png").symlink_to("/dev/zero")
    (place.given / "b.png").symlink_to(place.outside / "gone.png")
    (place.given / "c").symlink_to(place.given)


ARTEFACTS = [
    *(Artefact(f"image: {key}", _file(*value), PREDICT) for key, value in CLAIMS.items()),
    *(Artefact(f"image: {key}", _file(*value), PREDICT) for key, value in DISGUISES.items()),
    *(Artefact(f"file name: {key}", _named(*value), PREDICT) for key, value in FILENAMES.items()),
    Artefact("image: a TIFF with neighbours that lead out", _sidecars, PREDICT),
    Artefact("image: pipes and folders", _pipe, PREDICT),
    Artefact("image: links to devices and circles", _links, PREDICT),
]  # fmt: skip
