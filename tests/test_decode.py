"""Photographs as people have them: turned, transparent, deep, animated, damaged, hostile."""

import contextlib
import errno
import gzip
import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tavaal_jax.data.pictures import decode
from tavaal_jax.data.pictures.values import overflow_lines

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
WHITE, RED = (255, 255, 255), (255, 0, 0)


def coded(image, kind="PNG", **options):
    """The bytes of a file, open."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    out.seek(0)
    return out


def ramp(dtype=np.uint16):
    """`[256, 256]`, every value of 16 bits once."""
    return np.arange(65536).reshape(256, 256).astype(dtype)


def noise(height=20, width=30, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def blocks():
    """`[16, 32, 3]`: four colours, so that each turn shows, also after JPEG."""
    small = np.array([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 0)]], np.uint8)
    return small.repeat(8, 0).repeat(16, 1)


def png(width, height, depth=8, colour=2, data=b"", chunks=()):
    """A PNG, whatever it claims to be."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in parts
        )
    )


# What is plain


def test_a_picture_of_that_size_comes_as_it_is():
    image = noise(24, 24)
    np.testing.assert_array_equal(decode.decode(coded(Image.fromarray(image)), 24, 3), image)


def test_grey_and_colour_become_each_other():
    grey, colour = noise(8, 8)[..., 0], noise(8, 8)
    found = decode.decode(coded(Image.fromarray(grey)), 8, 3)
    np.testing.assert_array_equal(found, np.stack([grey] * 3, -1))
    found = decode.decode(coded(Image.fromarray(colour)), 8, 1)
    assert found.shape == (8, 8, 1)
    np.testing.assert_array_equal(found[..., 0], np.asarray(Image.fromarray(colour).convert("L")))


@pytest.mark.parametrize("kind", FORMATS)
def test_seven_formats_are_read(kind, tmp_path):
    file = coded(Image.fromarray(blocks()), kind)
    assert decode.header(file)[:2] == (32, 16)
    path = tmp_path / "any name"
    path.write_bytes(file.getvalue())
    found = decode.decode(path, 16, 3)
    np.testing.assert_array_equal(found, decode.decode(file, 16, 3))
    assert np.abs(found[4, 4].astype(int) - RED).max() < 20


@pytest.mark.parametrize("kind", ["EPS", "ICO", "TGA", "PCX", "DDS", "SGI", "MSP"])
def test_no_other_format_reaches_its_decoder(kind):
    image = Image.new("1" if kind == "MSP" else "RGB", (32, 32))
    for read in (decode.header, lambda file: decode.decode(file, 8, 3)):
        with pytest.raises(decode.Corrupt, match="no JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM"):
            read(coded(image, kind))


def test_heic_and_avif_are_named_with_their_mend():
    for brand, name in ((b"heic", "HEIC"), (b"mif1", "HEIC"), (b"avif", "AVIF")):
        file = io.BytesIO(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic")
        with pytest.raises(decode.Unsupported, match=f"{name}: convert to JPEG"):
            decode.header(file)


def test_a_jpeg_is_decoded_in_full():
    file = coded(Image.fromarray(noise(256, 384)), "JPEG")
    small = Image.open(file).resize((16, 16), Image.Resampling.BILINEAR)
    file.seek(0)
    np.testing.assert_array_equal(decode.decode(file, 16, 3), np.asarray(small))


def test_the_id_is_that_of_the_bytes():
    digest = hashlib.sha256(b"abc").hexdigest()
    assert decode.content_id(io.BytesIO(b"abc")) == f"i{digest[:16]}"


# Turned

SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("turn", SHOWN)
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}),
     ("TIFF", {"compression": "tiff_lzw"})],
)  # fmt: skip
def test_a_picture_is_turned_as_its_exif_asks(turn, kind, options):
    exif = Image.Exif()
    exif[0x112] = turn
    file = coded(Image.fromarray(blocks()), kind, exif=exif, **options)
    shown = SHOWN[turn](blocks())
    assert decode.header(file)[:2] == shown.shape[1::-1]
    found = decode.decode(file, 32, 3, "pad")
    wanted = decode.decode(coded(Image.fromarray(shown)), 32, 3, "pad")
    # Block edges of JPEG and of the resized picture aside.
    assert np.median(np.abs(found.astype(int) - wanted)) <= 6
    seen = Image.open(io.BytesIO(decode.preview(file, 32)))
    assert seen.size == shown.shape[1::-1]


def test_exif_behind_the_pixels_of_a_png_counts_too():
    exif = Image.Exif()
    exif[0x112] = 3
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + body))
    plain = coded(Image.fromarray(noise(8, 8))).getvalue()
    file = io.BytesIO(plain[:-12] + chunk + plain[-12:])
    np.testing.assert_array_equal(decode.decode(file, 8, 3), noise(8, 8)[::-1, ::-1])


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"],
)
def test_a_picture_with_damaged_exif_is_whole(exif):
    file = coded(Image.fromarray(noise(8, 8)), exif=exif)
    np.testing.assert_array_equal(decode.decode(file, 8, 3), noise(8, 8))
    assert decode.header(file) == (8, 8, "RGB")


def test_an_orientation_that_does_not_exist_turns_nothing():
    for value in (0, 9, 65535):
        exif = Image.Exif()
        exif[0x112] = value
        file = coded(Image.fromarray(noise(8, 8)), exif=exif)
        np.testing.assert_array_equal(decode.decode(file, 8, 3), noise(8, 8))


# Transparent


def hidden():
    """RGBA `[8, 8]`: red, of which the right half is fully transparent."""
    pixels = np.full((8, 8, 4), (*RED, 255), np.uint8)
    pixels[:, 4:, 3] = 0
    return Image.fromarray(pixels)


def keyed():
    """A palette of red and green, green transparent."""
    image = Image.fromarray(np.repeat([[0] * 4 + [1] * 4], 8, 0).astype(np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    return image


def rgb_of_two():
    return keyed().convert("RGB")


@pytest.mark.parametrize(
    "file",
    [
        lambda: coded(hidden()),
        lambda: coded(hidden(), "WEBP", lossless=True, exact=True),
        lambda: coded(hidden(), "TIFF"),
        lambda: coded(hidden(), "GIF"),
        lambda: coded(keyed(), transparency=1),
        lambda: coded(keyed(), transparency=b"\xff\x00"),
        lambda: coded(keyed(), "GIF", transparency=1),
        lambda: coded(rgb_of_two(), transparency=(0, 255, 0)),
    ],
)
def test_what_is_transparent_is_white_as_on_a_page(file):
    found = decode.decode(file(), 8, 3)
    np.testing.assert_array_equal(found[:, :4], np.broadcast_to(RED, (8, 4, 3)))
    np.testing.assert_array_equal(found[:, 4:], np.broadcast_to(WHITE, (8, 4, 3)))


def test_transparent_grey_is_white_too():
    pixels = np.zeros((8, 8, 2), np.uint8)
    pixels[:4, :, 1] = 255
    found = decode.decode(coded(Image.fromarray(pixels, "LA")), 8, 1)
    np.testing.assert_array_equal(found[:4], 0)
    np.testing.assert_array_equal(found[4:], 255)
    plain = Image.fromarray(np.repeat([[0] * 4 + [90] * 4], 8, 0).astype(np.uint8))
    found = decode.decode(coded(plain, transparency=90), 8, 1)
    np.testing.assert_array_equal(found[:, :4], 0)
    np.testing.assert_array_equal(found[:, 4:], 255)


def test_half_transparent_is_half_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 127))
    np.testing.assert_array_equal(decode.decode(coded(image), 8, 3), 128)


# Other colours


def test_palette_cmyk_and_black_and_white():
    found = decode.decode(coded(keyed()), 8, 3)
    np.testing.assert_array_equal(found, np.asarray(rgb_of_two()))
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    np.testing.assert_array_equal(decode.decode(coded(cmyk, "TIFF"), 8, 3)[0, 0], RED)
    found = decode.decode(coded(cmyk, "JPEG", quality=95), 8, 3)[0, 0]
    assert np.abs(found.astype(int) - RED).max() < 12
    bits = Image.fromarray(noise(8, 8)[..., 0] > 127)
    assert decode.header(coded(bits)).mode == "1"
    np.testing.assert_array_equal(decode.decode(coded(bits), 8, 1)[..., 0], np.asarray(bits) * 255)


def test_colours_that_cannot_be_turned_into_rgb_are_named():
    file = coded(Image.new("LAB", (8, 8)), "TIFF")
    assert decode.header(file).mode == "LAB"
    with pytest.raises(decode.Unsupported, match="mode LAB: convert to JPEG"):
        decode.decode(file, 8, 3)


# Deep


def pgm(values):
    height, width = values.shape
    return io.BytesIO(b"P5\n%d %d\n65535\n" % (width, height) + values.astype(">u2").tobytes())


@pytest.mark.parametrize(
    "file",
    [
        lambda: coded(Image.fromarray(ramp())),
        lambda: coded(Image.fromarray(ramp()), "TIFF"),
        lambda: coded(Image.fromarray(ramp(">u2")), "TIFF"),
        lambda: coded(Image.fromarray(ramp(np.int32)), "TIFF"),
        lambda: pgm(ramp()),
    ],
)
def test_16_bits_are_scaled_not_cut(file):
    found = decode.decode(file(), 256, 1)[..., 0]
    np.testing.assert_array_equal(found, np.rint(ramp() / 257))
    assert (found == 255).mean() < 0.01  # Pillow's convert makes 99.6 % of it white.
    np.testing.assert_array_equal(decode.decode(file(), 256, 3)[..., 2], found)


def test_values_that_become_black_and_white_can_be_given():
    found = decode.decode(coded(Image.fromarray(ramp())), 256, 1, low_high=(1000, 5095))[..., 0]
    wanted = np.clip((ramp().astype(float) - 1000) / 4095 * 255, 0, 255)
    np.testing.assert_array_equal(found, np.rint(wanted))
    with pytest.raises(ValueError, match="two different values"):
        decode.decode(coded(Image.fromarray(ramp())), 8, 1, low_high=(5, 5))


def test_low_high_leaves_8_bits_alone():
    file = coded(Image.fromarray(noise(8, 8)))
    np.testing.assert_array_equal(decode.decode(file, 8, 3, low_high=(0, 9)), noise(8, 8))


def test_floats_are_scaled_and_what_is_no_number_is_black():
    values = np.linspace(-0.5, 1.5, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0], values[0, 1], values[7, 7] = np.nan, -np.inf, np.inf
    file = coded(Image.fromarray(values), "TIFF")
    found = decode.decode(file, 8, 1)[..., 0]
    finite = np.nan_to_num(values.astype(np.float64), nan=0, posinf=1, neginf=0)
    wanted = np.rint(np.clip(finite, 0, 1) * 255)
    np.testing.assert_array_equal(found, wanted)
    assert decode.decode(file, 8, 1, low_high=(-0.5, 1.5))[0, 2, 0] == 8


def test_negative_values_of_32_bits_are_black():
    file = coded(Image.fromarray(np.array([[-5, 65535], [0, 10**9]], np.int32)), "TIFF")
    np.testing.assert_array_equal(decode.decode(file, 2, 1)[..., 0], [[0, 255], [0, 255]])


def test_white_is_zero_where_a_tiff_says_so():
    file = coded(Image.fromarray(ramp()), "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(
        decode.decode(file, 256, 1)[..., 0], 255 - np.rint(ramp() / 257).astype(np.uint8)
    )


def test_a_transparent_value_of_16_bits_is_white():
    chunk = (b"tRNS", struct.pack(">H", 7))
    rows = b"".join(b"\0" + struct.pack(">4H", 0, 7, 8, 65535) for _ in range(4))
    found = decode.decode(png(4, 4, 16, 0, rows, [chunk]), 4, 1)
    np.testing.assert_array_equal(found[0, :, 0], [0, 255, 0, 255])


def test_colours_of_16_bits_keep_their_upper_byte():
    rows = b"".join(b"\0" + struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0, 65535, 255) for _ in "ab")
    found = decode.decode(png(2, 2, 16, 2, rows), 2, 3)
    np.testing.assert_array_equal(found[0], [[0x12, 0x56, 0x9A], [0, 255, 0]])


# Several pictures in one file


@pytest.mark.parametrize(
    ("kind", "options"),
    [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("MPO", {})],
)
def test_of_an_animation_or_of_pages_the_first_is_taken(kind, options):
    first, second = Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), (0, 0, 255))
    file = coded(first, kind, save_all=True, append_images=[second], **options)
    found = decode.decode(file, 16, 3)
    assert np.abs(found.astype(int) - RED).max() < 6
    assert decode.header(file)[:2] == (16, 16)


# Damaged


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_short_has_a_reason(kind):
    options = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
    whole = coded(Image.fromarray(noise(100, 100)), kind, **options).getvalue()
    with pytest.raises(decode.Corrupt) as caught:
        decode.decode(io.BytesIO(whole[: len(whole) // 2]), 8, 3)
    assert caught.value.lasting
    assert any(map(str.isalpha, str(caught.value)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"x", "no JPEG"),
        (b"<html>gone</html>", "a web page: download the picture again"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><p>404", "a web page"),
        (b"\0" * 99, "it begins with zeros: copy it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (gzip.compress(b"x", mtime=0), "packed with gzip: unpack it"),
        (b"PK\3\4..", "an archive: unpack it"),
        (b"%PDF-1.7", "a PDF: convert it to PNG"),
        (b"<?xml version='1.0'?><svg xmlns=''/>", "SVG: convert to PNG"),
        (bytes(128) + b"DICM", "DICOM: convert to PNG"),
        (b"\0\0\0\x0cjP  \r\n", "JPEG 2000: convert to JPEG"),
        (b"8BPS", "PSD: convert to JPEG"),
    ],
)
def test_what_is_no_picture_has_a_reason(content, reason):
    for read in (decode.header, lambda file: decode.preview(file, 64)):
        with pytest.raises(decode.Corrupt, match=reason):
            read(io.BytesIO(content))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.filterwarnings("ignore")  # Pillow's, of metadata
def test_damaged_bytes_raise_nothing_else(kind):
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x112] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}
    whole = np.frombuffer(coded(Image.fromarray(noise()), kind, **options).getvalue(), np.uint8)
    for _ in range(150):
        damaged = whole[: random.integers(8, len(whole) + 1)].copy()
        places = random.integers(4, len(damaged), random.integers(1, 6))
        damaged[places] = random.integers(0, 256, len(places))
        file = io.BytesIO(damaged.tobytes())
        for read in (decode.header, lambda file: decode.decode(file, 8, 3)):
            with contextlib.suppress(decode.Corrupt):
                if _is_small(file):
                    read(file)


def _is_small(file):
    """Damage can claim a size that would take minutes; the scan leaves such a file out."""
    head = decode.header(file)
    return head.width * head.height < 10**6


def _chunk(kind, body, checksum=None):
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


@pytest.mark.parametrize(
    "remark",
    [
        _chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 1_500_000)),
        _chunk(b"tEXt", b"a\0b", checksum=0),
        _chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"y" * 1_200_000)),
    ],
    ids=["large", "bad checksum", "large international"],
)
@pytest.mark.parametrize("is_in_front", [True, False])
def test_a_png_whose_remarks_pillow_refuses_is_read_without_them(remark, is_in_front):
    exif = Image.Exif()
    exif[0x112] = 3
    plain = coded(Image.fromarray(noise(8, 8)), exif=exif).getvalue()
    place = 33 if is_in_front else len(plain) - 12
    file = io.BytesIO(plain[:place] + remark + plain[place:])
    assert decode.header(file) == (8, 8, "RGB")
    np.testing.assert_array_equal(decode.decode(file, 8, 3), noise(8, 8)[::-1, ::-1])


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kind", ["noise", "flat"])
def test_a_jpeg_is_whole_that_lacks_only_its_end_mark(kind, progressive):
    pixels = noise(90, 120) if kind == "noise" else np.full((90, 120, 3), 90, np.uint8)
    whole = coded(Image.fromarray(pixels), "JPEG", progressive=progressive).getvalue()
    wanted = decode.decode(io.BytesIO(whole), 32, 3)
    for cut in (1, 2):
        found = decode.decode(io.BytesIO(whole[:-cut]), 32, 3)
        np.testing.assert_array_equal(found, wanted)
    for cut in (40, len(whole) // 4, len(whole) // 2) if kind == "noise" else ():
        with pytest.raises(decode.Corrupt, match="cut short: copy it again"):
            decode.decode(io.BytesIO(whole[:-cut]), 32, 3)


def test_pictures_that_come_out_white_or_black_have_their_values_told():
    checked = lambda values: (
        decode.decode_checked(coded(Image.fromarray(values), "TIFF"), 8, 1).overflow
    )
    steps = np.arange(64).reshape(8, 8)
    bright = checked((steps * 3.5).astype(np.float32))
    signed = checked((steps / 32 - 1).astype(np.float32))
    dark = checked((steps * 58).astype(np.uint16))
    assert bright == ("floats", 0, 220.5)
    assert signed == ("floats", -1, 31 / 32) or signed is None
    assert dark == ("16 bits", 0, 3654)
    for fine in ((steps / 63).astype(np.float32), (steps * 999).astype(np.uint16)):
        assert checked(fine) is None
    assert checked(np.zeros((8, 8), np.uint16)) is None  # It may be meant to be black.
    given = decode.decode_checked(
        coded(Image.fromarray((steps * 58).astype(np.uint16)), "TIFF"), 8, 1, low_high=(0, 9)
    )
    assert given.overflow is None  # Whoever gives limits means them.
    assert overflow_lines([bright, dark, dark], "folder.low_high") == [
        "2 pictures of 16 bits have values from 0 to 3654 and come out mostly white or black, as 0"
        ' to 65535 is shown: give --config.folder.low_high="(0, 4095)"',
        "1 pictures of floats have values from 0 to 220.5 and come out mostly white or black, as 0"
        ' to 1 is shown: give --config.folder.low_high="(0, 255)"',
    ]


def test_what_the_disk_or_memory_says_does_not_last(tmp_path, monkeypatch):
    with pytest.raises(decode.Corrupt, match="No such file") as caught:
        decode.header(tmp_path / "gone.jpg")
    assert not caught.value.lasting

    class Broken(io.BytesIO):
        def read(self, *_):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(decode.Corrupt, match="Input/output error") as caught:
        decode.decode(Broken(), 8, 3)
    assert not caught.value.lasting

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(decode, "eight_bits", full)
    with pytest.raises(decode.Corrupt, match="too little memory") as caught:
        decode.decode(coded(Image.fromarray(noise())), 8, 3)
    assert not caught.value.lasting


# Too large: nothing of these is ever decoded, and Pillow does not warn


def test_the_head_of_a_bomb_is_read_and_nothing_else():
    for side in (12_000, 60_000):
        file = png(side, side)
        assert decode.header(file) == (side, side, "RGB")
        with pytest.raises(decode.TooLarge, match=rf"{side}x{side} .* max_pixels \(100000000\)"):
            decode.preview(file, 64, max_pixels=10**8)


def test_formats_that_pillow_measures_itself_are_too_large_as_well():
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + (16382).to_bytes(3, "little") * 2
    with pytest.raises(decode.TooLarge):
        decode.header(io.BytesIO(b"RIFF" + struct.pack("<I", len(body)) + body))


# Sizes


def test_stretch_crop_and_pad():
    image = Image.fromarray(noise(20, 40))
    whole = image.resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode.decode(coded(image), 16, 3), np.asarray(whole))
    square = decode.decode(coded(image), 20, 3, "crop")
    np.testing.assert_array_equal(square, noise(20, 40)[:, 10:30])
    padded = decode.decode(coded(image), 40, 3, "pad")
    np.testing.assert_array_equal(padded[10:30], noise(20, 40))
    assert (padded[:10] == 0).all()
    assert (padded[30:] == 0).all()
    with pytest.raises(ValueError, match="none of stretch, crop, pad"):
        decode.decode(coded(image), 16, 3, "squeeze")


@pytest.mark.parametrize("resize", decode.RESIZE)
@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (1, 1), (7, 5)])
def test_any_shape_fits(resize, shape):
    found = decode.decode(coded(Image.new("L", shape, 200)), 8, 1, resize)
    assert found.shape == (8, 8, 1)
    assert found.max() == 200


def test_shrinking_averages():
    fine = Image.fromarray((np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8))
    found = decode.decode(coded(fine), 8, 1)
    assert np.abs(found.astype(int) - 128).max() <= 2


# Previews


def test_a_preview_is_a_jpeg_of_the_same_shape_that_is_not_enlarged():
    image = Image.fromarray(noise(100, 300))
    for pixels, size in ((150, (150, 50)), (1000, (300, 100))):
        with Image.open(io.BytesIO(decode.preview(coded(image), pixels))) as seen:
            assert (seen.format, seen.size, seen.mode) == ("JPEG", size, "RGB")


def test_a_preview_shows_what_the_network_sees():
    with Image.open(io.BytesIO(decode.preview(coded(Image.fromarray(ramp())), 64))) as seen:
        assert seen.mode == "L"
        assert 100 < np.asarray(seen).mean() < 155
    with Image.open(io.BytesIO(decode.preview(coded(hidden()), 64))) as seen:
        assert np.asarray(seen)[:, -1].min() > 200
    options = {"low_high": (0, 655)}
    with Image.open(
        io.BytesIO(decode.preview(coded(Image.fromarray(ramp())), 64, **options))
    ) as seen:
        assert np.asarray(seen).mean() > 240


def test_a_preview_has_nothing_of_the_metadata():
    exif = Image.Exif()
    exif[0x10E] = "SECRET place"
    file = coded(
        Image.fromarray(noise()), "JPEG", exif=exif, comment=b"SECRET", icc_profile=b"SECRET"
    )
    assert b"SECRET" in file.getvalue()
    assert b"SECRET" not in decode.preview(file, 1000)
