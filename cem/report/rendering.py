"""Pages of HTML: one file each, with its looks and its script inside."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **content: Any) -> str:
    """A page from a template, with its looks and its script inside, and a policy that lets nothing else in.

    All of `content` is escaped, unless it is Markup.
    """
    environment = Environment(
        loader=PackageLoader("cem.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style, script = (files("cem.report").joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    allowed = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    inside = {"style": Markup(style), "script": Markup(script), "policy": Markup(allowed)}  # noqa: S704
    return environment.get_template(template).render(**content, **inside)
