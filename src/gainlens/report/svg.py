"""A figure's SVG -> one that may stand beside others in a page."""

import re
import xml.etree.ElementTree as ET
from typing import Final

_SVG: Final = "http://www.w3.org/2000/svg"
_XLINK: Final = "http://www.w3.org/1999/xlink"
_REFERENCE: Final = re.compile(r"url\(#([^)]+)\)")
_SCALE: Final = 1.875
"""Pixels a point: text of 7 points in print has 13 pixels on the screen."""
_FONTS: Final = "'DejaVu Sans', Verdana, 'Noto Sans', sans-serif"
"""matplotlib names the first alone, which no phone has."""


def inline_svg(text: str, name: str, title: str, description: str) -> str:
    """The SVG as an element of a page: ids that begin with `name`, so that no two figures share
    one; a title and a description for screen readers; its width as `--width` for
    the style sheet; no metadata.

    Raises ValueError where the text is no SVG.
    """
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    try:
        root = ET.fromstring(text)
    except ET.ParseError as problem:
        raise ValueError(f"the figure {name!r} is no SVG: {problem}") from None
    if root.tag != f"{{{_SVG}}}svg":
        raise ValueError(f"the figure {name!r} is no SVG: its root is {root.tag!r}")
    _drop(root)
    for element in root.iter():
        _rename(element, name)
    width = float(root.get("viewBox", "").split()[2])
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("style", f"--width: {width * _SCALE:.0f}px")
    labels = {"title": title, "desc": description}
    for place, (tag, words) in enumerate(labels.items()):
        label = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        label.text = words
        root.insert(place, label)
    root.attrib |= {"role": "img", "aria-labelledby": " ".join(f"{name}-{tag}" for tag in labels)}
    return ET.tostring(root, encoding="unicode")


def _drop(root: ET.Element) -> None:
    """Metadata, the file's own title, and its style sheet, which would style the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {
                f"{{{_SVG}}}{tag}" for tag in ("metadata", "title", "style", "script")
            }:
                parent.remove(child)


def _rename(element: ET.Element, name: str) -> None:
    for key, value in element.attrib.items():
        if key == "id":
            value = f"{name}-{value}"
        elif key in ("href", f"{{{_XLINK}}}href"):
            if not value.startswith(("#", "data:image/png;base64,")):
                raise ValueError(f"the figure {name!r} refers to {value[:60]!r} outside of itself")
            value = value.replace("#", f"#{name}-", 1) if value.startswith("#") else value
        elif "url(#" in value:
            value = _REFERENCE.sub(rf"url(#{name}-\1)", value)
        if key == "style":
            value = value.replace("'DejaVu Sans'", _FONTS)
        element.attrib[key] = value
