"""The frame of every page: a template filled in, style sheet and scripts inside, and a policy that allows no more.

    rendered("run.html", ("page.js",), {"title": "gemma_2b on coding", ...})

Reads `templates/`; values are escaped, and a name that a template asks for in vain is an error.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llamaduo.display import span

if TYPE_CHECKING:
    from jinja2 import Environment


def rendered(template: str, scripts: Sequence[str], values: dict[str, Any], styles: Sequence[str] = ()) -> str:
    """Return a page: a template of `templates/` filled in, with the scripts named and style sheets besides page.css."""
    return _environment().get_template(template).render(_frame(tuple(scripts), tuple(styles)) | values)


@cache
def _frame(scripts: tuple[str, ...], styles: tuple[str, ...]) -> dict[str, Any]:
    """Return style sheet, script and the policy that allows these two alone."""
    from markupsafe import Markup

    style = "\n".join(map(_template, ("page.css", *styles)))
    script = "\n".join(map(_template, scripts))
    allowed = {name: f"'sha256-{_digest(text)}'" for name, text in (("style", style), ("script", script))}
    policy = (
        f"default-src 'none'; style-src {allowed['style']}; script-src {allowed['script']}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"style": Markup(style), "script": Markup(script), "policy": policy}  # noqa: S704 (our own files)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _template(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"count": _count, "money": _money, "duration": _duration, "percent": _percent, "quoted": quote}
    made.globals |= {"span": span}
    return made


def _count(number: float | None) -> str:
    return "" if number is None else f"{number:,}"


def _money(dollars: float) -> str:
    return f"${dollars:,.2f}" if dollars >= 0.1 or dollars == 0 else f"${dollars:.4f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0f}%"


def _duration(spent: float) -> str:
    if spent < 120:
        return f"{spent:.1f} s"
    minutes = round(spent / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
