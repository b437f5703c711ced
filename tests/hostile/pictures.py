"""Images, videos, lists and their names."""

import json
import os
import struct
import zlib

import numpy as np
from PIL import Image

from tests.hostile import CONTROL, FORMULA, MARKUP, SCRIPT, Artefact

PREDICT = (("predict", "{given}", "--checkpoint", "{checkpoint}", "--out", "out", "--polygons"),)
FOLDER = ("data.name=folder", "data.root={given}", "data.val_fraction=0.5", "data.num_train=",)
CHECK = ("data", "check", "--config", "{folder}", "--workers", "0", "data.root={given}")
INIT = ("init", "{given}", "--out", "out/c.yaml")
FIT = ("fit", "--config", "{folder}", "data.root={given}", "runs=out/runs")
DATA = (CHECK, INIT, FIT)


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


EVIL = b"A\x1b]52;c;aGFja2Vk\x07"


def tiff(width, height, tile=None, pages=1):
    """A little-endian TIFF that has next to nothing of what it claims."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1)]
    tags += [(322, 4, tile), (323, 4, tile), (324, 4, 8), (325, 4, 16)] if tile else [
        (273, 4, 8), (278, 4, height), (279, 4, 16)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(tags))
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
    band = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{source}</SimpleSource></VRTRasterBand>'
    return f'<VRTDataset rasterXSize="64" rasterYSize="64">{band * 3}</VRTDataset>'.encode()


def _vrt_url(place):
    return _vrt(place).replace(str(place.outside).encode(), f"/vsicurl/{place.url}".encode())


def _derived(place):
    code = "def hostile_code(*a): import os; os.system('touch hostile_code')"
    kind = '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
    return (f'<VRTDataset rasterXSize="64" rasterYSize="64">{kind}<PixelFunctionType>hostile_code'
            f"</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
            f"<PixelFunctionCode>{code}</PixelFunctionCode></VRTRasterBand></VRTDataset>").encode()  # fmt: skip


def _sidecars(place):
    Image.new("RGB", (64, 64)).save(place.given / "a.tif")
    data = (place.given / "a.tif").read_bytes()
    (place.given / "a.tif").write_bytes(data)
    aux = f"<PAMDataset><Metadata><MDI key='a'>{place.url}</MDI></Metadata></PAMDataset>"
    (place.given / "a.tif.aux.xml").write_text(aux)
    (place.given / "a.tif.ovr").write_bytes(_vrt(place))
    (place.given / "a.tif.msk").write_bytes(_vrt_url(place))


def _m3u8(place):
    return (f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{place.url}/a.ts\n#EXTINF:9,\n"
            f"{place.outside}/secret.txt\n#EXT-X-ENDLIST\n").encode()  # fmt: skip


def _concat(place):
    return f"ffconcat version 1.0\nfile '{place.outside}/secret.png'\nfile '{place.url}'\n".encode()


def _near(place):
    Image.new("RGB", (64, 64)).save(place.given / "near.png")
    return b"ffconcat version 1.0\nfile near.png\n"


def _sdp(place):
    return (f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {place.port} RTP/AVP 96\n"
            "a=rtpmap:96 H264/90000\n").encode()  # fmt: skip


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
            path = os.path.join(os.fsencode(place.given), name if isinstance(name, bytes) else os.fsencode(name))
            with open(path, "wb") as file:
                file.write(data)

    return make


def _pairs(place, names=("a", "b", "c", "d")):
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (place.given / folder).mkdir(exist_ok=True)
    for name in names:
        rgb = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
        rgb.save(os.path.join(os.fsencode(place.given / "images"), os.fsencode(name) + b".png"), "PNG")
        ids = Image.fromarray(rng.integers(0, 2, (40, 40)).astype(np.uint8))
        ids.save(os.path.join(os.fsencode(place.given / "masks"), os.fsencode(name) + b".png"), "PNG")
    (place.given / "classes.txt").write_text("one\ntwo\n")


def _data(change=None, names=("a", "b", "c", "d")):
    def make(place):
        _pairs(place, names)
        if change:
            change(place)

    return make


def _classes(content):
    return _data(lambda place: (place.given / "classes.json").write_text(
        content if isinstance(content, str) else json.dumps(content)))  # fmt: skip


def _list(*lines):
    def change(place):
        text = "\n".join(lines).replace("OUTSIDE", str(place.outside))
        (place.given / "train.txt").write_text(text)
        (place.given / "val.txt").write_text(text)

    return _data(change)


def _linked(target):
    def change(place):
        (place.given / "images/b.png").unlink()
        goal = target.replace("OUTSIDE", str(place.outside))
        (place.given / "images/b.png").symlink_to(goal)

    return _data(change)


def _loop(place):
    (place.given / "images/again").symlink_to(place.given / "images")
    (place.given / "images/x.png").symlink_to(place.given / "images/x.png")


def _collide(place):
    for folder, name in (("a_b", "c"), ("a", "b_c")):
        for kind in ("images", "masks"):
            (place.given / kind / folder).mkdir(parents=True)
            os.rename(place.given / kind / {"c": "a", "b_c": "b"}[name]
                      .__add__(".png"), place.given / kind / folder / f"{name}.png")  # fmt: skip


LISTS = (*(f"data.{split}_split={split}.txt" for split in ("train", "val")),)
LISTED = ((*CHECK, *LISTS), (*FIT, *LISTS))

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
    "PNG with a profile that prints": ("a.png", png(before=profile(EVIL))),
}  # fmt: skip
DISGUISES = {
    "SVG as PNG": ("a.png", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"),
    "EPS as PNG": ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/x) (w) file\n"),
    "PDF as PNG": ("a.png", b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n"),
    "HTML as PNG": ("a.png", SCRIPT.encode()),
    "pickle as PNG": ("a.png", b"cos\nsystem\n(S'touch hostile_code'\ntR."),
    "VRT as TIFF": ("a.tif", _vrt),
    "VRT as PNG": ("a.png", _vrt),
    "VRT of an address": ("a.tif", _vrt_url),
    "VRT of Python": ("a.tif", _derived),
    "WMS as TIFF": ("a.tif", lambda place: f"<GDAL_WMS><Service name='TMS'><ServerUrl>{place.url}</ServerUrl></Service></GDAL_WMS>".encode()),
    "playlist as MP4": ("a.mp4", _m3u8),
    "playlist as MKV": ("a.mkv", _m3u8),
    "concat as MP4": ("a.mp4", _concat),
    "concat of a neighbour as MP4": ("a.mp4", _near),
    "session as MP4": ("a.mp4", _sdp),
    "SVG as MP4": ("a.mp4", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"),
    "AVI of 60000 x 60000": ("a.avi", _avi),
    "no video at all": ("a01.mp4", png()),
}  # fmt: skip
FILENAMES = {
    "control": (f"{CONTROL.replace(chr(13), '')}a.png",),
    "newline": ("a\nhrseg: all is well\nb.png",),
    "markup": (f"{MARKUP.replace('/', ';')}.png", "[;].png"),
    "script": ("<img src=x onerror=alert(1)>.png",),
    "formula": ("=1+1.png", "@SUM(1).png", "\t=1.png"),
    "255 bytes": ("a" * 251 + ".png",),
    "no UTF-8": (b"a\xff\xfe.png",),
    "devices": ("CON.png", "nul.png", "COM1.png", "a:b.png", "a?.png"),
    "patterns": ("a%03d.png", "{x}.png", "$HOME.png", "`touch hostile_code`.png", "[a-z]*.png"),
}
BROKEN = {
    "pipe": _file("a.txt", b""),
    "text": _file("a.png", b"canary"),
}


def _pipe(place):
    os.mkfifo(place.given / "a.png")
    os.mkfifo(place.given / "b.mp4")
    (place.given / "c.png").mkdir()


def _links(place):
    (place.given / "a.png").symlink_to("/dev/zero")
    (place.given / "b.png").symlink_to(place.outside / "gone.png")
    (place.given / "c").symlink_to(place.given)


CLASSES = {
    "no JSON": "{",
    "deep": "[" * 1_000_000,
    "a huge number": '{"classes": ["a", "b"], "palette": [[' + "9" * 5000 + ",0,0],[0,0,0]]}",
    "numbers": {"classes": [1, float("nan")]},
    "a million names": {"classes": [f"n{i}" for i in range(10**6)]},
    "control": {"classes": [f"{CONTROL}a", "b"]},
    "newlines": {"classes": ["a\nhrseg: all is well\nb", "b"]},
    "surrogates": '{"classes": ["a\\udcff", "b"]}',
    "markup": {"classes": [MARKUP, "[/]"]},
    "script": {"classes": [SCRIPT, FORMULA]},
    "secrets": {"classes": ["${oc.env:AWS_SECRET_ACCESS_KEY}", "b"]},
}
LINES = {
    "above": ("../outside/secret.png ../outside/secret.png",),
    "absolute": ("OUTSIDE/secret.png\tOUTSIDE/secret.png",),
    "hidden above": ("images/../../outside/secret.png",),
    "NUL": ("a\0.png",),
    "control": (f"{CONTROL}a.png",),
    "a line of 10 MB": ("a" * 10_000_000,),
}
ARTEFACTS = [
    *(Artefact(f"image: {key}", _file(*value), PREDICT) for key, value in CLAIMS.items()),
    *(Artefact(f"image: {key}", _file(*value), PREDICT) for key, value in DISGUISES.items()),
    *(Artefact(f"file name: {key}", _named(*value), PREDICT) for key, value in FILENAMES.items()),
    Artefact("image: a TIFF with neighbours that lead out", _sidecars, PREDICT),
    Artefact("image: pipes and folders", _pipe, PREDICT),
    Artefact("image: links to devices and circles", _links, PREDICT),
    *(Artefact(f"data: file name of {key}", _data(names=("a", "b", "c", name)), DATA)
      for key, name in {"control": CONTROL.replace("\r", "") + "a", "newline": "a\nhrseg: all is well\nb",
                        "markup": MARKUP.replace("/", ";"), "script": "<img src=x onerror=alert(1)>",
                        "255 bytes": "a" * 251, "no UTF-8": b"a\xff".decode("utf-8", "surrogateescape"),
                        }.items()),
    *(Artefact(f"data: classes of {key}", _classes(value), DATA) for key, value in CLASSES.items()),
    *(Artefact(f"data: list of {key}", _list(*value), LISTED) for key, value in LINES.items()),
    Artefact("data: link to a device", _linked("/dev/zero"), DATA),
    Artefact("data: link to a secret", _linked("OUTSIDE/secret.txt"), DATA),
    Artefact("data: links in a circle", _data(_loop), DATA),
    Artefact("data: names that fall together", _data(_collide), DATA),
    Artefact("data: PNG with a profile that prints", _data(lambda place: (
        place.given / "images/b.png").write_bytes(png((40, 40), profile(EVIL), 16))), DATA),
    Artefact("data: SVG as PNG", _data(lambda place: (
        place.given / "images/b.png").write_bytes(b"<svg/>")), DATA),
    Artefact("data: PNG of 40000 x 40000", _data(lambda place: (
        place.given / "masks/b.png").write_bytes(png((40000, 40000), claimed=True, kind=0))), DATA),
]  # fmt: skip
_ = (FOLDER, BROKEN)
