"""The head of a large catalogue and its index of words. It fills by itself: the store's worker chooses it from time to time."""

import django.db.models.deletion
from django.db import migrations, models

POSTGRESQL = (
    "ALTER TABLE catalog_searchhead ADD COLUMN doc tsvector"
    " GENERATED ALWAYS AS (array_to_tsvector(string_to_array(btrim(terms), ' '))) STORED",
    "CREATE INDEX catalog_searchhead_doc ON catalog_searchhead USING gin (doc) WITH (fastupdate = off)",
)
SQLITE = (
    "CREATE VIRTUAL TABLE catalog_searchhead_fts USING fts5(terms, content='catalog_searchhead', content_rowid='place',"
    """ detail=none, prefix='1 2 3 4', tokenize="ascii tokenchars '^~:=/.+-'")""",
    "CREATE TRIGGER catalog_searchhead_inserted AFTER INSERT ON catalog_searchhead BEGIN"
    " INSERT INTO catalog_searchhead_fts(rowid, terms) VALUES (new.place, new.terms); END",
    "CREATE TRIGGER catalog_searchhead_deleted AFTER DELETE ON catalog_searchhead BEGIN"
    " INSERT INTO catalog_searchhead_fts(catalog_searchhead_fts, rowid, terms) VALUES ('delete', old.place, old.terms); END",
    "CREATE TRIGGER catalog_searchhead_updated AFTER UPDATE OF terms ON catalog_searchhead WHEN old.terms <> new.terms BEGIN"
    " INSERT INTO catalog_searchhead_fts(catalog_searchhead_fts, rowid, terms) VALUES ('delete', old.place, old.terms);"
    " INSERT INTO catalog_searchhead_fts(rowid, terms) VALUES (new.place, new.terms); END",
)
UNDO = {
    "postgresql": ("ALTER TABLE catalog_searchhead DROP COLUMN doc",),
    "sqlite": (
        "DROP TRIGGER catalog_searchhead_inserted",
        "DROP TRIGGER catalog_searchhead_deleted",
        "DROP TRIGGER catalog_searchhead_updated",
        "DROP TABLE catalog_searchhead_fts",
    ),
}


def make(apps, schema_editor):
    for statement in POSTGRESQL if schema_editor.connection.vendor == "postgresql" else SQLITE:
        schema_editor.execute(statement)


def drop(apps, schema_editor):
    for statement in UNDO[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("catalog", "0017_arranged_collections")]

    operations = [
        migrations.CreateModel(
            name="SearchHead",
            fields=[
                ("place", models.BigIntegerField(primary_key=True, serialize=False)),
                (
                    "listing",
                    models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name="search_head", to="catalog.listing"),
                ),
                ("terms", models.TextField(blank=True)),
            ],
        ),
        migrations.RunPython(make, drop, elidable=False),
    ]
