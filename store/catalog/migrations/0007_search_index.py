"""What each database offers to find words with, and everything that is there already put into it."""

from django.db import migrations

POSTGRESQL = (
    # A lexeme is a term as it stands, with its mark: no dictionary changes it. Without a list of what is pending: reading stays even.
    "ALTER TABLE catalog_searchtext ADD COLUMN doc tsvector"
    " GENERATED ALWAYS AS (array_to_tsvector(string_to_array(btrim(terms), ' '))) STORED",
    "ALTER TABLE catalog_searchtext ALTER COLUMN doc SET STATISTICS 500",
    "CREATE INDEX catalog_searchtext_doc ON catalog_searchtext USING gin (doc) WITH (fastupdate = off)",
)
SQLITE = (
    # ASCII's tokenizer takes every other character as a part of a word, so a term stays in one piece, with its mark.
    "CREATE VIRTUAL TABLE catalog_searchtext_fts USING fts5(terms, content='catalog_searchtext', content_rowid='listing_id',"
    """ detail=none, prefix='1 2 3 4', tokenize="ascii tokenchars '^~:=/.+-'")""",
    "CREATE TRIGGER catalog_searchtext_inserted AFTER INSERT ON catalog_searchtext BEGIN"
    " INSERT INTO catalog_searchtext_fts(rowid, terms) VALUES (new.listing_id, new.terms); END",
    "CREATE TRIGGER catalog_searchtext_deleted AFTER DELETE ON catalog_searchtext BEGIN"
    " INSERT INTO catalog_searchtext_fts(catalog_searchtext_fts, rowid, terms) VALUES ('delete', old.listing_id, old.terms); END",
    "CREATE TRIGGER catalog_searchtext_updated AFTER UPDATE OF terms ON catalog_searchtext WHEN old.terms <> new.terms BEGIN"
    " INSERT INTO catalog_searchtext_fts(catalog_searchtext_fts, rowid, terms) VALUES ('delete', old.listing_id, old.terms);"
    " INSERT INTO catalog_searchtext_fts(rowid, terms) VALUES (new.listing_id, new.terms); END",
)
UNDO = {
    "postgresql": ("ALTER TABLE catalog_searchtext DROP COLUMN doc",),
    "sqlite": (
        "DROP TRIGGER catalog_searchtext_inserted",
        "DROP TRIGGER catalog_searchtext_deleted",
        "DROP TRIGGER catalog_searchtext_updated",
        "DROP TABLE catalog_searchtext_fts",
    ),
}


def make(apps, schema_editor):
    for statement in POSTGRESQL if schema_editor.connection.vendor == "postgresql" else SQLITE:
        schema_editor.execute(statement)


def drop(apps, schema_editor):
    for statement in UNDO[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def fill(apps, schema_editor):
    if not apps.get_model("catalog", "Listing").objects.exists():
        return  # a new installation: the tables of later applications may not be there yet
    from store.catalog.search.documents import refresh_all

    refresh_all()


class Migration(migrations.Migration):
    dependencies = [("catalog", "0006_search")]

    operations = [
        migrations.RunPython(make, drop, elidable=False),
        migrations.RunPython(fill, migrations.RunPython.noop, elidable=False),
    ]
