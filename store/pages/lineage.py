"""The lineage of a version as a drawing: what it was made from to the left, what was made from it to the right, up to two steps on."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from django.db.models import F
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from store.catalog.models import Ancestry, Listing, Version

CHILDREN, GRANDCHILDREN = 5, 5  # the most used
LOOKED_THROUGH = 300  # of what was made from it: a base may have very many
NODE_WIDTH, NODE_HEIGHT, ROW = 208, 56, 68  # pixels, as all lengths here
LABELLED_GAP, GAP = 148, 56  # between two columns
MARGIN = 2  # for the outlines
TEXT_WIDTH = NODE_WIDTH - 68  # beside the icon
NAME_EM = 13.0
MADE_BY: dict[str, str | Promise] = {
    Version.Kind.ADAPTER: _("Fine-tune, LoRA"),
    Version.Kind.WEIGHTS: _("Fine-tune, all weights"),
    Version.Kind.PROMPT: _("Instructions"),
}


@dataclass(frozen=True)
class Node:
    """A version in its place; `x` and `y` are its upper left corner."""

    version: Version
    name: str
    language: str
    x: float
    y: float
    is_this: bool = False

    @property
    def shown_name(self) -> str:
        return fitting(self.name, TEXT_WIDTH, NAME_EM)

    @property
    def middle(self) -> float:
        return self.y + NODE_HEIGHT / 2


@dataclass(frozen=True)
class Edge:
    """An arrow from one version to what was made from it; labelled where there is room."""

    source: Node
    target: Node
    label: str | Promise = ""

    @property
    def path(self) -> str:
        start, end = self.source.x + NODE_WIDTH, self.target.x - 1
        turn = (start + end) / 2
        return f"M{start:g} {self.source.middle:g}H{turn:g}V{self.target.middle:g}H{end:g}m-6 -4l6 4l-6 4"

    @property
    def label_x(self) -> float:
        return (self.source.x + NODE_WIDTH + self.target.x) / 2

    @property
    def label_y(self) -> float:
        return self.source.middle - 8


@dataclass(frozen=True)
class Lineage:
    ancestors: Sequence[Version]  # the root first
    version: Version
    children: Sequence[Version]
    grandchildren: dict[int, list[Version]]  # by the child they were made from
    nodes: Sequence[Node]
    edges: Sequence[Edge]
    node_width: int = NODE_WIDTH
    node_height: int = NODE_HEIGHT

    @property
    def is_alone(self) -> bool:
        return not self.ancestors and not self.children

    @property
    def width(self) -> float:
        return max(node.x for node in self.nodes) + NODE_WIDTH + MARGIN

    @property
    def height(self) -> float:
        return max(node.y for node in self.nodes) + NODE_HEIGHT + MARGIN

    @property
    def drawn(self) -> list[tuple[Edge | None, Node]]:
        """Each version behind the arrow that leads to it: so it is also read."""
        return list(zip([None, *self.edges], self.nodes, strict=True))

    @property
    def steps(self) -> list[tuple[Version, str | Promise]]:
        """Its ancestors, the root first, each with how the next was made from it."""
        return [(edge.source.version, edge.label) for edge in self.edges[: len(self.ancestors)]]

    @property
    def made_from_it(self) -> list[tuple[Version, list[Version]]]:
        return [(child, self.grandchildren.get(child.pk, [])) for child in self.children]


def of(version: Version) -> Lineage:
    """In a constant number of queries, however many there are."""
    load = ("listing__publisher", "listing__live_revision")
    texts = "listing__live_revision__texts"
    ancestors = Version.objects.filter(descendants__version=version).order_by("-descendants__depth")
    children = _made_from([version], CHILDREN)
    grandchildren: dict[int, list[Version]] = {}
    for one in _made_from(children, GRANDCHILDREN):
        grandchildren.setdefault(one.base_id or 0, []).append(one)
    return _placed(list(ancestors.select_related(*load).prefetch_related(texts)), version, children, grandchildren)


def _made_from(versions: Sequence[Version], most: int) -> list[Version]:
    """The current versions of listed GPTs that stand directly on one of these, the most used first."""
    if not versions:
        return []
    rows = Ancestry.objects.filter(ancestor__in=[version.pk for version in versions], depth=1).order_by()
    pks = list(rows.values_list("version", flat=True)[:LOOKED_THROUGH])
    found = Version.objects.available().filter(pk__in=pks, listing__in=Listing.objects.listed(), listing__current_version=F("pk"))
    load = found.select_related("listing__publisher", "listing__live_revision").prefetch_related("listing__live_revision__texts")
    return list(load.order_by("-listing__request_count", "-pk")[:most])


def _placed(ancestors: list[Version], version: Version, children: list[Version], grandchildren: dict[int, list[Version]]) -> Lineage:
    """Every row holds one leaf; who has children stands in the middle of theirs."""
    column = NODE_WIDTH + LABELLED_GAP
    this_x = MARGIN + len(ancestors) * column
    child_x = this_x + NODE_WIDTH + GAP
    placed: list[tuple[Node, list[Node]]] = []
    row = 0
    for child in children:
        leaves = grandchildren.get(child.pk, [])
        below = [_node(one, child_x + NODE_WIDTH + GAP, MARGIN + (row + at) * ROW) for at, one in enumerate(leaves)]
        middle = row + (max(len(leaves), 1) - 1) / 2
        placed.append((_node(child, child_x, MARGIN + middle * ROW), below))
        row += max(len(leaves), 1)
    y = MARGIN + (max(row, 1) - 1) / 2 * ROW
    chain = [_node(one, MARGIN + at * column, y) for at, one in enumerate(ancestors)]
    chain.append(_node(version, this_x, y, is_this=True))
    edges = [Edge(one, other, MADE_BY[other.version.kind]) for one, other in pairwise(chain)]
    edges += [edge for child, below in placed for edge in (Edge(chain[-1], child), *(Edge(child, leaf) for leaf in below))]
    nodes = [*chain, *(node for child, below in placed for node in (child, *below))]
    return Lineage(ancestors, version, children, grandchildren, nodes, edges)


def _node(version: Version, x: float, y: float, *, is_this: bool = False) -> Node:
    text = version.listing.text()
    return Node(version, text.name, text.language, x, y, is_this)


def fitting(text: str, width: float, em: float) -> str:
    """As much of a text as fits into `width`, by the usual widths of its letters: a Chinese one is an em, a Latin one 0.58."""
    widths = [em if unicodedata.east_asian_width(letter) in "WF" else 0.58 * em for letter in text]
    if sum(widths) <= width:
        return text
    left, kept = width - em, ""
    for letter, letter_width in zip(text, widths, strict=True):
        left -= letter_width
        if left < 0:
            break
        kept += letter
    return f"{kept.rstrip()}…"
