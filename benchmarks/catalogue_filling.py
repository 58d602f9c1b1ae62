"""A catalogue of many listings, written in bulk: `python -m benchmarks.catalogue_filling 1000000 --processes 2`.

Writes to the database of the settings, which should hold nothing else. Goes on where it was broken off. PostgreSQL takes the rows by
COPY from several processes, without foreign keys checked, and builds the indexes afterwards; SQLite takes them from one.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import django

CHUNK = 5_000
BASES = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int)
    parser.add_argument("--processes", type=int, default=1, help="that make rows for PostgreSQL")
    options = parser.parse_args()
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from store.catalog.search import heading

    call_command("migrate", verbosity=0)
    begun = time.monotonic()
    if missing := _missing(options.size):
        make_ground(options.size)
        with _without_indexes():
            _fill(missing, options.processes if connection.vendor == "postgresql" else 1)
    if heading.choose() or missing:
        finish()
    print(f"{options.size:,} listings, {time.monotonic() - begun:.0f} s")


def _missing(size: int) -> list[range]:
    """The chunks that are not there; a chunk is written in one transaction."""
    from store.catalog.models import Listing

    chunks = [range(start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]
    wanted = [f"lst_many{number}" for chunk in chunks for number in (chunk[0], chunk[-1])]
    there = set(Listing.objects.filter(public_id__in=wanted).values_list("public_id", flat=True))
    return [chunk for chunk in chunks if not {f"lst_many{chunk[0]}", f"lst_many{chunk[-1]}"} <= there]


def make_ground(size: int) -> None:
    """The publishers, and the versions that everything is built on."""
    from benchmarks.catalogue_rows import PER_PUBLISHER
    from store.accounts.models import Publisher
    from store.catalog.models import Listing, ListingRevision, ListingText, Version
    from store.catalog.search import documents

    makers = -(-size // PER_PUBLISHER)
    names = [Publisher(slug=f"maker-{number}", name=f"Maker {number}") for number in range(makers)]
    Publisher.objects.bulk_create([*names, Publisher(slug="bases", name="Base models")], ignore_conflicts=True, batch_size=CHUNK)
    owner = Publisher.objects.get(slug="bases")
    for number in range(BASES):
        fields = {"visibility": "public", "licence": "Apache-2.0", "languages": ["en", "zh"], "allow_finetune": True}
        listing, is_new = Listing.objects.get_or_create(publisher=owner, slug=f"base-{number}", defaults=fields)
        if not is_new:
            continue
        revision = ListingRevision.objects.create(listing=listing, state="live")
        ListingText.objects.create(revision=revision, language="en", name=f"Base {number}", summary="A base model.")
        facts = {"architecture": "LlamaForCausalLM", "parameters": 135_000_000 * 3 ** (number % 5), "context_length": 8192}
        made = {"number": "1.0.0", "kind": "weights", "state": "released", "digest": "0" * 64, "facts": facts}
        version = Version.objects.create(listing=listing, **made)
        Listing.objects.filter(pk=listing.pk).update(live_revision=revision, current_version=version, published_at=version.created_at)
        documents.refresh(listing)


def _ground() -> Any:
    from django.utils import timezone

    from benchmarks.catalogue_rows import Ground
    from store.accounts.models import Publisher
    from store.catalog.models import UseCase, Version

    bases = Version.objects.filter(listing__publisher__slug="bases").select_related("listing__publisher").order_by("pk")
    makers = Publisher.objects.filter(slug__startswith="maker-").order_by("pk")
    use_cases = {use_case.slug: use_case for use_case in UseCase.objects.all()}
    return Ground(1000, list(makers), list(bases), use_cases, timezone.now())


def _fill(missing: list[range], processes: int) -> None:
    from store.catalog.search import spelling

    words: set[str] = set()
    begun = time.monotonic()
    for done, new in enumerate(_written(missing, processes), start=1):
        words |= new
        print(f"{done} of {len(missing)} chunks: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    spelling.learn(words)


def _written(missing: list[range], processes: int) -> Iterator[set[str]]:
    if processes == 1:
        ground = _ground()
        yield from (_write(chunk, ground) for chunk in missing)
        return
    # Fresh processes, so that none has a connection of another's.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_begin) as pool:
        yield from pool.map(_write_there, missing)


def _begin() -> None:
    django.setup()
    global _here
    _here = _ground()


_here: Any = None


def _write_there(chunk: range) -> set[str]:
    return _write(chunk, _here)


def _write(chunk: range, ground: Any) -> set[str]:
    from django.db import transaction

    from benchmarks.catalogue_rows import rows_of

    tables: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    words: set[str] = set()
    for number in chunk:
        rows, new = rows_of(number, ground)
        words |= new
        for model, row in rows:
            tables[model].append(row)
    with transaction.atomic():
        for model, rows in tables.items():
            _insert(model, rows)
    return words


def _insert(model: Any, rows: Iterable[dict[str, Any]]) -> None:
    from django.db import connection

    fields = model._meta.local_concrete_fields
    prepared = [(field.attname, partial(field.get_db_prep_save, connection=connection)) for field in fields]
    fresh = model()
    defaults = {field.attname: prepare(field.pre_save(fresh, True)) for field, (_name, prepare) in zip(fields, prepared, strict=True)}
    values = ([prepare(row[name]) if name in row else defaults[name] for name, prepare in prepared] for row in rows)
    table, columns = model._meta.db_table, ", ".join(f'"{field.column}"' for field in fields)
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.executemany(f"INSERT INTO {table} ({columns}) VALUES ({', '.join(['%s'] * len(fields))})", values)
            return
        cursor.execute("SET LOCAL session_replication_role = replica")  # no foreign key is looked up row by row
        with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            for row in values:
                copy.write_row(row)


# ---------------------------------------------------------------- indexes


def _tables() -> list[str]:
    from store.catalog.models import (
        Ancestry,
        Listing,
        ListingRevision,
        ListingText,
        Measurement,
        SearchEntry,
        SearchText,
        Version,
    )
    from store.ratings.models import RatingSummary

    models = [Ancestry, Listing, ListingRevision, ListingText, Measurement, RatingSummary, Version, SearchEntry, SearchText]
    return [model._meta.db_table for model in [*models, Listing.use_cases.through]]


@contextmanager
def _without_indexes() -> Iterator[None]:
    """Either database builds an index faster at once than row by row. What a broken run dropped is in a table, and made by the next."""
    from django.db import connection

    with connection.cursor() as cursor:
        dropped = _drop_on_postgresql(cursor) if connection.vendor == "postgresql" else _drop_on_sqlite(cursor)
        yield
        if connection.vendor == "postgresql":
            cursor.execute("SET maintenance_work_mem = '1GB'")
        for made in dropped:
            begun = time.monotonic()
            cursor.execute(made)
            print(f"{made[:100]}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def _drop_on_postgresql(cursor: Any) -> list[str]:
    cursor.execute("CREATE TABLE IF NOT EXISTS benchmark_dropped (name text PRIMARY KEY, made text)")
    cursor.execute(
        "INSERT INTO benchmark_dropped SELECT indexname, replace(indexdef, ' INDEX ', ' INDEX IF NOT EXISTS ') FROM pg_indexes"
        " WHERE tablename = ANY(%s) AND indexname NOT IN (SELECT conname FROM pg_constraint) ON CONFLICT DO NOTHING",
        [_tables()],
    )
    cursor.execute("SELECT name, made FROM benchmark_dropped")
    dropped = cursor.fetchall()
    for name, _made in dropped:
        cursor.execute(f'DROP INDEX IF EXISTS "{name}"')
    return [made for _name, made in dropped]


def _drop_on_sqlite(cursor: Any) -> list[str]:
    """The words alone: what fills their index otherwise is a trigger."""
    cursor.execute("SELECT sql FROM sqlite_master WHERE name = 'catalog_searchtext_inserted'")
    (made,) = itertools.chain.from_iterable(cursor.fetchall())
    cursor.execute("DROP TRIGGER catalog_searchtext_inserted")
    return [made, "INSERT INTO catalog_searchtext_fts(catalog_searchtext_fts) VALUES ('rebuild')"]


def finish() -> None:
    """Where the next rows go on, and statistics, as autovacuum would have left them after a while."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            for table in _tables():
                cursor.execute("SELECT pg_get_serial_sequence(%s, 'id') WHERE EXISTS (SELECT FROM information_schema.columns "
                               "WHERE table_name = %s AND column_name = 'id')", [table, table])  # fmt: skip
                if found := cursor.fetchone():
                    cursor.execute(f"SELECT setval('{found[0]}', (SELECT max(id) FROM {table}))")
        else:
            cursor.execute("INSERT INTO catalog_searchtext_fts(catalog_searchtext_fts) VALUES ('optimize')")
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


if __name__ == "__main__":
    main()
