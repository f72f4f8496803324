"""Tables as the pages that a browser gets."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import soundfile

import voiceprint_nb as vp


class Page(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.sources = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "audio":
            self.sources.append(dict(attrs)["src"])


def page(frame, *args, interactive=False, **options):
    return vp.show(frame, *args, interactive=interactive, **options)._repr_html_()


def embedded(text):
    """Media type and bytes of each player."""
    found = (source for source in Page(text).sources if source.startswith("data:"))
    split = (re.fullmatch(r"data:([a-z0-9/]+);base64,(.*)", source) for source in found)
    return [(match[1], base64.b64decode(match[2])) for match in split]


def write(path, *, seconds=2.0, rate=16_000, **options):
    rng = np.random.default_rng(1)
    soundfile.write(path, rng.normal(scale=0.1, size=round(seconds * rate)), rate, **options)
    return str(path)
