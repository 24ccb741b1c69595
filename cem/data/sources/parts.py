"""Folders that are parts of a data set (train, val, test) and folders that are classes, told apart by their names."""

import os
import re

from cem.data.sources.files import entries, is_folder, is_hidden, kind_of, shown
from cem.data.sources.source import DataError

ROLES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_BETWEEN = 4  # folders of one folder that are looked through: of links there may be circles
_PART_LIKE = ("train", "test", "val", "dev", "eval")  # how other names of parts begin


def class_folders(root: str) -> list[str]:
    """Names of the folders in a folder that may be classes. Raises DataError where the folder is none."""
    if not os.path.isdir(root):
        found = kind_of(root)
        advice = "Unpack it, and name the folder." if root.lower().endswith(PACKED) else "Check the path."
        raise DataError(f"{shown(root)}: expected a folder of folders, one for each class; found {found}. {advice}")
    return [entry.name for entry in entries(root) if is_folder(entry) and not is_hidden(entry.name)]


def roles_of(root: str, folders: list[str]) -> dict[str, str] | None:
    """Part → its folder, where the folders are parts of a data set that each hold folders of the classes."""
    roles: dict[str, str] = {}
    for name in folders:
        role = next((role for role, names in ROLES.items() if name.lower() in names), None)
        if role is not None and roles.setdefault(role, name) != name:
            raise DataError(
                f"{shown(root)}: expected one folder with the {role} images, found {roles[role]} and {name}. "
                "Leave one of them."
            )
    roles = {role: roles[role] for role in ROLES if role in roles}
    is_parts = "train" in roles and (len(roles) > 1 or len(folders) == 1)
    return roles if is_parts and len(class_folders(os.path.join(root, roles["train"]))) > 1 else None


def check_no_parts(root: str, where: str, folders: list[str]) -> None:
    """Raise DataError where folders seem to be parts of a data set, under names that are not known: no class is one."""
    if all(any(name.lower() in names for names in ROLES.values()) for name in folders):
        raise DataError(
            f"{where}: expected folders of classes, or parts that each hold a folder for each class; found "
            f"{', '.join(folders)}, which are called as parts are and hold none, or one inside another. Put each "
            "class's images in a folder of its name, in every part. If these are the classes: call them otherwise."
        )
    within = {name: class_folders(os.path.join(root, name)) for name in folders}
    below = {name: _innermost(os.path.join(root, name)) for name in folders if _is_like_a_part(name)}
    for name in folders:
        twins = [other for other in folders if other != name and within[other] == within[name]]
        others = [other for other in below if name in below and other != name and below[other] == below[name]]
        like = name.lower() == "train" or (name.lower().startswith(_PART_LIKE) and twins)
        inner, twins = (within[name], twins) if like else (below.get(name, []), others)
        if len(inner) > 1 and (like or others):
            beside = ", ".join(sorted([name, *twins]))
            raise DataError(
                f"{where}: expected folders of classes, or of the parts train, val and test; found {beside}, which "
                f"{'hold' if twins else 'holds'} folders such as {inner[0]} and {inner[1]}. If these are the classes: "
                "call the folders of the parts train and test (and val), or name the one that holds the training "
                "classes as path and the other as test_path. If those are the classes: rename them."
            )


def check_no_parts_within(root: str, where: str, folders: list[str]) -> None:
    """Raise DataError where each class is divided into parts, which would all be mixed."""
    inner = {frozenset(class_folders(os.path.join(root, name))) for name in folders}
    named = frozenset(name for names in ROLES.values() for name in names)
    if len(inner) == 1 and len(parts := next(iter(inner))) > 1 and named.issuperset(map(str.lower, parts)):
        raise DataError(
            f"{where}: expected the parts above the classes, found {', '.join(sorted(parts))} in each class. Lay it "
            f"out as {sorted(parts)[0]}/{folders[0]}, or leave one part alone."
        )


def _is_like_a_part(name: str) -> bool:
    """Whether it begins with the name of a part, or has it as a word: seg_train, images-test."""
    return any(word.startswith(_PART_LIKE) for word in re.split(r"[\W_]+", name.lower()))


def _innermost(folder: str) -> list[str]:
    """Names of the folders in a folder; where it holds one alone, of those in that."""
    names = class_folders(folder)
    for _ in range(_BETWEEN):
        if len(names) == 1:
            folder = os.path.join(folder, names[0])
            names = class_folders(folder)
    return names
