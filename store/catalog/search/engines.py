"""The two databases' ways to find terms, behind one small interface.

An engine turns groups of alternatives into its own language and gives the SQL of the listings that hold them. PostgreSQL looks in
the GIN index of `catalog_searchtext.doc`, SQLite in the FTS5 table `catalog_searchtext_fts`; both know the very same terms, whose
beginnings they find by their indexes. The head of a large catalogue is kept likewise in `catalog_searchhead`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from django.db import connection

from store.catalog.search import terms
from store.catalog.search.questions import Alternative, Group, Term

ENTRY = "catalog_searchentry"
LISTING_OF_PLACE = 2**40 - 1  # the bits of a place in the head that say the listing
PROBED = 20  # of the head, one of which is probably listed still


class Engine(ABC):
    """`expression` is of the engine's own language; `sql` of the listings that match one, with one parameter for it."""

    all_of: str
    any_of: str

    @abstractmethod
    def term(self, text: str, *, is_prefix: bool) -> str: ...

    @abstractmethod
    def sql(self, columns: str) -> str:
        """SELECT `columns` of the entries `e` whose terms match; to be followed by AND, ORDER BY and LIMIT."""

    @abstractmethod
    def best_of_head(self) -> str:
        """SELECT `listing_id` of those of the head whose terms match, the best first; its parameters are the expression and a limit."""

    def head_sql(self, columns: str) -> str:
        """The same as `sql` of those; with two parameters."""
        return f"SELECT {columns} FROM ({self.best_of_head()}) t CROSS JOIN {ENTRY} e WHERE e.listing_id = t.listing_id"

    def expression(self, groups: Iterable[Group], facts: Iterable[str] = (), *, mark: str = terms.BODY) -> str:
        """All groups, with their words in the place that `mark` says, and all facts; "" when some group can't be met there."""
        parts = [self.term(f"{terms.FILTER}{fact}", is_prefix=False) for fact in facts]
        for group in groups:
            alternatives = [rendered for one in group if (rendered := self._alternative(one, mark))]
            if not alternatives:
                return ""
            parts.append(alternatives[0] if len(alternatives) == 1 else f"({f' {self.any_of} '.join(alternatives)})")
        return f" {self.all_of} ".join(parts)

    def _alternative(self, alternative: Alternative, mark: str) -> str:
        if alternative.fact:
            return "" if mark == terms.NAME else self.term(f"{terms.FILTER}{alternative.fact}", is_prefix=False)
        words = [self.term(f"{mark}{term.text}", is_prefix=term.is_prefix) for term in alternative.terms]
        return words[0] if len(words) == 1 else f"({f' {self.all_of} '.join(words)})"


class PostgreSQL(Engine):
    """It asks by a subquery, of whose words the planner knows no numbers and takes them for rare. So it goes through the index, where it
    would rather read rows until enough match: each one's `doc` has to be unpacked for that, which costs a hundred times what it thinks.
    """

    all_of, any_of = "&", "|"

    def term(self, text: str, *, is_prefix: bool) -> str:
        quoted = text.replace("\\", "\\\\").replace("'", "''")
        return f"'{quoted}'{':*' if is_prefix else ''}"

    def sql(self, columns: str) -> str:
        return (
            f"SELECT {columns} FROM catalog_searchtext t JOIN {ENTRY} e ON e.listing_id = t.listing_id WHERE t.doc @@ (SELECT %s::tsquery)"
        )

    def best_of_head(self) -> str:
        return "SELECT listing_id FROM catalog_searchhead WHERE doc @@ (SELECT %s::tsquery) ORDER BY place LIMIT %s"


class SQLite(Engine):
    all_of, any_of = "AND", "OR"

    def term(self, text: str, *, is_prefix: bool) -> str:
        quoted = text.replace('"', '""')
        return f'"{quoted}"{"*" if is_prefix else ""}'

    def sql(self, columns: str) -> str:
        return (
            f"SELECT {columns} FROM catalog_searchtext_fts t CROSS JOIN {ENTRY} e ON e.listing_id = t.rowid "
            "WHERE t.catalog_searchtext_fts MATCH %s"
        )

    def best_of_head(self) -> str:
        # In this very order the index has them, so it reads no more of them than are wanted.
        return (
            f"SELECT rowid & {LISTING_OF_PLACE} AS listing_id FROM catalog_searchhead_fts "
            "WHERE catalog_searchhead_fts MATCH %s ORDER BY rowid LIMIT %s"
        )


def engine() -> Engine:
    return PostgreSQL() if connection.vendor == "postgresql" else SQLite()


def known(words: Sequence[str]) -> set[str]:
    """Which of the words begin a term of some listed GPT: what only a draft says is known to nobody. One query."""
    if not words:
        return set()
    found = engine()
    probe = f"EXISTS ({found.head_sql('1')} AND e.is_listed) OR EXISTS ({found.sql('1')} AND e.is_listed LIMIT 1)"
    terms = (found.term(word, is_prefix=True) for word in words)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join([probe] * len(words))}", [value for term in terms for value in (term, PROBED, term)])
        (row,) = cursor.fetchall()
    return {word for word, is_known in zip(words, row, strict=True) if is_known}


def prefix(text: str) -> Group:
    return (Alternative((Term(text),)),)
