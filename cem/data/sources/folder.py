"""Images in one folder for each class: which files there are, and which label and part each has."""

import os
from itertools import combinations

import numpy as np

from cem.config import ImageFolderDataset
from cem.data.sources.files import content_digest, entries, local, printable, shown, walk
from cem.data.sources.headers import check_headers
from cem.data.sources.listing import NAMED, Listing, base_name, why_not
from cem.data.sources.parts import check_no_parts, check_no_parts_within, class_folders, roles_of
from cem.data.sources.picture import Pictures, without_warnings
from cem.data.sources.source import DataError, Format, Labelling, Source, check_labels, check_pixels, make_source


@without_warnings()
def read_image_folder(dataset: ImageFolderDataset) -> Source:
    """List all images, classes and files in the order of their names; each is read when it is asked for.

    Raises DataError when there are no classes or images; reading one raises it when the image is damaged or not of
    8 bits.
    """
    listing, labelling = _list(dataset)
    pictures = Pictures(listing.files)
    check_pixels(shown(dataset.path), (pictures[row] for row in range(len(pictures))))
    description = f"Images of the folder {base_name(dataset.path)}."

    def digest() -> str:
        # The digests are of absolute paths.
        return content_digest(map(local, dataset.files()), pictures.digests)

    return make_source(shown(dataset.path), pictures, labelling, description, digest, pictures.remarks)


@without_warnings()
def list_image_folder(dataset: ImageFolderDataset) -> Labelling:
    """Classes and labels from the names; what the headers of up to 10,000 images, spread evenly, say. DataError."""
    listing, labelling = _list(dataset)
    listing.check_access()  # before any job starts; the job meets what it may not read as it reads
    remarks = check_headers(listing.files, one_size=dataset.fit == "one_size")
    pictures = Pictures(listing.files)
    check_pixels(shown(dataset.path), (pictures[row] for row in range(len(pictures))))
    return check_labels(
        shown(dataset.path),
        labelling.labels,
        is_test=labelling.is_test,
        is_val=labelling.is_val,
        class_names=labelling.class_names,
        notes=[*labelling.notes, *remarks],
    )


def _list(dataset: ImageFolderDataset) -> tuple[Listing, Labelling]:
    root, where = local(dataset.path), shown(dataset.path)
    notes: list[str] = []
    folders = class_folders(root)
    roles = roles_of(root, folders)
    if roles is None:
        listing = _plain(root, where, folders)
    else:
        listing, notes = _in_parts(root, where, roles, folders, apart=dataset.test_path is not None)
    if dataset.test_path is not None:
        _add_test(listing, dataset.test_path, where, root)
    listing.check_classes(root, where)
    parts = np.array(listing.parts)
    labelling = check_labels(
        where,
        np.array(listing.labels, np.int64),
        is_test=parts == "test" if "test" in listing.parts else None,
        is_val=parts == "val" if "val" in listing.parts else None,
        class_names=listing.names,
        notes=[*notes, *listing.notes(root)],
    )
    return listing, labelling


def _plain(root: str, where: str, folders: list[str]) -> Listing:
    """One folder for each class, whatever folders these hold."""
    if len(folders) < 2:
        advice = (
            f"Name {shown(os.path.join(root, folders[0]))} if the classes are in there."
            if folders
            else ("Put the images of each class in a folder of its name.")
        )
        raise DataError(f"{where}: expected at least 2 folders, one for each class, found {len(folders)}. {advice}")
    check_no_parts(root, where, folders)
    check_no_parts_within(root, where, folders)
    listing = Listing(_readable(where, folders))
    listing.skip_beside(root)
    for label, name in enumerate(folders):
        listing.add(os.path.join(root, name), label, "train")
    return listing


def _check_apart(where: str, one: str, other: str) -> None:
    """Raise DataError where two folders of images are one, or one lies in the other."""
    real = os.path.realpath(one), os.path.realpath(other)
    if os.path.commonpath(real) in real:
        raise DataError(
            f"{where}: expected parts that are apart, found {shown(one)} and {shown(other)}, which share images. Test "
            "images must be no training images: name other folders."
        )


def _in_parts(
    root: str, where: str, roles: dict[str, str], folders: list[str], *, apart: bool
) -> tuple[Listing, list[str]]:
    """Training, val and test images in folders of their own, as ImageNet and Tiny ImageNet have them.

    apart: whether the test images lie elsewhere, so that val is val.
    """
    for one, other in combinations(roles.values(), 2):
        _check_apart(where, os.path.join(root, one), os.path.join(root, other))
    classes = class_folders(os.path.join(root, roles["train"]))
    listing, notes = Listing(_readable(where, classes)), []
    listing.skip_beside(root)
    for name in (one for one in folders if one not in roles.values()):
        listing.skip_all("in no folder of a part or class", os.path.join(root, name))
    labelled = [part for part in ("train", "val", "test") if part in roles and _is_labelled(root, roles[part], classes)]
    for part, name in roles.items():
        folder = os.path.join(root, name)
        if part not in labelled:
            listing.skip_all(f"in {name}, whose images have no labels", folder)
            continue
        # What everybody scores on where the labels of the test images are secret.
        stands_for = "test" if part == "val" and "test" not in labelled and not apart else part
        if stands_for != part:
            notes.append(f"The images of {name} are the test part.")
        _add_part(listing, folder, classes, stands_for)
    return listing, notes


def _add_test(listing: Listing, path: str, where: str, training: str) -> None:
    """The test images of a folder that is apart."""
    _check_apart(where, training, local(path))
    if "test" in listing.parts:
        raise DataError(f"{where}: expected one test part, but it has its own. Leave test_path out.")
    root = local(path)
    _add_part(listing, root, listing.names, "test")


def _add_part(listing: Listing, folder: str, classes: list[str], part: str) -> None:
    """Images of one part, from folders of the classes or from the list that Tiny ImageNet has."""
    annotations = _annotations(folder)
    if annotations is not None:
        _add_annotated(listing, folder, annotations, part)
        return
    found = class_folders(folder)
    if found != classes:
        raise DataError(_other_classes(shown(folder), found, classes))
    listing.skip_beside(folder)
    before = len(listing.files)
    for label, name in enumerate(classes):
        listing.add(os.path.join(folder, name), label, part)
    if len(listing.files) == before:
        raise DataError(
            f"{shown(folder)}: expected images of the {part} part, found none that can be read. Put them there, or "
            "remove the folder."
        )


def _add_annotated(listing: Listing, folder: str, annotations: str, part: str) -> None:
    """Images whose class stands in a list: file name, tab, class, and more."""
    try:
        with open(annotations, encoding="utf-8-sig") as file:
            rows = [line.rstrip("\n").split("\t") for line in file if line.strip()]
        label_of = {row[0]: listing.names.index(row[1]) for row in rows}
        doubled = [row[0] for row in rows if label_of[row[0]] != listing.names.index(row[1])]
        if doubled:
            raise ValueError(f"{doubled[0]} stands in it twice, with two classes")
    except (OSError, UnicodeDecodeError, IndexError, ValueError) as error:
        raise DataError(
            f"{shown(annotations)}: expected lines of file name, tab and class, with classes that are folders of the "
            f"training images; cannot read it: {error}. Fetch the data again, or correct the list."
        ) from None
    for entry in walk(folder):
        if (why := why_not(entry)) is not None:
            listing.skip(why, entry.path)
        elif entry.name not in label_of:
            listing.skip(f"not in {base_name(annotations)}", entry.path)
        else:
            listing.files.append(entry.path)
            listing.labels.append(label_of.pop(entry.name))
            listing.parts.append(part)
    if label_of:
        raise DataError(
            f"{shown(folder)}: expected the images that {base_name(annotations)} lists, found none called "
            f"{', '.join(sorted(label_of)[:NAMED])}{', …' if len(label_of) > NAMED else ''}. Fetch the data again."
        )


def _annotations(folder: str) -> str | None:
    wanted = f"{base_name(folder)}_annotations.txt".lower()
    return next((entry.path for entry in entries(folder) if entry.name.lower() == wanted and entry.is_file()), None)


def _is_labelled(root: str, name: str, classes: list[str]) -> bool:
    """Whether a part has labels: a list, or folders of the classes; of other classes, too, which are refused later."""
    folder = os.path.join(root, name)
    found = class_folders(folder)
    return _annotations(folder) is not None or bool(set(classes) & set(found)) or len(found) > 1


def _readable(where: str, names: list[str]) -> list[str]:
    """The names of classes. Raises DataError where one is no UTF-8: results could not say it."""
    for name in names:
        if printable(name) != name:
            raise DataError(
                f"{where}: expected folders whose names are text in UTF-8 without control characters, found "
                f"{printable(name)}. Rename it."
            )
    return names


def _other_classes(where: str, found: list[str], expected: list[str]) -> str:
    more, absent = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    said = [f"{word} {', '.join(map(repr, names[:5]))}{' …' if len(names) > 5 else ''}"
            for word, names in (("without", absent), ("beside them", more)) if names]  # fmt: skip
    return f"{where}: expected folders of the same classes as the training images; found them {' and '.join(said)}."


IMAGE_FOLDER = Format(read_image_folder, list_image_folder)
