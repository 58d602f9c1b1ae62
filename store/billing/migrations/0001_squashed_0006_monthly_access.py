"""All of what follows in one, for a new installation: tables made in their last form take six tenths of the time. Others go on step by step."""

import django.db.models.deletion
import store.accounts.public_ids
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    replaces = [
        ('billing', '0001_initial'),
        ('billing', '0002_detail_and_grants'),
        ('billing', '0003_entry_reasons'),
        ('billing', '0004_asks_of_the_lineage'),
        ('billing', '0005_batches'),
        ('billing', '0006_monthly_access'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_lookalikes_and_proofs'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('catalog', '0001_squashed_0019_views_and_addresses'),
    ]

    operations = [
        migrations.CreateModel(
            name='Transaction',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='txn')),
                ('kind', models.CharField(choices=[('grant', 'Credit granted'), ('generation', 'Generation'), ('job', 'Job'), ('batch', 'Batch'), ('access', 'Monthly access'), ('refund', 'Refund')], max_length=12)),
                ('cause', models.CharField(max_length=120, unique=True)),
                ('memo', models.CharField(blank=True, max_length=200)),
                ('detail', models.JSONField(blank=True, default=dict)),
                ('created_at', models.DateTimeField(auto_now_add=True, db_index=True)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Account',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='acc')),
                ('kind', models.CharField(choices=[('wallet', 'Wallet'), ('earnings', 'Earnings'), ('platform', 'Platform'), ('grants', 'Grants')], max_length=10)),
                ('balance_micro', models.BigIntegerField(default=0)),
                ('held_micro', models.BigIntegerField(default=0)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('publisher', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='earnings', to='accounts.publisher')),
                ('user', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='wallet', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'permissions': [('grant_credit', 'Can grant credit')],
                'constraints': [models.UniqueConstraint(condition=models.Q(('kind__in', ['platform', 'grants'])), fields=('kind',), name='one_platform_and_one_grants_account'), models.CheckConstraint(condition=models.Q(models.Q(('kind', 'wallet'), ('publisher__isnull', True), ('user__isnull', False)), models.Q(('kind', 'earnings'), ('publisher__isnull', False), ('user__isnull', True)), models.Q(('kind__in', ['platform', 'grants']), ('publisher__isnull', True), ('user__isnull', True)), _connector='OR'), name='account_has_the_owner_of_its_kind'), models.CheckConstraint(condition=models.Q(models.Q(('kind', 'wallet'), _negated=True), ('balance_micro__gte', models.F('held_micro')), _connector='OR'), name='wallet_covers_what_is_held'), models.CheckConstraint(condition=models.Q(('held_micro__gte', 0)), name='nothing_negative_is_held')],
            },
        ),
        migrations.CreateModel(
            name='Reservation',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='rsv')),
                ('cause', models.CharField(max_length=120, unique=True)),
                ('amount_micro', models.PositiveBigIntegerField()),
                ('asks', models.JSONField(blank=True, default=dict)),
                ('settled_micro', models.PositiveBigIntegerField(blank=True, null=True)),
                ('state', models.CharField(choices=[('held', 'Held'), ('settled', 'Settled'), ('voided', 'Voided')], default='held', max_length=8)),
                ('expires_at', models.DateTimeField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='reservations', to='billing.account')),
            ],
            options={
                'indexes': [models.Index(fields=['state', 'expires_at'], name='billing_res_state_2abcfb_idx')],
                'constraints': [models.CheckConstraint(condition=models.Q(('settled_micro__isnull', True), ('settled_micro__lte', models.F('amount_micro')), _connector='OR'), name='never_more_than_reserved')],
            },
        ),
        migrations.CreateModel(
            name='Entry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('amount_micro', models.BigIntegerField()),
                ('reason', models.CharField(choices=[('usage', 'Usage'), ('credit', 'Credit granted'), ('platform share', "The store's share"), ('listing share', 'Your GPT was used'), ('ancestor share', 'A GPT built on yours was used')], max_length=40)),
                ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='entries', to='billing.account')),
                ('version', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='catalog.version')),
                ('transaction', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='entries', to='billing.transaction')),
            ],
            options={
                'verbose_name_plural': 'entries',
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['account', '-transaction'], name='entries_of_an_account')],
                'constraints': [models.CheckConstraint(condition=models.Q(('amount_micro', 0), _negated=True), name='no_entry_of_nothing')],
            },
        ),
        migrations.CreateModel(
            name='Access',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='acs')),
                ('price_micro', models.PositiveBigIntegerField()),
                ('tokens', models.PositiveBigIntegerField()),
                ('tokens_used', models.PositiveBigIntegerField(default=0)),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField()),
                ('renews', models.BooleanField(default=False)),
                ('refunded_at', models.DateTimeField(blank=True, null=True)),
                ('ended_at', models.DateTimeField(blank=True, null=True)),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='catalog.listing')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name_plural': 'accesses',
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['user', 'listing', 'ends_at'], name='access_of_a_person'), models.Index(condition=models.Q(('ended_at__isnull', True)), fields=['ends_at'], name='access_to_end')],
            },
        ),
    ]
