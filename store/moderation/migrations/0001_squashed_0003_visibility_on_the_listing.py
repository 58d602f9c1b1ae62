"""All of what follows in one, for a new installation: tables made in their last form take six tenths of the time. Others go on step by step."""

import django.db.models.deletion
import store.accounts.public_ids
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    replaces = [
        ('moderation', '0001_initial'),
        ('moderation', '0002_claims'),
        ('moderation', '0003_visibility_on_the_listing'),
    ]

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('catalog', '0001_squashed_0019_views_and_addresses'),
    ]

    operations = [
        migrations.CreateModel(
            name='Submission',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='sub')),
                ('state', models.CharField(choices=[('checking', 'Automated checks running'), ('queued', 'Waiting for a reviewer'), ('approved', 'Approved'), ('changes_requested', 'Changes requested'), ('rejected', 'Rejected'), ('withdrawn', 'Withdrawn')], db_index=True, default='checking', max_length=20)),
                ('note', models.TextField(blank=True, max_length=2000, verbose_name='note to the reviewer')),
                ('claimed_at', models.DateTimeField(blank=True, null=True)),
                ('due_at', models.DateTimeField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
                ('claimed_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='submissions', to='catalog.listing')),
                ('revision', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='submissions', to='catalog.listingrevision')),
                ('submitted_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('version', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='submissions', to='catalog.version')),
            ],
            options={
                'ordering': ['due_at'],
                'permissions': [('review', 'Can review submissions')],
                'constraints': [models.CheckConstraint(condition=models.Q(('version__isnull', False), ('revision__isnull', False), _connector='OR'), name='submission_is_about_something'), models.UniqueConstraint(condition=models.Q(('state__in', ['checking', 'queued'])), fields=('listing',), name='one_open_submission_per_listing')],
            },
        ),
        migrations.CreateModel(
            name='Decision',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='dec')),
                ('action', models.CharField(choices=[('approve', 'Approved'), ('request_changes', 'Changes requested'), ('reject', 'Rejected'), ('suspend', 'Suspended'), ('restore', 'Restored')], max_length=16)),
                ('reason', models.TextField(blank=True, max_length=4000)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('decided_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='decisions', to='catalog.listing')),
                ('version', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='decisions', to='catalog.version')),
                ('submission', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='decisions', to='moderation.submission')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Check',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=40)),
                ('state', models.CharField(choices=[('pending', 'Running'), ('passed', 'Passed'), ('warned', 'Look at this'), ('failed', 'Failed'), ('error', 'Could not be run')], default='pending', max_length=8)),
                ('code', models.CharField(blank=True, max_length=60)),
                ('finding', models.CharField(blank=True, max_length=400)),
                ('evidence', models.JSONField(blank=True, default=dict)),
                ('job', models.CharField(blank=True, max_length=40)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('submission', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='checks', to='moderation.submission')),
            ],
            options={
                'ordering': ['id'],
                'constraints': [models.UniqueConstraint(fields=('submission', 'name'), name='one_check_per_name')],
            },
        ),
    ]
