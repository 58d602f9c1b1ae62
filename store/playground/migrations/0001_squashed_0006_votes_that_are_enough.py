"""All of what follows in one, for a new installation: tables made in their last form take six tenths of the time. Others go on step by step."""

import django.db.models.deletion
import store.accounts.public_ids
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    replaces = [
        ('playground', '0001_initial'),
        ('playground', '0002_arena'),
        ('playground', '0003_shares'),
        ('playground', '0004_embeds'),
        ('playground', '0005_feedback'),
        ('playground', '0006_votes_that_are_enough'),
    ]

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('catalog', '0001_squashed_0019_views_and_addresses'),
        ('generation', '0001_squashed_0005_embed_source'),
        ('jobs', '0001_squashed_0007_model_folders'),
    ]

    operations = [
        migrations.CreateModel(
            name='Tally',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('computed_at', models.DateTimeField(auto_now_add=True)),
                ('vote_count', models.PositiveIntegerField()),
                ('doubted_count', models.PositiveIntegerField()),
            ],
            options={
                'verbose_name_plural': 'tallies',
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Conversation',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='cnv')),
                ('visitor', models.CharField(blank=True, db_index=True, max_length=40)),
                ('title', models.CharField(blank=True, max_length=80, verbose_name='title')),
                ('parameters', models.JSONField(blank=True, default=dict)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('user', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='conversations', to=settings.AUTH_USER_MODEL)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='catalog.version')),
            ],
            options={
                'ordering': ['-updated_at'],
                'constraints': [models.CheckConstraint(condition=models.Q(('user__isnull', False), models.Q(('visitor', ''), _negated=True), _connector='OR'), name='conversation_belongs_to_somebody')],
            },
        ),
        migrations.CreateModel(
            name='Embed',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='emb')),
                ('is_on', models.BooleanField(default=False)),
                ('origins', models.JSONField(blank=True, default=list)),
                ('tokens_per_day', models.PositiveIntegerField(default=100000)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('listing', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='embed', to='catalog.listing')),
            ],
        ),
        migrations.CreateModel(
            name='FeedbackConsent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('given_at', models.DateTimeField(auto_now_add=True)),
                ('user', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='feedback_consent', to=settings.AUTH_USER_MODEL)),
            ],
        ),
        migrations.CreateModel(
            name='Message',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='msg')),
                ('role', models.CharField(choices=[('user', 'You'), ('assistant', 'Answer')], max_length=10)),
                ('text', models.TextField(blank=True)),
                ('replaced_at', models.DateTimeField(blank=True, null=True)),
                ('liked', models.BooleanField(blank=True, null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('conversation', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='messages', to='playground.conversation')),
                ('request', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='messages', to='generation.request')),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='PreferenceSet',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='prf')),
                ('digests', models.JSONField(default=list)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('file', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='preference_set', to='jobs.uploadedfile')),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='preference_sets', to='catalog.listing')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='PreferencePair',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('chosen', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='playground.message')),
                ('rejected', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='playground.message')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('set', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='pairs', to='playground.preferenceset')),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='Share',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='shr')),
                ('name', models.CharField(blank=True, max_length=40)),
                ('title', models.CharField(blank=True, max_length=80)),
                ('messages', models.JSONField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('revoked_at', models.DateTimeField(blank=True, null=True)),
                ('conversation', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='shares', to='playground.conversation')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='catalog.version')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.UniqueConstraint(condition=models.Q(('revoked_at__isnull', True)), fields=('conversation',), name='one_live_share_per_conversation')],
            },
        ),
        migrations.CreateModel(
            name='Standing',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('rating', models.FloatField()),
                ('margin', models.FloatField()),
                ('votes', models.PositiveIntegerField()),
                ('wins', models.PositiveIntegerField()),
                ('ties', models.PositiveIntegerField()),
                ('use_case', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='catalog.usecase')),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='arena_standings', to='catalog.version')),
                ('tally', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='standings', to='playground.tally')),
            ],
            options={
                'ordering': ['-rating'],
            },
        ),
        migrations.CreateModel(
            name='Battle',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='btl')),
                ('text', models.TextField()),
                ('fingerprint', models.CharField(blank=True, db_index=True, max_length=32)),
                ('answer_a', models.TextField(blank=True)),
                ('answer_b', models.TextField(blank=True)),
                ('vote', models.CharField(blank=True, choices=[('a', 'A is better'), ('b', 'B is better'), ('tie', 'Both are as good'), ('bad', 'Both are bad')], max_length=4)),
                ('doubt', models.CharField(blank=True, choices=[('named', 'an answer gives a name away'), ('repeated', 'the same was asked of the same two before'), ('enough', 'you have voted as often on one of the two as counts'), ('burst', 'too many alike in a short time')], max_length=10)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('voted_at', models.DateTimeField(blank=True, null=True)),
                ('request_a', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='generation.request')),
                ('request_b', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='generation.request')),
                ('use_case', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='catalog.usecase')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='battles', to=settings.AUTH_USER_MODEL)),
                ('version_a', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='catalog.version')),
                ('version_b', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='catalog.version')),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(condition=models.Q(('vote', ''), _negated=True), fields=['voted_at'], name='battles_by_vote')],
                'constraints': [models.CheckConstraint(condition=models.Q(('version_a', models.F('version_b')), _negated=True), name='no_version_meets_itself'), models.CheckConstraint(condition=models.Q(models.Q(('vote', ''), ('voted_at__isnull', True)), models.Q(models.Q(('vote', ''), _negated=True), ('voted_at__isnull', False)), _connector='OR'), name='vote_has_its_time')],
            },
        ),
    ]
