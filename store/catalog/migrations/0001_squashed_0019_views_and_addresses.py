"""All of what follows in one, for a new installation: tables made in their last form take six tenths of the time. Others go on step by step."""

from typing import Any

import django.core.validators
import django.db.models.deletion
import store.accounts.public_ids
from django.conf import settings
from django.db import migrations, models

# What each database offers to find words with: for every text, and for the head of a large catalogue, which the store chooses from time to time.


def _postgresql(table: str, *, statistics: str = "") -> tuple[str, ...]:
    # A lexeme is a term as it stands, with its mark: no dictionary changes it. Without a list of what is pending: reading stays even.
    return (
        f"ALTER TABLE {table} ADD COLUMN doc tsvector"
        " GENERATED ALWAYS AS (array_to_tsvector(string_to_array(btrim(terms), ' '))) STORED",
        *((f"ALTER TABLE {table} ALTER COLUMN doc SET STATISTICS {statistics}",) if statistics else ()),
        f"CREATE INDEX {table}_doc ON {table} USING gin (doc) WITH (fastupdate = off)",
    )


def _sqlite(table: str, key: str) -> tuple[str, ...]:
    # ASCII's tokenizer takes every other character as a part of a word, so a term stays in one piece, with its mark.
    added = f"INSERT INTO {table}_fts(rowid, terms) VALUES (new.{key}, new.terms);"
    taken = f"INSERT INTO {table}_fts({table}_fts, rowid, terms) VALUES ('delete', old.{key}, old.terms);"
    return (
        f"CREATE VIRTUAL TABLE {table}_fts USING fts5(terms, content='{table}', content_rowid='{key}',"
        """ detail=none, prefix='1 2 3 4', tokenize="ascii tokenchars '^~:=/.+-'")""",
        f"CREATE TRIGGER {table}_inserted AFTER INSERT ON {table} BEGIN {added} END",
        f"CREATE TRIGGER {table}_deleted AFTER DELETE ON {table} BEGIN {taken} END",
        f"CREATE TRIGGER {table}_updated AFTER UPDATE OF terms ON {table} WHEN old.terms <> new.terms BEGIN {taken} {added} END",
    )


MADE = {
    "postgresql": (*_postgresql("catalog_searchtext", statistics="500"), *_postgresql("catalog_searchhead")),
    "sqlite": (*_sqlite("catalog_searchtext", "listing_id"), *_sqlite("catalog_searchhead", "place")),
}
UNDONE = {
    "postgresql": tuple(f"ALTER TABLE {table} DROP COLUMN doc" for table in ("catalog_searchtext", "catalog_searchhead")),
    "sqlite": tuple(
        statement
        for table in ("catalog_searchtext", "catalog_searchhead")
        for statement in (*(f"DROP TRIGGER {table}_{act}" for act in ("inserted", "deleted", "updated")), f"DROP TABLE {table}_fts")
    ),
}


def make(apps: Any, schema_editor: Any) -> None:
    for statement in MADE[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


def drop(apps: Any, schema_editor: Any) -> None:
    for statement in UNDONE[schema_editor.connection.vendor]:
        schema_editor.execute(statement)


class Migration(migrations.Migration):

    replaces = [
        ('catalog', '0001_initial'),
        ('catalog', '0002_wanted_visibility'),
        ('catalog', '0003_downloads'),
        ('catalog', '0004_measured_differences'),
        ('catalog', '0005_trained_weights'),
        ('catalog', '0006_search'),
        ('catalog', '0007_search_index'),
        ('catalog', '0008_version_terms'),
        ('catalog', '0009_follows'),
        ('catalog', '0010_collections'),
        ('catalog', '0011_leaderboards'),
        ('catalog', '0012_version_notices'),
        ('catalog', '0013_icons'),
        ('catalog', '0014_own_licences'),
        ('catalog', '0015_monthly_access'),
        ('catalog', '0016_transfers'),
        ('catalog', '0017_arranged_collections'),
        ('catalog', '0018_search_head'),
        ('catalog', '0019_views_and_addresses'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_lookalikes_and_proofs'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Artifact',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='art')),
                ('digest', models.CharField(max_length=64, unique=True)),
                ('revision', models.CharField(max_length=40, unique=True)),
                ('manifest', models.JSONField()),
                ('size_bytes', models.PositiveBigIntegerField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name='Listing',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='lst')),
                ('slug', models.CharField(max_length=48, validators=[django.core.validators.RegexValidator('^[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?$', 'Use 1 to 48 lower-case letters, digits and hyphens, beginning and ending with a letter or digit.')], verbose_name='name in addresses')),
                ('visibility', models.CharField(choices=[('draft', 'Draft'), ('unlisted', 'Unlisted'), ('public', 'Public')], default='draft', max_length=10)),
                ('wanted_visibility', models.CharField(choices=[('unlisted', 'Unlisted'), ('public', 'Public')], default='public', max_length=10)),
                ('suspended_at', models.DateTimeField(blank=True, null=True)),
                ('licence', models.CharField(help_text='An SPDX identifier, for example Apache-2.0.', max_length=60, verbose_name='licence')),
                ('licence_name', models.CharField(blank=True, max_length=60)),
                ('licence_url', models.URLField(blank=True, max_length=300)),
                ('languages', models.JSONField(default=list)),
                ('input_price_micro', models.PositiveBigIntegerField(default=0, validators=[django.core.validators.MaxValueValidator(1000000000)], verbose_name='price of a million input tokens')),
                ('output_price_micro', models.PositiveBigIntegerField(default=0, validators=[django.core.validators.MaxValueValidator(1000000000)], verbose_name='price of a million output tokens')),
                ('monthly_price_micro', models.PositiveBigIntegerField(default=0, validators=[django.core.validators.MaxValueValidator(1000000000)])),
                ('monthly_tokens', models.PositiveBigIntegerField(default=0, validators=[django.core.validators.MaxValueValidator(10000000000)])),
                ('allow_finetune', models.BooleanField(default=False, verbose_name='others may fine-tune it')),
                ('allow_download', models.BooleanField(default=False, verbose_name='weights can be downloaded')),
                ('featured', models.PositiveSmallIntegerField(default=0, help_text='0: not featured; else its place on the home page.')),
                ('request_count', models.PositiveBigIntegerField(default=0)),
                ('download_count', models.PositiveBigIntegerField(default=0)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('published_at', models.DateTimeField(blank=True, null=True)),
                ('publisher', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='listings', to='accounts.publisher')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Tag',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('slug', models.SlugField(max_length=40, unique=True)),
            ],
            options={
                'ordering': ['slug'],
            },
        ),
        migrations.CreateModel(
            name='UseCase',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('slug', models.SlugField(max_length=40, unique=True)),
                ('name_en', models.CharField(max_length=40)),
                ('name_zh', models.CharField(max_length=40)),
                ('icon', models.CharField(max_length=20)),
                ('position', models.PositiveSmallIntegerField(default=0)),
                ('synonyms', models.TextField(blank=True, help_text='Other words for it in any language, with commas between them; search knows them.')),
            ],
            options={
                'ordering': ['position', 'slug'],
            },
        ),
        migrations.CreateModel(
            name='Collection',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='col')),
                ('name', models.CharField(max_length=60, verbose_name='name')),
                ('about', models.CharField(blank=True, max_length=300, verbose_name='what it is for')),
                ('is_public', models.BooleanField(default=False, verbose_name='whoever has the address can see it')),
                ('featured', models.PositiveSmallIntegerField(default=0, help_text='0: not featured; else its place on the home page, while it is shared.')),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='collections', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.UniqueConstraint(fields=('user', 'name'), name='one_collection_per_name')],
            },
        ),
        migrations.CreateModel(
            name='SearchEntry',
            fields=[
                ('listing', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='search_entry', serialize=False, to='catalog.listing')),
                ('is_listed', models.BooleanField(default=False)),
                ('is_stale', models.BooleanField(default=False)),
                ('facts', models.CharField(blank=True, max_length=600)),
                ('rank', models.FloatField(default=0.0)),
                ('heat', models.FloatField(default=0.0)),
                ('rating', models.FloatField(default=0.0)),
                ('published', models.FloatField(default=0.0)),
                ('price', models.FloatField(default=0.0)),
                ('name_en', models.CharField(blank=True, max_length=240)),
                ('name_zh', models.CharField(blank=True, max_length=240)),
            ],
            options={
                'verbose_name_plural': 'search entries',
                'indexes': [models.Index(models.F('rank'), models.F('listing'), condition=models.Q(('is_listed', True)), name='entry_by_rank'), models.Index(models.F('heat'), models.F('listing'), condition=models.Q(('is_listed', True)), name='entry_by_heat'), models.Index(models.F('rating'), models.F('listing'), condition=models.Q(('is_listed', True)), name='entry_by_rating'), models.Index(models.F('published'), models.F('listing'), condition=models.Q(('is_listed', True)), name='entry_by_published'), models.Index(models.F('price'), models.F('listing'), condition=models.Q(('is_listed', True)), name='entry_by_price'), models.Index(models.F('name_en'), models.F('listing'), condition=models.Q(('is_listed', True)), name='entry_by_name_en'), models.Index(models.F('name_zh'), models.F('listing'), condition=models.Q(('is_listed', True)), name='entry_by_name_zh'), models.Index(models.F('is_stale'), condition=models.Q(('is_stale', True)), name='stale_entries')],
            },
        ),
        migrations.CreateModel(
            name='SearchText',
            fields=[
                ('listing', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='search_text', serialize=False, to='catalog.listing')),
                ('terms', models.TextField(blank=True)),
            ],
        ),
        migrations.CreateModel(
            name='FormerAddress',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('slug', models.CharField(max_length=48)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('publisher', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='former_addresses', to='accounts.publisher')),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='former_addresses', to='catalog.listing')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('publisher', 'slug'), name='one_listing_per_former_address')],
            },
        ),
        migrations.CreateModel(
            name='Follow',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='fol')),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('publisher', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='follows', to='accounts.publisher')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='follows', to=settings.AUTH_USER_MODEL)),
                ('listing', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='follows', to='catalog.listing')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.UniqueConstraint(fields=('user', 'listing'), name='one_follow_per_listing'), models.UniqueConstraint(fields=('user', 'publisher'), name='one_follow_per_publisher'), models.CheckConstraint(condition=models.Q(models.Q(('listing__isnull', True), ('publisher__isnull', False)), models.Q(('listing__isnull', False), ('publisher__isnull', True)), _connector='OR'), name='one_thing_is_followed')],
            },
        ),
        migrations.CreateModel(
            name='CollectionItem',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('place', models.IntegerField(default=0)),
                ('note', models.CharField(blank=True, max_length=200, verbose_name='why it is here')),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('collection', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='items', to='catalog.collection')),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='catalog.listing')),
            ],
            options={
                'ordering': ['place', '-id'],
                'constraints': [models.UniqueConstraint(fields=('collection', 'listing'), name='one_item_per_collection_and_listing')],
            },
        ),
        migrations.CreateModel(
            name='ListingRevision',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='rev')),
                ('state', models.CharField(choices=[('draft', 'Draft'), ('sealed', 'Submitted'), ('live', 'Live'), ('superseded', 'Superseded'), ('refused', 'Refused')], default='draft', max_length=12)),
                ('icon', models.CharField(blank=True, db_index=True, max_length=64)),
                ('small_icon', models.CharField(blank=True, db_index=True, max_length=64)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='revisions', to='catalog.listing')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.UniqueConstraint(condition=models.Q(('state', 'live')), fields=('listing',), name='one_live_revision_per_listing')],
            },
        ),
        migrations.AddField(
            model_name='listing',
            name='live_revision',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='catalog.listingrevision'),
        ),
        migrations.CreateModel(
            name='ListingText',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('language', models.CharField(choices=[('en', 'English'), ('zh-hans', 'Simplified Chinese')], max_length=10)),
                ('name', models.CharField(max_length=60, verbose_name='name')),
                ('summary', models.CharField(max_length=200, verbose_name='summary')),
                ('card', models.TextField(blank=True, max_length=20000, verbose_name='description')),
                ('revision', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='texts', to='catalog.listingrevision')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('revision', 'language'), name='one_text_per_revision_and_language')],
            },
        ),
        migrations.CreateModel(
            name='ListingViews',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateField()),
                ('number', models.PositiveIntegerField(default=0)),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='views', to='catalog.listing')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('listing', 'day'), name='one_row_of_views_per_listing_and_day')],
            },
        ),
        migrations.CreateModel(
            name='SavedSearch',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='sea')),
                ('address', models.CharField(max_length=2600)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='saved_searches', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name_plural': 'saved searches',
                'ordering': ['-id'],
                'constraints': [models.UniqueConstraint(fields=('user', 'address'), name='one_saved_search_per_address')],
            },
        ),
        migrations.CreateModel(
            name='SearchHead',
            fields=[
                ('place', models.BigIntegerField(primary_key=True, serialize=False)),
                ('terms', models.TextField(blank=True)),
                ('listing', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='search_head', to='catalog.listing')),
            ],
        ),
        migrations.CreateModel(
            name='Spelling',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('form', models.CharField(max_length=24)),
                ('word', models.CharField(max_length=24)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('form', 'word'), name='one_row_per_form_and_word')],
            },
        ),
        migrations.AddField(
            model_name='listing',
            name='tags',
            field=models.ManyToManyField(blank=True, related_name='listings', to='catalog.tag'),
        ),
        migrations.CreateModel(
            name='Transfer',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='trf')),
                ('state', models.CharField(choices=[('open', 'Open'), ('accepted', 'Accepted'), ('declined', 'Declined'), ('revoked', 'Taken back')], default='open', max_length=10)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('expires_at', models.DateTimeField()),
                ('answered_at', models.DateTimeField(blank=True, null=True)),
                ('giver', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.publisher')),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='transfers', to='catalog.listing')),
                ('offered_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('taker', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.publisher')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.UniqueConstraint(condition=models.Q(('state', 'open')), fields=('listing',), name='one_open_offer_per_listing')],
            },
        ),
        migrations.AddField(
            model_name='listing',
            name='use_cases',
            field=models.ManyToManyField(blank=True, related_name='listings', to='catalog.usecase'),
        ),
        migrations.CreateModel(
            name='Version',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='ver')),
                ('number', models.CharField(max_length=20, validators=[django.core.validators.RegexValidator('^(0|[1-9]\\d{0,4})\\.(0|[1-9]\\d{0,4})\\.(0|[1-9]\\d{0,4})$', 'Write the version as three numbers, for example 1.2.0.')], verbose_name='version')),
                ('kind', models.CharField(choices=[('weights', 'Full weights'), ('adapter', 'Adapter'), ('prompt', 'Prompt GPT')], max_length=10)),
                ('state', models.CharField(choices=[('draft', 'Draft'), ('sealed', 'Submitted'), ('released', 'Released'), ('refused', 'Refused'), ('suspended', 'Suspended'), ('yanked', 'Withdrawn')], default='draft', max_length=10)),
                ('instructions', models.TextField(blank=True, max_length=8000, verbose_name='instructions')),
                ('starters', models.JSONField(blank=True, default=list, verbose_name='conversation starters')),
                ('parameters', models.JSONField(blank=True, default=dict, verbose_name='default parameters')),
                ('facts', models.JSONField(blank=True, default=dict)),
                ('change_log', models.TextField(blank=True, max_length=4000, verbose_name='what changed')),
                ('digest', models.CharField(blank=True, max_length=64)),
                ('terms', models.JSONField(blank=True, default=dict)),
                ('made_by', models.CharField(blank=True, max_length=40)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('sealed_at', models.DateTimeField(blank=True, null=True)),
                ('released_at', models.DateTimeField(blank=True, null=True)),
                ('announced_at', models.DateTimeField(blank=True, null=True)),
                ('deprecated_at', models.DateTimeField(blank=True, null=True)),
                ('notice', models.CharField(blank=True, max_length=300)),
                ('artifact', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='versions', to='catalog.artifact')),
                ('base', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='derived', to='catalog.version')),
                ('created_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='versions', to='catalog.listing')),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(condition=models.Q(('announced_at__isnull', True)), fields=['released_at'], name='unannounced_versions')],
                'constraints': [models.UniqueConstraint(fields=('listing', 'number'), name='one_version_per_number'), models.CheckConstraint(condition=models.Q(models.Q(('instructions', ''), ('kind', 'weights')), models.Q(('base__isnull', False), ('instructions', ''), ('kind', 'adapter')), models.Q(('artifact__isnull', True), ('base__isnull', False), ('kind', 'prompt')), _connector='OR'), name='version_has_the_parts_of_its_kind'), models.CheckConstraint(condition=models.Q(('state', 'draft'), models.Q(('digest', ''), _negated=True), _connector='OR'), name='version_sealed_by_digest')],
            },
        ),
        migrations.CreateModel(
            name='Measurement',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=40)),
                ('value', models.FloatField()),
                ('low', models.FloatField(null=True)),
                ('high', models.FloatField(null=True)),
                ('base_value', models.FloatField(null=True)),
                ('difference', models.FloatField(null=True)),
                ('difference_low', models.FloatField(null=True)),
                ('difference_high', models.FloatField(null=True)),
                ('unit', models.CharField(blank=True, max_length=20)),
                ('lower_is_better', models.BooleanField(default=False)),
                ('method', models.JSONField(default=dict)),
                ('made_by', models.CharField(blank=True, max_length=40)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='measurements', to='catalog.version')),
            ],
            options={
                'indexes': [models.Index(fields=['name', 'value'], name='measurements_by_value')],
                'constraints': [models.UniqueConstraint(fields=('version', 'name'), name='one_measurement_per_version_and_name')],
            },
        ),
        migrations.AddField(
            model_name='listing',
            name='current_version',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='catalog.version'),
        ),
        migrations.CreateModel(
            name='Ancestry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('depth', models.PositiveSmallIntegerField()),
                ('ancestor', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='descendants', to='catalog.version')),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='ancestry', to='catalog.version')),
            ],
            options={
                'ordering': ['depth'],
                'constraints': [models.UniqueConstraint(fields=('version', 'ancestor'), name='one_row_per_version_and_ancestor'), models.CheckConstraint(condition=models.Q(('version', models.F('ancestor')), _negated=True), name='no_version_is_its_own_ancestor')],
            },
        ),
        migrations.AddConstraint(
            model_name='listing',
            constraint=models.UniqueConstraint(fields=('publisher', 'slug'), name='one_listing_per_name'),
        ),
        migrations.RunPython(make, drop),
    ]
