"""A page of HTML, parsed."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The elements of a page, and its visible text."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.text, self.open = [], "", None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open = tag

    def handle_data(self, data):
        if self.open not in ("script", "style"):
            self.text += data

    def handle_endtag(self, tag):
        self.open = None
