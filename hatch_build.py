"""The README as a package index shows it: there, relative pictures and links lead nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(
    r"^!\[[^]]*\]\((?!https://)[^)]+\)\n(?:\*[^\n]*\n(?:[^\n]+\n)*)?\n?", re.MULTILINE
)
LINK = re.compile(r"(?<!!)\[([^]]+)\]\((?!https://)([^)]+)\)")


def portable(text: str, source: str | None, version: str) -> str:
    """A page without relative addresses.

    Parameters
    ----------
    text : str
        Markdown.
    source : str or None
        Address of the repository. Without one, pictures with their captions and the targets of
        links are left out.
    version : str
        Links lead to the files of this version.

    Returns
    -------
    str
    """
    if source is None:
        return LINK.sub(r"\1", PICTURE.sub("", text))
    text = re.sub(
        r"!\[([^]]*)\]\((?!https://)([^)]+)\)", rf"![\1]({source}/raw/v{version}/\2)", text
    )
    return LINK.sub(rf"[\1]({source}/blob/v{version}/\2)", text)


class Readme(MetadataHookInterface):
    """Fills in `readme` when the package is built."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": portable(text, source, metadata["version"]),
        }
