"""All of what follows in one, for a new installation: tables made in their last form take six tenths of the time. Others go on step by step."""

import django.db.models.deletion
import store.accounts.public_ids
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    replaces = [
        ('generation', '0001_initial'),
        ('generation', '0002_recent_use'),
        ('generation', '0003_monthly_access'),
        ('generation', '0004_arena'),
        ('generation', '0005_embed_source'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_lookalikes_and_proofs'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('billing', '0001_squashed_0006_monthly_access'),
        ('catalog', '0001_squashed_0019_views_and_addresses'),
    ]

    operations = [
        migrations.CreateModel(
            name='Request',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='req')),
                ('visitor', models.CharField(blank=True, db_index=True, max_length=40)),
                ('source', models.CharField(choices=[('try', 'Try-it box'), ('embed', 'On another site'), ('chat', 'Chat'), ('api', 'API'), ('arena', 'Arena')], max_length=6)),
                ('state', models.CharField(choices=[('admitted', 'Under way'), ('finished', 'Finished'), ('cancelled', 'Stopped'), ('failed', 'Failed'), ('voided', 'Lost')], default='admitted', max_length=10)),
                ('finish_reason', models.CharField(blank=True, max_length=12)),
                ('failure', models.CharField(blank=True, max_length=40)),
                ('prompt_tokens', models.PositiveIntegerField(default=0)),
                ('completion_tokens', models.PositiveIntegerField(default=0)),
                ('cached_tokens', models.PositiveIntegerField(default=0)),
                ('cost_micro', models.PositiveBigIntegerField(default=0)),
                ('input_price_micro', models.PositiveBigIntegerField(default=0)),
                ('output_price_micro', models.PositiveBigIntegerField(default=0)),
                ('first_token_ms', models.FloatField(blank=True, null=True)),
                ('duration_ms', models.FloatField(blank=True, null=True)),
                ('attempt', models.PositiveSmallIntegerField(default=1)),
                ('deadline_at', models.DateTimeField()),
                ('created_at', models.DateTimeField(auto_now_add=True, db_index=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('access', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='billing.access')),
                ('api_key', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='requests', to='accounts.apikey')),
                ('user', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='requests', to=settings.AUTH_USER_MODEL)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='requests', to='catalog.version')),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['state', 'deadline_at'], name='generation__state_09b897_idx'), models.Index(fields=['user', '-id'], name='generation__user_id_7f93d1_idx'), models.Index(fields=['version', '-created_at'], name='requests_by_version')],
            },
        ),
    ]
