"""What this host has: Python, torch, a GPU, Snakemake and its executor, and the profile."""

import importlib.util
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from snakemake_executor_plugin_submitit.cluster.slurm import ask
from snakemake_executor_plugin_submitit.site import profile
from snakemake_executor_plugin_submitit.site.doctor.finding import Finding
from snakemake_executor_plugin_submitit.site.program import Program

_TORCH = (
    "import json, torch; found = torch.cuda.is_available(); print(json.dumps([torch.__version__, torch.version.cuda, "
    "[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if found else []]))"
)
# As the command `snakemake` looks for executors: without the working folder among the places.
_PLUGIN = "import pkgutil; print([m.name for m in pkgutil.iter_modules() if m.name.endswith('plugin_submitit')])"


def check_software(program: Program) -> Iterator[Finding]:
    """Python and torch as jobs will have them, GPUs here, the executor."""
    yield Finding("ok", "python", f"{platform.python_version()} at {sys.executable}")
    # In a process of its own: a damaged torch may take its process with it.
    answer = ask(sys.executable, "-c", _TORCH, timeout_s=180)
    try:
        version, cuda, gpus = json.loads(answer.out.splitlines()[-1]) if answer.ok else (None, None, [])
    except (ValueError, IndexError):
        version, cuda, gpus = None, None, []
    if version is None:
        yield Finding("problem", "torch", f"it cannot be imported: {answer.why}", f"Install it: {program.setup}")
    else:
        yield Finding("ok", "torch", f"{version}, {f'made for CUDA {cuda}' if cuda else 'without CUDA'}")
        text = (
            ", ".join(gpus)
            if gpus
            else "none visible on this host, as on most login nodes; jobs see those they ask for"
        )
        yield Finding("ok", "gpu here", text)
    plugin = ask(sys.executable, "-P", "-c", _PLUGIN)
    if plugin.ok and "plugin_submitit" in plugin.out:
        yield Finding("ok", "executor", "the command `snakemake` finds `submitit`")
    elif importlib.util.find_spec("snakemake_executor_plugin_submitit"):
        advice = (
            "Install it: pip install -e . Until then say python -m snakemake in place of snakemake, in this folder."
        )
        yield Finding("warning", "executor", "the command `snakemake` does not find `submitit`", advice)
    else:
        yield Finding("problem", "executor", "`submitit` is not installed", "Install it: pip install -e .")


def read_profile(name: str, program: Program) -> tuple[dict[str, str], Finding]:
    """The site settings that a run with this profile would have, and where they are from."""
    path = profile.find(name)
    here = Path("profiles") / name / "config.yaml"
    advice = f"Install it: {program.name} profile install {name}"
    if path is None and not here.is_file():
        return {}, Finding("warning", "profile", f"`snakemake --profile {name}` finds none", advice)
    try:
        settings = profile.site_settings(path or here)
    except profile.ProfileError as error:
        return {}, Finding("problem", "profile", str(error))
    named = ", ".join(f"{key} {value!r}" for key, value in settings.items()) or "no site settings"
    if path is None:
        advice += f", with your site's settings; or say --profile profiles/{name}"
        return settings, Finding("warning", "profile", f"only {here}: {named}", advice)
    return settings, Finding("ok", "profile", f"{path}: {named}")
