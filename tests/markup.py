"""What is in an HTML page, for tests: its elements with their attributes and texts, and whether every tag was closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "img", "br", "input", "link", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parents: tuple[str, ...]
    text: str = ""
    descendants: list[Element] = field(default_factory=list)


class Markup(HTMLParser):
    """`elements` in their order; `faults` where a tag is closed that was not open, or the other way round."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.faults: list[str] = []
        self._open_elements: list[Element] = []
        self.feed(page)
        self.close()
        self.faults += [f"{element.tag} is never closed" for element in self._open_elements]

    def find_all(self, tag: str, **attributes: str) -> list[Element]:
        expected = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            element for element in self.elements if element.tag == tag and expected.items() <= element.attributes.items()
        ]

    @property
    def text(self) -> str:
        """What a reader sees: everything but styles, scripts and what is in drawings."""
        return " ".join(
            element.text
            for element in self.elements
            if element.tag not in {"script", "style", "title"} and "svg" not in element.parents
        )

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(
            tag, {name: value or "" for name, value in attrs}, tuple(ancestor.tag for ancestor in self._open_elements)
        )
        for parent in self._open_elements:
            parent.descendants.append(element)
        self.elements.append(element)
        if tag not in _VOID:
            self._open_elements.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open_elements or self._open_elements[-1].tag != tag:
            self.faults.append(f"</{tag}> closes {self._open_elements[-1].tag if self._open_elements else 'nothing'}")
            return
        self._open_elements.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open_elements:
            element.text += data
