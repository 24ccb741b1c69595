import builtins
import io
import os
import re
import shutil
import struct
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cem.config import ImageFolderDataset, Split
from cem.data.check import check_files
from cem.data.fingerprint import fingerprint
from cem.data.prepare import prepare_data
from cem.data.sources import DataError, Source, files, read_labels, read_source
from cem.data.sources import picture as picture_module
from cem.data.sources.files import content_digest
from cem.data.sources.parts import class_folders
from cem.data.sources.picture import Pictures, without_warnings
from cem.storage.hdf5 import open_dataset

SMALL = Split(val=4, shadow=4, test=4)


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolderDataset:
    """Two classes of ten grey images; image i of a class is filled with 10 · i, + 1 in the second."""
    for label, name in enumerate(["ant's", "bee"]):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("L", (12, 8), 10 * i + label).save(tmp_path / name / f"{i}.png")
    return ImageFolderDataset(name="insects", path=str(tmp_path), split=SMALL)


def every(source: Source) -> list[np.ndarray]:
    with without_warnings():
        return [source.images[row] for row in range(len(source.images))]


def refused(dataset: ImageFolderDataset, message: str) -> None:
    """The check before any job and the reading itself refuse alike."""
    for refuses in (check_files, lambda dataset: every(read_source(dataset))):
        with pytest.raises(DataError, match=message):
            refuses(dataset)


def notes(dataset: ImageFolderDataset) -> str:
    known = check_files(dataset)
    assert known is not None
    return "\n".join(known.notes)


def picture(path: Path, value: int, **settings: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (16, 16), value).save(path, **settings)


@pytest.mark.parametrize("form", ["ppm", "bmp", "tif", "qoi", "tga"])
def test_a_cut_image_of_a_format_without_an_end_is_refused_before_any_job(
    folder: ImageFolderDataset, form: str
) -> None:
    path = Path(folder.path, "bee", f"3.{form}")
    Image.new("RGB", (12, 8), (1, 2, 3)).save(path)
    Image.effect_noise((12, 8), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(folder, f"3.{form}: expected an image")


def turned_at_the_end(path: Path) -> None:
    """A PNG that is stored 8×12 and shown 12×8, by an EXIF part behind the pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    Image.new("L", (8, 12), 77).save(content, "PNG")
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    end = content.getvalue().index(b"IEND") - 4
    path.write_bytes(content.getvalue()[:end] + chunk + content.getvalue()[end:])


def turned_by_xmp(path: Path) -> None:
    told = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description tiff:Orientation="6" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/></rdf:RDF></x:xmpmeta>'
    )
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", told)
    Image.new("L", (8, 12), 77).save(path, pnginfo=info)


@pytest.mark.parametrize("write", [turned_at_the_end, turned_by_xmp])
def test_header_and_pixels_agree_on_how_an_image_is_turned(folder: ImageFolderDataset, write: Callable) -> None:
    write(Path(folder.path, "bee", "3.png"))
    check_files(folder)
    assert {image.shape for image in every(read_source(folder))} == {(8, 12)}
    for path in Path(folder.path).rglob("*.png"):
        if path.name != "3.png":
            Image.new("L", (8, 12), 10 * int(path.stem) + len(path.parent.name)).save(path)
    with pytest.raises(DataError, match="expected images of one size"):
        check_files(folder)


def test_a_rare_format_is_read(folder: ImageFolderDataset) -> None:
    pixels = np.arange(12 * 8 * 3, dtype=np.uint8).reshape(8, 12, 3)
    sun = struct.pack(">8I", 0x59A66A95, 12, 8, 24, 12 * 8 * 3, 1, 0, 0) + pixels[..., ::-1].tobytes()
    Path(folder.path, "bee", "a.ras").write_bytes(sun)
    check_files(folder)
    assert (every(read_source(folder))[-1] == pixels).all()


def test_classes_and_files_come_in_the_order_of_their_names(folder: ImageFolderDataset) -> None:
    check_files(folder)
    source = read_source(folder)
    assert source.class_names == ("ant's", "bee")
    np.testing.assert_array_equal(source.labels, [0] * 10 + [1] * 10)
    images = np.stack(every(source))
    assert images.shape == (20, 8, 12)
    np.testing.assert_array_equal(images[:, 0, 0], [10 * i + label for label in (0, 1) for i in range(10)])


def test_grey_and_colour_may_be_mixed(folder: ImageFolderDataset, tmp_path: Path) -> None:
    Image.new("RGB", (12, 8), (1, 2, 3)).save(Path(folder.path, "bee", "9.png"))
    prepare_data(folder, tmp_path / "out.h5")
    with open_dataset(tmp_path / "out.h5") as file:
        index = np.concatenate([file.array(f"{split}/index") for split in ("private", "val", "shadow", "test")])
        images = np.concatenate([file.images(split) for split in ("private", "val", "shadow", "test")])
    np.testing.assert_array_equal(images[list(index).index(19), :, 0, 0], [1, 2, 3])
    np.testing.assert_array_equal(images[list(index).index(1), :, 0, 0], [10, 10, 10])


def test_the_digest_follows_the_content(folder: ImageFolderDataset) -> None:
    before = read_source(folder).sha256
    assert read_source(folder).sha256 == before
    Image.new("L", (12, 8), 77).save(Path(folder.path, "bee", "9.png"))
    assert read_source(folder).sha256 != before


@pytest.mark.parametrize("relative", [False, True])
def test_each_image_is_read_once_and_hashed_from_what_was_read(
    folder: ImageFolderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    Path(folder.path, "bee", "notes.txt").write_text("no image")
    if relative:
        monkeypatch.chdir(tmp_path.parent)
        folder = folder.model_copy(update={"path": os.path.relpath(folder.path)})
    expected = content_digest(folder.files())
    again, actual = [], files._hashed
    monkeypatch.setattr(files, "_hashed", lambda path, digest: again.append(Path(path).name) or actual(path, digest))
    assert prepare_data(folder, tmp_path / "out.h5").sha256 == expected
    assert again == ["notes.txt"]
    Path(folder.path, "bee", "notes.txt").write_text("NO IMAGE")
    assert content_digest(folder.files()) != expected


# What a viewer does to show a stored image upright, for each value of EXIF's orientation, by their definition (TIFF 6,
# page 36): where the first row and column that are stored belong.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: stored.T[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: stored.T[::-1],
}


@pytest.mark.parametrize("form", ["png", "tiff", "webp", "jpg", "avif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_images_are_upright(tmp_path: Path, form: str, orientation: int) -> None:
    stored = np.zeros((20, 30), np.uint8)
    stored[:8, :8], stored[:8, -8:] = 255, 128
    exif = Image.Exif()
    exif[0x112] = orientation
    for name in "ab":
        picture(tmp_path / name / "0.png", 0)
        (tmp_path / name / "0.png").unlink()
        for i in range(2):
            lossless = {"lossless": True} if form == "webp" else {"quality": 95}
            Image.fromarray(np.roll(stored, i, 1)).save(tmp_path / name / f"{i}.{form}", exif=exif, **lossless)
    source = read_source(ImageFolderDataset(name="turned", path=str(tmp_path)))
    image = source.images[0] if source.images[0].ndim == 2 else source.images[0][..., 0]
    expected = UPRIGHT[orientation](stored)
    assert image.shape == expected.shape
    assert abs(image.astype(int) - expected).mean() < (0.01 if form in ("png", "tiff") else 4)


def test_an_exif_that_is_damaged_or_nonsense_leaves_an_image_as_it_is(folder: ImageFolderDataset) -> None:
    for name, exif in {"8": b"Exif\0\0MM\0*garbage", "9": b"Exif\0\0" + bytes(20)}.items():
        Image.new("L", (12, 8), 100).save(Path(folder.path, "bee", f"{name}.jpg"), exif=exif)
        Path(folder.path, "bee", f"{name}.png").unlink()
    assert every(read_source(folder))[-1].shape == (8, 12)


def test_turned_photographs_differ_in_size_once_they_are_upright(folder: ImageFolderDataset) -> None:
    exif = Image.Exif()
    exif[0x112] = 8
    Image.new("L", (12, 8)).save(Path(folder.path, "bee", "9.jpg"), exif=exif)
    with pytest.raises(DataError, match=r"with 12×8 and .*9\.jpg with 8×12 pixels"):
        check_files(folder)


def test_two_sizes_are_refused_with_both_files(folder: ImageFolderDataset, tmp_path: Path) -> None:
    Image.new("L", (13, 8)).save(Path(folder.path, "bee", "4.png"))
    with pytest.raises(DataError, match=r"ant's/0.png with 12×8 and .*bee/4.png with 13×8 pixels.*fit: crop"):
        check_files(folder)
    with pytest.raises(
        DataError, match=r"insects: expected images of one size, found /.*png with 1.×8 and /.*png with"
    ):
        prepare_data(folder, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(("fit", "mean"), [("crop", 255), ("pad", 255 * 4 / 9), ("stretch", 255 * 2 / 3)])
def test_sizes_may_differ_where_the_study_says_how_images_become_square(tmp_path: Path, fit: str, mean: float) -> None:
    """Images of 3:2 or 2:3, white in their middle square, black beside it; and white squares."""
    for name in "ab":
        for i in range(12):
            height, width = ((24, 36), (36, 24), (40, 60), (30, 30))[i % 4]
            short = min(height, width)
            top, left = (height - short) // 2, (width - short) // 2
            image = np.zeros((height, width), np.uint8)
            image[top : top + short, left : left + short] = 255
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / name / f"{i:02}.png")
    dataset = ImageFolderDataset(name="mixed", path=str(tmp_path), fit=fit, channels=1, split=SMALL)
    check_files(dataset)
    prepare_data(dataset, tmp_path / "out.h5")
    with open_dataset(tmp_path / "out.h5") as file:
        images, index = file.images("private"), file.array("private/index")
        assert file.attrs["original_sizes"] == "4 sizes from 24×36 to 60×40, most often 60×40 (6 images)"
        assert file.attrs["fit"] == fit
    square = index % 4 == 3
    assert (images[square] == 255).all()
    assert abs(images[~square].mean((1, 2, 3)) - mean).max() < 1
    above = images[:, :, :3].max((1, 2, 3))
    assert (above[index % 4 == 0] == 0).all() == (fit == "pad")


def test_images_read_together_are_those_read_one_by_one_and_few_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, most, held = np.random.default_rng(0), 1 << 20, []
    paths = []
    for i, side in enumerate([16] * 70 + [400] * 4 + [16] * 3):  # 400 · 400 · 7 bytes are more than `most`
        paths.append(str(tmp_path / f"{i:02}.{'png' if i % 3 else 'jpg'}"))
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(paths[-1])
    with open(paths[75], "ab") as file:
        file.write(bytes(most))  # as some cameras do
    decode, of_pillow = picture_module._decode, []

    def watched(opened: list) -> list:
        held.append(len(opened))
        of_pillow.extend(weakref.ref(one.image) for one in opened)
        return decode(opened)

    monkeypatch.setattr(picture_module, "_decode", watched)
    monkeypatch.setattr(picture_module, "_BYTES", most)
    with without_warnings():
        together, alone = Pictures(paths), Pictures(paths)
        order = rng.permutation(len(paths)).tolist()
        for row, image in zip(order, together.each(order), strict=True):
            assert np.array_equal(image, alone[row])
    assert together.digests == alone.digests
    assert max(held) == 32  # small ones
    held.clear()
    for _ in together.each(range(len(paths))):
        assert not any(image() for image in of_pillow)  # which would double what is held
    assert held == [32, 32, 7, 1, 1, 1, 2, 1]  # the first large one comes at the end of a few small ones


def test_a_damaged_image_is_named(folder: ImageFolderDataset) -> None:
    path = Path(folder.path, "bee", "4.png")
    path.write_bytes(path.read_bytes()[:20])
    refused(folder, re.escape(str(path)) + ": expected an image")


@pytest.mark.parametrize(("name", "content"), [("4.ppm", b"P6\n12 8"), ("4.jpg", b""), ("4.png", b"<html>no</html>")])
def test_whatever_damages_an_image_is_said_in_one_line(folder: ImageFolderDataset, name: str, content: bytes) -> None:
    Path(folder.path, "bee", name).write_bytes(content)
    refused(folder, re.escape(f"{folder.path}/bee/{name}") + ": expected an image, cannot read it: .*Replace or remove")


def test_a_picture_of_too_many_pixels_is_refused(folder: ImageFolderDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (64, 64)).save(Path(folder.path, "bee", "4.png"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # it warns above, and refuses above twice as many
    refused(folder.model_copy(update={"fit": "crop"}), "4.png: expected an image, cannot read it: .*decompression bomb")


@pytest.mark.parametrize("size", [(1, 1), (7, 20), (8, 65)])
def test_what_is_no_picture_is_refused(folder: ImageFolderDataset, size: tuple[int, int]) -> None:
    Image.new("L", size).save(Path(folder.path, "bee", "4.png"))
    fitted = folder.model_copy(update={"fit": "crop"})
    refused(fitted, f"4.png: expected pictures, at least 8 pixels .* found {size[0]}×{size[1]}")


def test_transparency_is_refused_in_palettes_too(folder: ImageFolderDataset) -> None:
    path = Path(folder.path, "bee", "4.png")
    Image.new("RGBA", (12, 8)).save(path)
    refused(folder, "without transparency, found Pillow's mode 'RGBA'")
    Image.new("LA", (12, 8)).save(path)
    refused(folder, "without transparency, found Pillow's mode 'LA'")
    for mode, transparent in {"P": bytes([0, 255]), "RGB": (0, 0, 0), "L": 0}.items():
        Image.new(mode, (12, 8)).save(path, transparency=transparent)
        refused(folder, f"found Pillow's mode '{mode}' with transparency")
    Image.new("I;16", (12, 8)).save(path)
    refused(folder, "expected 8-bit grey or colour .*found Pillow's mode 'I")


@pytest.mark.parametrize("value", [0, 1])
def test_black_images_are_refused(tmp_path: Path, value: int) -> None:
    for name in "ab":
        for i in range(12):
            picture(tmp_path / name / f"{i}.png", value * (i % 2))
    dataset = ImageFolderDataset(name="black", path=str(tmp_path), split=SMALL)
    refused(dataset, "expected values from 0 to 255, but all are 0 or 1")


def test_equal_images_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        for i in range(12):
            picture(tmp_path / name / f"{i}.png", 77)
    refused(ImageFolderDataset(name="equal", path=str(tmp_path), split=SMALL), "expected images that differ")


def test_whatever_is_an_image_is_read_and_the_rest_is_counted_and_named(folder: ImageFolderDataset) -> None:
    bee = Path(folder.path, "bee")
    shutil.copy(bee / "3.png", bee / "without a suffix")
    Image.new("L", (12, 8), 50).save(bee / "a.jfif", format="JPEG")
    Image.new("L", (12, 8), 60).save(bee / "b.JPG")
    (bee / "more" / "deep").mkdir(parents=True)
    Image.new("L", (12, 8), 70).save(bee / "more" / "deep" / "c.tga")
    (bee / "notes.txt").write_text("no image")
    (bee / "empty").write_bytes(b"")
    for name in ("._0.png", ".DS_Store", "Thumbs.db"):
        (bee / name).write_bytes(b"left by a program")
    (bee / ".ipynb_checkpoints").mkdir()
    shutil.copy(bee / "3.png", bee / ".ipynb_checkpoints" / "3.png")
    shutil.copy(bee / "3.png", Path(folder.path) / "in no class.png")
    assert np.bincount(read_source(folder).labels).tolist() == [10, 14]
    assert notes(folder).splitlines() == [
        "4 files were left out (hidden): bee/.DS_Store, bee/._0.png, bee/.ipynb_checkpoints, … "
        "(2 no suffix, 1 .png, 1 .db).",
        "1 file was left out (in no folder of a class): in no class.png.",
        "2 files were left out (no image that can be read): bee/empty, bee/notes.txt.",
    ]


def test_only_the_first_of_several_frames_is_read_and_that_is_said(folder: ImageFolderDataset, tmp_path: Path) -> None:
    frames = [Image.new("L", (12, 8), value) for value in (90, 200)]
    for suffix in ("gif", "tiff", "webp", "png"):
        frames[0].save(Path(folder.path, "ant's", f"x.{suffix}"), save_all=True, append_images=frames[1:])
    assert "4 files hold several pictures, of which the first is read: " in notes(folder)
    source = read_source(folder)
    assert all(abs(int(np.asarray(source.images[row]).flat[0]) - 90) < 3 for row in range(10, 14))
    prepare_data(folder, tmp_path / "out.h5")
    with open_dataset(tmp_path / "out.h5") as file:
        assert "4 files hold several pictures" in file.notes[-1]


def test_an_empty_class_is_named(folder: ImageFolderDataset) -> None:
    Path(folder.path, "wasp").mkdir()
    refused(folder, "all 3 classes, found none of 'wasp'")


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    refused(ImageFolderDataset(name="none", path=str(tmp_path)), "at least 2 folders, one for each class, found 0")
    absent = ImageFolderDataset(name="none", path=str(tmp_path / "absent"))
    refused(absent, "expected a folder of folders, one for each class; found none")
    (tmp_path / "file").touch()
    refused(absent.model_copy(update={"path": str(tmp_path / "file")}), "one for each class; found a file")


def test_links_are_followed_but_not_to_nothing_nor_in_circles(folder: ImageFolderDataset, tmp_path: Path) -> None:
    bee = Path(folder.path, "bee")
    (bee / "linked.png").symlink_to(bee / "3.png")
    assert np.bincount(read_source(folder).labels).tolist() == [10, 11]
    (bee / "broken.png").symlink_to(bee / "absent.png")
    refused(folder, "broken.png: expected a file, found a link to nothing")
    (bee / "broken.png").unlink()
    (bee / "circle").symlink_to(bee)
    refused(folder, "circle: found a link that leads back to a folder above it")
    (bee / "circle").unlink()
    (bee / "itself").symlink_to(bee / "itself")
    for looks in (check_files, read_source, lambda dataset: fingerprint(dataset, tmp_path / "out.h5")):
        with pytest.raises(DataError, match="itself: cannot tell what this is: Too many levels"):
            looks(folder)


def test_a_pipe_is_left_out_and_not_waited_for(
    folder: ImageFolderDataset, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected, out = content_digest(folder.files()), tmp_path_factory.mktemp("out") / "out.h5"
    os.mkfifo(Path(folder.path, "bee", "pipe"))
    assert "1 file was left out (no regular file): bee/pipe." in notes(folder)
    assert fingerprint(folder, out)
    assert prepare_data(folder, out).sha256 == expected == content_digest(folder.files())


def test_a_file_beside_the_images_that_may_not_be_read_is_refused(folder: ImageFolderDataset, monkeypatch) -> None:
    """Before any job: its bytes are part of the digest. Those of a hidden file are not."""
    Path(folder.path, "bee", ".hidden").touch()
    allowed = os.access
    unreadable = ("notes.txt", ".hidden")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name not in unreadable and allowed(path, mode))
    check_files(folder)
    Path(folder.path, "bee", "notes.txt").touch()
    with pytest.raises(DataError, match=r"notes\.txt: expected a file that can be read"):
        check_files(folder)
    opened = builtins.open

    def forbidden(path, *args, **settings):
        if not isinstance(path, int) and Path(path).name in unreadable:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **settings)

    monkeypatch.setattr(builtins, "open", forbidden)
    with pytest.raises(DataError, match=r"notes\.txt: expected a file, cannot read it: Permission denied"):
        read_source(folder).digest()


def test_what_a_class_has_in_place_of_images_is_named(folder: ImageFolderDataset) -> None:
    wasp = Path(folder.path, "wasp")
    wasp.mkdir()
    for number in range(5):
        (wasp / f"{number}.heic").write_bytes(b"no picture that Pillow knows")
    refused(folder, r"found none that can be read of 'wasp', only wasp/0\.heic, .*5 \.heic.* Convert them to PNG")


@pytest.mark.parametrize("name", ["lost+found", "@eaDir", "$RECYCLE.BIN", "System Volume Information"])
def test_what_a_disk_has_of_its_own_is_no_class(folder: ImageFolderDataset, name: str) -> None:
    Path(folder.path, name).mkdir()
    check_files(folder)
    assert read_source(folder).class_names == ("ant's", "bee")


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").touch()
    refused(ImageFolderDataset(name="none", path=str(tmp_path / "photos.zip")), "found a file. Unpack it")


def test_names_may_be_any_bytes_but_those_of_classes(folder: ImageFolderDataset) -> None:
    image = Path(folder.path, "bee", os.fsdecode(b"caf\xe9.png"))
    shutil.copy(Path(folder.path, "bee", "3.png"), image)
    read_source(folder)
    image.write_bytes(b"no image")
    refused(folder, r"caf\\xe9.png: expected an image")
    image.unlink()
    for number in range(5):
        Path(folder.path, "bee", os.fsdecode(b"%d.\xe9" % number)).touch()
    assert r"5 .\xe9" in notes(folder)
    Path(folder.path, os.fsdecode(b"w\xe9")).mkdir()
    refused(folder, r"expected folders whose names are text in UTF-8 .*found w\\xe9")


def test_the_home_folder_and_braces_are_part_of_paths(folder: ImageFolderDataset, monkeypatch, tmp_path: Path) -> None:
    strange = tmp_path / "{a} ~b"
    strange.mkdir()
    for name in ("ant's", "bee"):
        shutil.move(Path(folder.path, name), strange)
    monkeypatch.setenv("HOME", str(tmp_path))
    moved = folder.model_copy(update={"path": "~/{a} ~b"})
    assert moved.files() == [str(strange)]
    check_files(moved)
    assert len(every(read_source(moved))) == 20


@pytest.fixture
def parts(tmp_path: Path) -> ImageFolderDataset:
    """train (20 a class), val (6) and test (4), each with folders of two classes."""
    for part, count in {"train": 20, "val": 6, "test": 4}.items():
        for label, name in enumerate(["n01", "n02"]):
            for i in range(count):
                picture(tmp_path / part / name / f"{i:02}.png", 10 + 100 * label + i)
    return ImageFolderDataset(name="parts", path=str(tmp_path))


def test_given_parts_are_kept(parts: ImageFolderDataset, tmp_path: Path) -> None:
    known = read_labels(parts)
    assert known is not None
    assert known.class_names == ("n01", "n02")
    assert (known.is_test.sum(), known.is_val.sum(), len(known.labels)) == (8, 12, 60)
    counted = check_files(parts)
    assert {split: counts.tolist() for split, counts in counted.counts.items()} == {
        "private": [16, 16], "val": [6, 6], "shadow": [4, 4], "test": [4, 4],
    }  # fmt: skip
    prepare_data(parts, tmp_path / "out.h5")
    files = sorted(path.relative_to(tmp_path).parts[0] for path in tmp_path.glob("*/*/*.png"))
    order = ["train"] * 40 + ["val"] * 12 + ["test"] * 8
    assert len(files) == len(order)
    with open_dataset(tmp_path / "out.h5") as file:
        for split, part in {"private": "train", "shadow": "train", "val": "val", "test": "test"}.items():
            assert {order[row] for row in file.array(f"{split}/index")} == {part}


def test_images_without_labels_are_left_out_and_val_is_then_the_test_part(parts: ImageFolderDataset) -> None:
    """As in ImageNet, whose test labels are secret."""
    for i, path in enumerate(sorted(Path(parts.path, "test").glob("*/*.png"))):
        path.rename(Path(parts.path, "test", f"{i}.png"))
    for name in ("n01", "n02"):
        Path(parts.path, "test", name).rmdir()
    known = read_labels(parts)
    assert (known.is_test.sum(), known.is_val) == (12, None)
    assert "The images of val are the test part." in known.notes
    assert "8 files were left out (in test, whose images have no labels): test/0.png" in "\n".join(known.notes)


def test_tiny_imagenet_lists_the_classes_of_its_val_images(parts: ImageFolderDataset) -> None:
    root = Path(parts.path)
    for name in ("n01", "n02"):
        (root / "train" / name / "images").mkdir()
        for path in (root / "train" / name).glob("*.png"):
            path.rename(path.parent / "images" / f"{name}_{path.stem}.JPEG")
        (root / "train" / name / f"{name}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t62\t62\n")
    shutil.rmtree(root / "val")
    shutil.rmtree(root / "test")
    lines = []
    for i in range(8):
        picture(root / "val" / "images" / f"val_{i}.JPEG", 10 + i, format="JPEG")
        lines.append(f"val_{i}.JPEG\tn0{1 + i % 2}\t0\t32\t44\t62\n")
    picture(root / "test" / "images" / "test_0.JPEG", 3, format="JPEG")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("n01\nn02\n")
    known = read_labels(parts)
    np.testing.assert_array_equal(known.labels[known.is_test], [0, 1] * 4)
    assert len(known.labels) == 48
    assert "(in test, whose images have no labels): test/images/test_0.JPEG" in "\n".join(known.notes)
    with (root / "val" / "val_annotations.txt").open("a") as file:
        file.write("val_99.JPEG\tn01\t0\t0\t1\t1\n")
    refused(parts, r"expected the images that val_annotations.txt lists, found none called val_99.JPEG")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn77\n")
    refused(parts, "val_annotations.txt: expected lines of file name, tab and class")


@pytest.mark.parametrize("part", ["test", "val"])
@pytest.mark.parametrize("left", [[], ["a.heic"]], ids=["empty", "unreadable"])
def test_a_part_without_images_is_refused(parts: ImageFolderDataset, part: str, left: list[str]) -> None:
    """Else images of another part would be scored in its place."""
    shutil.rmtree(Path(parts.path, part), ignore_errors=True)
    for name in class_folders(str(Path(parts.path, "train"))):
        Path(parts.path, part, name).mkdir(parents=True)
        for file in left:
            Path(parts.path, part, name, file).write_bytes(b"none")
    refused(parts, f"/{part}: expected images of the {part} part, found none that can be read")


def test_a_part_of_other_classes_is_no_part_without_labels(parts: ImageFolderDataset) -> None:
    for name in class_folders(str(Path(parts.path, "test"))):
        Path(parts.path, "test", name).rename(Path(parts.path, "test", name.upper()))
    refused(parts, "expected folders of the same classes as the training images")


def test_a_class_of_one_part_that_is_a_link_to_another_is_refused(parts: ImageFolderDataset) -> None:
    name = class_folders(str(Path(parts.path, "test")))[0]
    shutil.rmtree(Path(parts.path, "test", name))
    Path(parts.path, "test", name).symlink_to(Path(parts.path, "train", name))
    refused(parts, "expected a folder of its own for each class and part, found a link")


def test_parts_within_each_class_are_refused(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        for part in ("train", "test"):
            for i in range(6):
                picture(tmp_path / name / part / f"{i}.png", 10 * i + len(part))
    refused(ImageFolderDataset(name="pets", path=str(tmp_path), split=SMALL), "expected the parts above the classes")


def test_a_folder_around_the_classes_is_named(folder: ImageFolderDataset, tmp_path_factory) -> None:
    around = tmp_path_factory.mktemp("around")
    shutil.copytree(folder.path, around / "inner")
    refused(
        folder.model_copy(update={"path": str(around)}), rf"found 1\. Name {around}/inner if the classes are in there"
    )


def test_parts_of_other_classes_are_refused(parts: ImageFolderDataset) -> None:
    Path(parts.path, "test", "n02").rename(Path(parts.path, "test", "n03"))
    refused(parts, "test: expected folders of the same classes .* without 'n02' and beside them 'n03'")


def test_a_test_part_may_lie_apart(folder: ImageFolderDataset, tmp_path_factory: pytest.TempPathFactory) -> None:
    apart = tmp_path_factory.mktemp("apart")
    for name in ("ant's", "bee"):
        for i in range(3):
            (apart / name).mkdir(exist_ok=True)
            Image.new("L", (12, 8), i).save(apart / name / f"{i}.png")
    split = Split(val=4, shadow=4)
    known = read_labels(folder.model_copy(update={"test_path": str(apart), "split": split}))
    np.testing.assert_array_equal(known.is_test, [False] * 20 + [True] * 6)
    shutil.rmtree(apart / "bee")
    other = folder.model_copy(update={"test_path": str(apart), "split": split})
    refused(other, "expected folders of the same classes as the training images; found them without 'bee'")


def test_a_class_may_be_called_as_a_part_is(folder: ImageFolderDataset) -> None:
    Path(folder.path, "bee").rename(Path(folder.path, "train"))
    assert read_source(folder).class_names == ("ant's", "train")


@pytest.mark.parametrize("names", [("training_set", "test_set"), ("train", "dev"), ("Train", "unlabelled")])
def test_parts_under_other_names_are_no_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    """Else a network would learn which part an image is of, and test images be training images."""
    for part, classes in zip(
        names, [["cats", "dogs"], ["cats", "dogs"] if names[1] != "unlabelled" else []], strict=True
    ):
        for name in classes or ["."]:
            for i in range(10):
                picture(tmp_path / part / name / f"{i}.png", 10 * i + len(name))
    refused(ImageFolderDataset(name="pets", path=str(tmp_path), split=SMALL), "found .*folders such as cats and dogs")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["train/{}.png", "test/{}.png"], "found test, train, which are called as parts are"),
        (["training/{}.png", "val/{}.png", "test/{}.png"], "found test, training, val, which are called as parts are"),
        (["train/images/a/{}.png", "train/images/b/{}.png", "test/images/a/{}.png"], "found test, train, which are"),
        (
            [f"seg_{part}/seg_{part}/{name}/{{}}.png" for part in ("train", "test") for name in ("cats", "dogs")],
            "found seg_test, seg_train, which hold folders such as cats and dogs",
        ),
        (
            [f"{part}/x/y/{name}/{{}}.png" for part in ("images-train", "images-val") for name in ("cats", "dogs")],
            "found images-train, images-val, which hold folders such as cats and dogs",
        ),
    ],
)
def test_parts_without_classes_or_with_folders_between_are_no_classes(
    tmp_path: Path, paths: list[str], message: str
) -> None:
    for offset, path in enumerate(paths):
        for i in range(10):
            picture(tmp_path / path.format(i), 10 * i + offset)
    refused(ImageFolderDataset(name="pets", path=str(tmp_path), split=SMALL), message)


def test_classes_may_hold_folders_and_begin_like_a_part(tmp_path: Path) -> None:
    for name in ("trains", "planes"):
        for kind in ("old", "new") if name == "trains" else ("sea", "land"):
            for i in range(6):
                picture(tmp_path / name / kind / f"{i}.png", 10 * i + len(name))
    found = read_source(ImageFolderDataset(name="vehicles", path=str(tmp_path), split=SMALL))
    assert found.class_names == ("planes", "trains")


@pytest.mark.parametrize(
    ("names", "inner"),
    [(("bullet_train", "car"), ("day", "night")), (("heart valve", "stent"), ("images/a", "images/b"))],
)
def test_a_class_may_have_the_name_of_a_part_as_a_word(tmp_path: Path, names: tuple, inner: tuple) -> None:
    for offset, path in enumerate(f"{name}/{kind}" for name in names for kind in inner):
        for i in range(6):
            picture(tmp_path / path / f"{i}.png", 10 * i + offset)
    dataset = ImageFolderDataset(name="things", path=str(tmp_path), split=SMALL)
    assert read_source(dataset).class_names == names


def test_test_images_that_are_training_images_are_refused(
    folder: ImageFolderDataset, tmp_path_factory: pytest.TempPathFactory
) -> None:
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(folder.path)
    for path in (folder.path, str(link), str(Path(folder.path, "bee"))):
        refused(folder.model_copy(update={"test_path": path}), "expected parts that are apart, found .* share images")


def test_val_is_val_where_the_test_part_lies_apart(parts: ImageFolderDataset, tmp_path: Path) -> None:
    shutil.move(tmp_path / "test", tmp_path.parent / f"{tmp_path.name}-test")
    apart = parts.model_copy(update={"test_path": str(tmp_path.parent / f"{tmp_path.name}-test")})
    known = read_labels(apart)
    assert known.is_val is not None
    assert known.is_test is not None
    assert (known.is_val.sum(), known.is_test.sum()) == (12, 8)


def test_more_than_8_bits_a_colour_are_refused(folder: ImageFolderDataset) -> None:
    """Pillow would keep the high bits of each: of 12-bit values nearly black."""
    header = b"\x89PNG\r\n\x1a\n"

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + np.full((12, 3), 3000, ">u2").tobytes() for _ in range(8))
    deep = header + chunk(b"IHDR", struct.pack(">IIBBBBB", 12, 8, 16, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows))
    Path(folder.path, "bee", "0.png").write_bytes(deep + chunk(b"IEND", b""))
    refused(folder, "of other than 8 bits")
    Path(folder.path, "bee", "0.png").unlink()
    Path(folder.path, "bee", "0.ppm").write_bytes(b"P6 12 8 4095\n" + np.full(12 * 8 * 3, 3000, ">u2").tobytes())
    refused(folder, "of other than 8 bits")


def planar(side: int) -> bytes:
    """A TIFF of three planes of 16 bits, one after the other."""
    plane = np.full(side * side, 3000, "<u2").tobytes()
    tags = [
        (256, 3, 1, side), (257, 3, 1, side), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, 140),
        (277, 3, 1, 3), (278, 3, 1, side), (279, 4, 3, 152), (284, 3, 1, 2),
    ]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    places = [164 + number * len(plane) for number in range(3)]
    return head + bytes(4) + struct.pack("<3H3I3I", 16, 16, 16, *places, *3 * [len(plane)]) + 3 * plane


@pytest.mark.parametrize("bits", [16, 4])
@pytest.mark.parametrize("form", ["jp2", "avif", "sgi", "tiff"])
def test_other_than_8_bits_are_refused_where_pillow_does_not_tell(
    folder: ImageFolderDataset, form: str, bits: int
) -> None:
    if bits == 4 and form != "jp2":
        return  # these have no such files
    path = Path(folder.path, "bee", f"0.{form}")
    Image.new("RGB", (64, 64), (1, 2, 3)).save(path, **({"bpc": 2} if form == "sgi" else {}))
    content = bytearray(path.read_bytes())
    if form == "jp2":
        start = content.index(b"\xff\x4f\xff\x51")
        content[start + 42 : start + 51 : 3] = [bits - 1] * 3
    elif form == "avif":  # both boxes that say it
        content[content.index(b"av1C") + 6] |= 0x40
        start = content.index(b"pixi") + 9
        content[start : start + 3] = [10, 10, 10]
    path.write_bytes(planar(64) if form == "tiff" else content)
    refused(folder, "of other than 8 bits")


@pytest.mark.parametrize("form", ["jp2", "avif", "sgi", "tiff", "bmp"])
def test_8_bits_are_read_in_these_formats(folder: ImageFolderDataset, form: str) -> None:
    Image.new("RGB", (12, 8), (1, 2, 3)).save(Path(folder.path, "bee", f"0.{form}"))
    assert check_files(folder) is not None


def test_16_bits_for_all_three_colours_are_no_more_than_8_for_each(folder: ImageFolderDataset) -> None:
    header = struct.pack("<2sIHHI", b"BM", 54 + 12 * 8 * 2, 0, 0, 54)
    about = struct.pack("<IiiHHIIiiII", 40, 12, 8, 1, 16, 0, 0, 0, 0, 0, 0)
    Path(folder.path, "bee", "0.bmp").write_bytes(header + about + b"\xff\x7f" * 96)  # 5 bits each, all white
    assert check_files(folder) is not None
    row = [Path(path).name for path in read_source(folder).images.files].index("0.bmp")
    assert (read_source(folder).images[row] == 255).all()


def test_copies_of_an_image_in_two_splits_are_counted(folder: ImageFolderDataset, tmp_path: Path) -> None:
    for name in ("ant's", "bee"):
        for i in range(10):
            shutil.copy(Path(folder.path, name, f"{i}.png"), Path(folder.path, name, f"copy{i}.png"))
    prepare_data(folder, tmp_path / "out.h5")
    with open_dataset(tmp_path / "out.h5") as data:
        private, test = ({image.tobytes() for image in data.images(split)} for split in ("private", "test"))
        both = sum(image.tobytes() in private for image in data.images("test"))
        assert both
        assert any(note.startswith(f"{both} image") and "of test" in note and "private" in note for note in data.notes)
    assert test
