"""Files are whole or absent, say what they are and from what they came, and need no locks."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from cem import CemError
from cem.storage.files import StoreError, sha256, whole_or_absent, write_json, write_text
from cem.storage.hdf5 import VERSION, Reader, open_activations, open_dataset, write_file

SHAPE = (50, 3, 4, 5)


def python(program: str, *arguments: object, prefix: tuple[str, ...] = (), **environment: str):
    """Run a program in a process of its own."""
    return subprocess.run(
        [*prefix, sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def smashed() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float16)


@pytest.fixture
def activations(tmp_path, smashed) -> Path:
    path = tmp_path / "activations.h5"
    with write_file(path, kind="activations", attrs={"note": "x", "list": [1, 2], "number": 3}) as file:
        for split in ("private", "test"):
            file[f"{split}/smashed"] = smashed if split == "private" else smashed[:7]
            file[f"{split}/labels"] = np.arange(len(file[f"{split}/smashed"]))
    return path


def unchanged(clean: np.ndarray) -> np.ndarray:
    return clean


# Whole or absent


class Stop(Exception):
    pass


def test_a_failure_leaves_the_old_file_as_it_was(activations):
    def fail() -> None:
        with write_file(activations, kind="activations") as file:
            file["private/smashed"] = np.ones(10)
            raise Stop

    before = activations.read_bytes()
    with pytest.raises(Stop):
        fail()
    assert activations.read_bytes() == before
    assert list(activations.parent.iterdir()) == [activations]


def test_a_failure_without_an_old_file_leaves_nothing(tmp_path):
    def fail() -> None:
        with whole_or_absent(tmp_path / "new" / "file") as temporary:
            temporary.write_text("half")
            raise Stop

    with pytest.raises(Stop):
        fail()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_killed_writer_leaves_the_old_file_as_it_was(activations):
    before = activations.read_bytes()
    program = (
        "import os, signal, sys, numpy as np\nfrom cem.storage.hdf5 import write_file\n"
        "with write_file(sys.argv[1], kind='activations') as file:\n"
        "    file['private/smashed'] = np.ones(100_000)\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert python(program, activations).returncode == -9
    assert activations.read_bytes() == before


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path):
    write_text(tmp_path / "a", "σ")
    write_text(tmp_path / "a", "λ")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "λ"


def test_json_refuses_what_json_lacks(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()


WRITERS = {
    "text": "files.write_text(path, 'x' * 4_000_000)",
    "all at once": "with hdf5.write_file(path, 'x') as file: file['x'] = np.ones(4_000_000, np.uint8)",
    "little by little": (
        "with hdf5.write_file(path, 'x') as file:\n"
        "    rows = file.create_dataset('x', (4_000, 1_000), 'u1')\n"
        "    for index in range(4_000): rows[index] = 1"
    ),
    "many datasets": (
        "with hdf5.write_file(path, 'x') as file:\n"
        "    for index in range(2_000): file[f'{index}/x'] = np.ones(1_000, np.uint8)"
    ),
}
FULL = """
import resource, sys
import numpy as np
from cem.storage import files, hdf5
path, limited = sys.argv[1], len(sys.argv) > 2
files.write_text(path, "old")
if limited:
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
{writer}
except files.StoreError as error:
    assert "Free or choose another disk" in str(error), error
    print(open(path).read(), *__import__("os").listdir(__import__("os").path.dirname(path)))
"""


def full_disk_program(writer: str) -> str:
    return FULL.replace("{writer}", "\n".join(f"    {line}" for line in WRITERS[writer].splitlines()))


@pytest.mark.parametrize("writer", WRITERS)
def test_a_disk_that_fills_leaves_the_old_file_whole(tmp_path, writer):
    """The limit on a file's size stands for the disk. HDF5 must neither hide the failure nor crash at exit."""
    done = python(full_disk_program(writer), tmp_path / "file", "limited")
    assert (done.returncode, done.stdout, done.stderr) == (0, "old file\n", "")


@pytest.mark.parametrize("writer", WRITERS)
def test_a_real_disk_that_fills_leaves_the_old_file_whole(tmp_path, writer):
    mount = f"mount -t tmpfs -o size=1m none '{tmp_path}'"
    namespace = ("unshare", "--mount", "--map-root-user", "sh", "-c")
    if shutil.which("unshare") is None or subprocess.run([*namespace, mount], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    prefix = (*namespace, f'{mount} && exec "$@"', "sh")
    done = python(full_disk_program(writer), tmp_path / "file", prefix=prefix)
    assert (done.returncode, done.stdout, done.stderr) == (0, "old file\n", "")


def test_a_folder_that_cannot_be_made_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write it.*Name another file"):
        write_text(tmp_path / "file" / "below", "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_an_error_that_says_what_to_do(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match=r"cannot write it.*Name another file"):
        write_text(tmp_path / "x", "x")


def test_the_same_content_is_the_same_bytes(tmp_path):
    def write(path: Path) -> bytes:
        with write_file(path, kind="x", attrs={"list": [1, 2]}) as file:
            file["group/a"] = np.arange(5)
            file.create_dataset("group/b", (3,), "f2")[:] = 1
        return path.read_bytes()

    first = write(tmp_path / "a.h5")
    time.sleep(1.1)  # the resolution of HDF5's time stamps
    assert write(tmp_path / "b.h5") == first


# What a file says of itself


def test_attributes_come_back(activations):
    with open_activations(activations) as reader:
        assert reader.attrs["kind"] == "activations"
        assert reader.attrs["version"] == VERSION
        assert (reader.attrs["note"], reader.attrs["list"], reader.attrs["number"]) == ("x", "[1, 2]", 3)


def test_a_file_knows_what_it_was_made_from(tmp_path, activations):
    path, other = tmp_path / "made.h5", tmp_path / "other"
    with write_file(path, kind="x", sources={"activations": activations}):
        pass
    with Reader(path, kind="x") as reader:
        assert reader.sources == {"activations": sha256(activations)}
        reader.check_source("activations", activations)
        other.write_text("another")
        with pytest.raises(StoreError, match=r"made from another activations .* Delete .*made\.h5 and rerun"):
            reader.check_source("activations", other)
        with pytest.raises(StoreError, match="made from another data"):
            reader.check_source("data", other)


def test_an_absent_file_names_the_rule_that_makes_it(tmp_path):
    with pytest.raises(StoreError, match=r"found none. Run extract_activations"):
        open_activations(tmp_path / "absent.h5")


def test_a_file_of_another_kind_is_refused(activations):
    with pytest.raises(StoreError, match=r"expected kind 'dataset' version 1, found 'activations'.*rerun prepare_data"):
        open_dataset(activations)


def test_a_file_of_another_version_is_refused(activations):
    with h5py.File(activations, "r+") as file:
        file.attrs["version"] = VERSION + 1
    with pytest.raises(StoreError, match=r"version 1, found 'activations' version 2. Delete it and rerun"):
        open_activations(activations)


def test_a_foreign_hdf5_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = np.ones(3)
    with pytest.raises(StoreError, match=r"found None version None. Delete it"):
        open_activations(tmp_path / "foreign.h5")


@pytest.mark.parametrize("kept", [0, 1, 100, 2_000, -1])
def test_a_truncated_file_is_refused_wherever_it_ends(activations, kept):
    activations.write_bytes(activations.read_bytes()[:kept])
    with pytest.raises(StoreError, match=r"truncated or not HDF5 .* Delete it and rerun extract_activations"):
        open_activations(activations)


def test_a_file_of_another_format_is_refused(tmp_path):
    (tmp_path / "a.h5").write_text("name: x\n" * 1000)
    with pytest.raises(StoreError, match=r"truncated or not HDF5 .* Delete it"):
        open_activations(tmp_path / "a.h5")


def test_a_dataset_that_is_not_there_is_an_error(activations):
    with open_activations(activations) as reader, pytest.raises(StoreError, match="expected a dataset 'val/labels'"):
        reader.labels("val")


def test_errors_of_files_are_errors_of_the_program():
    assert issubclass(StoreError, CemError)


# Activations


@pytest.mark.parametrize(
    "rows",
    [[3], [4, 1, 2], [7, 7, 7], [49, 0, 49, 3, 0], [], np.random.default_rng(1).integers(0, 50, 200)],
    ids=["one", "unordered", "repeated", "both", "none", "many"],
)
def test_rows_come_in_the_order_asked_for(activations, smashed, rows):
    rows = np.asarray(rows, dtype=np.int64)
    with open_activations(activations) as reader:
        found = reader.read("private", rows, unchanged)
        assert found.dtype == smashed.dtype
        np.testing.assert_array_equal(found, smashed[rows])


@pytest.mark.parametrize("rows", [slice(None), slice(3, 9), slice(40, 99), slice(1, 30, 7)], ids=str)
def test_a_slice_is_numpys(activations, smashed, rows):
    with open_activations(activations) as reader:
        np.testing.assert_array_equal(reader.read("private", rows, unchanged), smashed[rows])


def test_a_row_that_is_not_there_is_an_error(activations):
    with open_activations(activations) as reader, pytest.raises(IndexError):
        reader.read("private", np.array([50]), unchanged)


def test_shapes_counts_and_labels(activations):
    with open_activations(activations) as reader:
        assert reader.smashed_shape == SHAPE[1:]
        assert [reader.count(split) for split in ("private", "test")] == [50, 7]
        np.testing.assert_array_equal(reader.labels("test"), np.arange(7))


def test_nothing_comes_out_but_what_corrupt_returns(activations, smashed):
    seen, answer = [], object()

    def corrupt(clean: np.ndarray) -> object:
        seen.append(clean.copy())
        return answer

    with open_activations(activations) as reader:
        assert reader.read("private", np.array([2, 1]), corrupt) is answer
        np.testing.assert_array_equal(seen, [smashed[[2, 1]]])
        for give in (reader.array, reader.dataset):
            with pytest.raises(StoreError, match=r"private/smashed is clean: use read\(\)"):
                give("private/smashed")


@pytest.mark.parametrize("rows", [np.array([2, 1]), slice(0, 2)], ids=["numbers", "slice"])
def test_what_corrupt_is_given_is_its_own_to_change(activations, smashed, rows):
    before = activations.read_bytes()

    def destroy(clean: np.ndarray) -> None:
        clean[:] = 0

    with open_activations(activations) as reader:
        reader.read("private", rows, destroy)
        np.testing.assert_array_equal(reader.read("private", rows, unchanged), smashed[rows])
    assert activations.read_bytes() == before


def test_what_was_read_outlives_the_reader(activations, smashed):
    with open_activations(activations) as reader:
        found = reader.read("private", slice(None), unchanged)
    np.testing.assert_array_equal(found, smashed)


def test_a_reader_keeps_the_file_it_opened(activations, smashed):
    with open_activations(activations) as reader:
        with write_file(activations, kind="activations") as file:
            file["private/smashed"] = np.zeros(SHAPE, np.float16)
        np.testing.assert_array_equal(reader.read("private", slice(None), unchanged), smashed)


def test_big_endian_numbers_are_read_as_what_they_are(tmp_path, smashed):
    with write_file(tmp_path / "a.h5", kind="activations") as file:
        file["private/smashed"] = smashed.astype(">f4")
    with open_activations(tmp_path / "a.h5") as reader:
        np.testing.assert_array_equal(reader.read("private", np.array([9, 2]), unchanged), smashed[[9, 2]])


@pytest.mark.parametrize("how", [{"chunks": (5, 3, 4, 5)}, {"compression": "gzip"}], ids=["chunks", "compressed"])
def test_activations_that_are_not_contiguous_are_refused(tmp_path, smashed, how):
    with write_file(tmp_path / "a.h5", kind="activations") as file:
        file.create_dataset("private/smashed", data=smashed, **how)
    with (
        open_activations(tmp_path / "a.h5") as reader,
        pytest.raises(StoreError, match=r"to be contiguous .* Delete the file and rerun extract_activations"),
    ):
        reader.read("private", slice(None), unchanged)


# Locks

READ = """
import sys
import numpy as np
from cem.storage.hdf5 import open_activations
with open_activations(sys.argv[1]) as reader:
    print("open", flush=True)
    sys.stdin.readline()
    print(reader.read("private", np.array([7, 3]), lambda clean: float(clean.sum())), flush=True)
"""


def test_two_readers_at_once(activations, smashed):
    command = [sys.executable, "-c", READ, str(activations)]
    readers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [reader.stdout.readline() for reader in readers] == ["open\n"] * 2  # both have it open before either reads
    answers = [reader.communicate("go\n", timeout=60)[0] for reader in readers]
    assert [float(answer) for answer in answers] == [float(smashed[[7, 3]].sum())] * 2


SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
int flock(int file, int operation) { errno = FAILURE; return -1; }
int lockf(int file, int command, off_t length) { errno = FAILURE; return -1; }
static int control(const char *name, int file, int command, void *argument) {
    switch (command) {
    case F_SETLK: case F_SETLKW: case F_OFD_SETLK: case F_OFD_SETLKW: errno = FAILURE; return -1;
    }
    return ((int (*)(int, int, ...)) dlsym(RTLD_NEXT, name))(file, command, argument);
}
#define DEFINE(name) int name(int file, int command, ...) { \\
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest); \\
    return control(#name, file, command, argument); }
DEFINE(fcntl)
DEFINE(fcntl64)
"""
WITHOUT_LOCKS = """
import errno, fcntl, sys
import numpy as np
with open(sys.argv[1] + ".probe", "w") as file:
    for lock in (fcntl.flock, fcntl.lockf):
        try:
            lock(file, fcntl.LOCK_EX)
            sys.exit("the simulation does not work: a lock was granted")
        except OSError as error:
            assert error.errno == getattr(errno, sys.argv[2]), error
from cem.storage.hdf5 import open_activations, write_file
with write_file(sys.argv[1], kind="activations") as file:
    file["private/smashed"] = np.ones((9, 1, 2, 2), np.float16)
with open_activations(sys.argv[1]) as first, open_activations(sys.argv[1]) as second:
    print(*[reader.read("private", np.array([7, 3]), lambda clean: float(clean.sum())) for reader in (first, second)])
"""
WITH_H5PY_ALONE = "import sys, h5py; h5py.File(sys.argv[1], 'w')"


@pytest.fixture(params=["ENOLCK", "ENOSYS"])
def lockless(request, tmp_path) -> tuple[str, dict[str, str]]:
    """The error and the environment of a file system on which every lock fails."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler, to make locks fail")
    source, library = tmp_path / "nolocks.c", tmp_path / "nolocks.so"
    source.write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", f"-DFAILURE={request.param}", "-o", library, source, "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return request.param, {"LD_PRELOAD": str(library), "HDF5_USE_FILE_LOCKING": "TRUE"}


def test_a_file_system_without_locks_works(tmp_path, lockless):
    error, environment = lockless
    done = python(WITHOUT_LOCKS, tmp_path / "a.h5", error, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "8.0 8.0\n", "")


def test_the_simulation_of_failing_locks_does_stop_hdf5(tmp_path, lockless):
    _, environment = lockless
    done = python(WITH_H5PY_ALONE, tmp_path / "a.h5", **environment)
    assert done.returncode != 0
    assert "unable to lock file" in done.stderr


# Nothing from elsewhere


def soft(file: h5py.File) -> None:
    file["private/images"] = h5py.SoftLink("/private/labels")


def soft_to_nothing(file: h5py.File) -> None:
    file["notes/more"] = h5py.SoftLink("/absent")


def external(file: h5py.File) -> None:
    file["private/images"] = h5py.ExternalLink("other.h5", "/private/images")


def whole_group(file: h5py.File) -> None:
    file["test"] = h5py.ExternalLink("other.h5", "/private")


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((9, 1, 2, 2), np.uint8)
    layout[:] = h5py.VirtualSource("other.h5", "private/images", (9, 1, 2, 2))
    file.create_virtual_dataset("private/images", layout)


def raw_bytes(file: h5py.File) -> None:
    place = [(str(Path(file.filename).parent / "secret"), 0, 36)]
    file.create_dataset("private/images", (9, 1, 2, 2), np.uint8, external=place)


def user_defined(file: h5py.File) -> None:
    """The link's type is a byte before its name: 64 of an external one, and from 65 on free for anyone's own."""
    whole_group(file)
    file.flush()
    path = Path(file.filename)
    file.close()
    content = path.read_bytes()
    assert content.count(b"\x40\x04test") == 1
    path.write_bytes(content.replace(b"\x40\x04test", b"\xc8\x04test"))


CRAFTED = {
    soft: "SoftLink, which leads to '/private/labels'",
    soft_to_nothing: "SoftLink, which leads to '/absent'",
    external: "ExternalLink, which leads to 'other.h5'",
    whole_group: "ExternalLink, which leads to 'other.h5'",
    user_defined: "user-defined link of type 200, which leads to what only its maker knows",
    virtual: "a virtual dataset, which leads to 'other.h5'",
    raw_bytes: "a dataset with external storage, which leads to '.*secret'",
}


@pytest.mark.parametrize("craft", CRAFTED, ids=lambda craft: craft.__name__)
def test_a_crafted_file_cannot_hand_out_the_bytes_of_another(tmp_path, craft):
    (tmp_path / "secret").write_bytes(b"the private key of somebody else ...")
    with write_file(tmp_path / "other.h5", "dataset") as file:
        file["private/images"] = np.full((9, 1, 2, 2), 7, np.uint8)
    with write_file(tmp_path / "crafted.h5", "dataset") as file:
        file["private/labels"] = np.zeros(9)
    with h5py.File(tmp_path / "crafted.h5", "r+") as file:
        craft(file)
    with pytest.raises(StoreError, match=f"inside the file, found .* to be (a )?{CRAFTED[craft]}.*delete it and rerun"):
        open_dataset(tmp_path / "crafted.h5").images("private")


def test_two_names_of_one_object_in_the_file_are_no_harm(tmp_path):
    with write_file(tmp_path / "data.h5", "dataset") as file:
        file["private/images"] = np.full((9, 1, 2, 2), 7, np.uint8)
        file["test"] = file["private"]
        file["test/loop"] = file["/test"]
    with open_dataset(tmp_path / "data.h5") as data:
        assert (data.images("test") == 7).all()
