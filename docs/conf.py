"""The site: python -m sphinx -W -b html docs build/site

Everything it needs is in the repository: no network, no fonts or scripts of others.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.errors import ExtensionError

from ptychon import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "Ptychon"
author = "The Ptychon developers"
copyright = author
version = release = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "plain_docstrings",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

# Pages are Markdown that reads well elsewhere too; a link to a heading is that of GitHub.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]

# Notebooks are shown with the outputs that they hold; tests/house/test_notebooks.py runs them.
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}

# Two classes may have one name; the link then leads to the first.
suppress_warnings = ["ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "ignore-module-all": True}
autodoc_mock_imports = ["cupy", "mpi4py"]
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False
toc_object_entries = False

html_theme = "furo"
html_title = f"Ptychon {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp, .go"

linkcheck_timeout = 20


def in_repository(app: Any, docname: str, source: list[str]) -> None:
    """Links from pages to programs beside them: their names, since the site holds pages only."""
    if not docname.startswith("notebooks/"):
        source[0] = re.sub(r"\[([^]]+)\]\((\.\./[^)#]+\.(?:py|md))\)", r"`\1`", source[0])


def alone(app: Any, exception: Exception | None) -> None:
    """Refuse pages that would fetch something from elsewhere when they are opened."""
    fetched = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=["'](https?:)?//""")
    if exception is None and app.builder.format == "html":
        asking = [
            p for p in Path(app.outdir).rglob("*.html") if fetched.search(p.read_text("utf-8"))
        ]
        if asking:
            raise ExtensionError(f"these pages need a network: {', '.join(map(str, asking))}")


def setup(app: Any) -> None:
    app.connect("source-read", in_repository)
    app.connect("build-finished", alone)
