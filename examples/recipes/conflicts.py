"""When many want the same.

Explained in docs/how-to/recipes/conflicts.md, which shows the same code.
"""

from __future__ import annotations

import eventfold as ef


class TicketDrawn(ef.Event):
    queue: ef.Tag
    number: int


class Queue(ef.State):
    queue: ef.Tag
    last: int = 0

    def evolve(self, event: TicketDrawn) -> None:
        self.last = event.number


def draw(queue: Queue) -> TicketDrawn:
    return TicketDrawn(queue.queue, queue.last + 1)


class ArticleEdited(ef.Event):
    article: ef.Tag
    text: str


class Article(ef.State):
    article: ef.Tag
    text: str = ""

    def evolve(self, event: ArticleEdited) -> None:
        self.text = event.text
