"""All of what follows in one, for a new installation: tables made in their last form take six tenths of the time. Others go on step by step."""

import django.db.models.deletion
import store.accounts.public_ids
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    replaces = [
        ('jobs', '0001_initial'),
        ('jobs', '0002_kinds'),
        ('jobs', '0003_batches'),
        ('jobs', '0004_evaluations'),
        ('jobs', '0005_uploads'),
        ('jobs', '0006_pretraining'),
        ('jobs', '0007_model_folders'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_lookalikes_and_proofs'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('catalog', '0001_squashed_0019_views_and_addresses'),
    ]

    operations = [
        migrations.CreateModel(
            name='Job',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='job')),
                ('kind', models.CharField(choices=[('validation', 'Data validation'), ('import', 'Check of brought files'), ('finetune', 'Fine-tune'), ('pretraining', 'Pre-training'), ('check', 'Check'), ('batch', 'Batch'), ('evaluation', 'Evaluation')], max_length=12)),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('queued', 'Queued'), ('running', 'Running'), ('paused', 'Paused'), ('succeeded', 'Succeeded'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], db_index=True, default='queued', max_length=10)),
                ('wish', models.CharField(blank=True, choices=[('', 'None'), ('pause', 'Pause'), ('cancel', 'Cancel')], default='', max_length=8)),
                ('subject', models.CharField(blank=True, db_index=True, max_length=40)),
                ('params', models.JSONField(default=dict)),
                ('result', models.JSONField(blank=True, default=dict)),
                ('error', models.TextField(blank=True)),
                ('error_code', models.CharField(blank=True, max_length=60)),
                ('error_detail', models.JSONField(blank=True, default=dict)),
                ('attempt', models.PositiveSmallIntegerField(default=1)),
                ('max_attempts', models.PositiveSmallIntegerField(default=3)),
                ('claim', models.CharField(blank=True, max_length=40)),
                ('worker', models.CharField(blank=True, max_length=120)),
                ('heartbeat_at', models.DateTimeField(blank=True, null=True)),
                ('checkpoint', models.CharField(blank=True, max_length=64)),
                ('segment', models.PositiveIntegerField(default=0)),
                ('done', models.FloatField(default=0.0)),
                ('not_before', models.DateTimeField(blank=True, null=True)),
                ('dispatched_at', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('started_at', models.DateTimeField(blank=True, null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('after', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='followers', to='jobs.job')),
                ('created_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='jobs', to=settings.AUTH_USER_MODEL)),
                ('publisher', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='jobs', to='accounts.publisher')),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['state', 'heartbeat_at'], name='jobs_job_state_d7ed30_idx'), models.Index(fields=['publisher', '-id'], name='jobs_job_publish_4d0144_idx')],
                'constraints': [models.CheckConstraint(condition=models.Q(('done__gte', 0), ('done__lte', 1)), name='done_is_a_share')],
            },
        ),
        migrations.CreateModel(
            name='JobEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(max_length=30)),
                ('attempt', models.PositiveSmallIntegerField(default=1)),
                ('detail', models.JSONField(blank=True, default=dict)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('job', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='events', to='jobs.job')),
            ],
            options={
                'ordering': ['id'],
            },
        ),
        migrations.CreateModel(
            name='JobSegment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField()),
                ('attempt', models.PositiveSmallIntegerField()),
                ('checkpoint', models.CharField(max_length=64)),
                ('events', models.JSONField(default=list)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('job', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='segments', to='jobs.job')),
            ],
            options={
                'ordering': ['number'],
                'constraints': [models.UniqueConstraint(fields=('job', 'number'), name='one_segment_per_number')],
            },
        ),
        migrations.CreateModel(
            name='UploadedFile',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='file')),
                ('purpose', models.CharField(choices=[('fine-tune', 'Fine-tuning'), ('batch', 'Batch'), ('batch_output', 'Results of a batch'), ('evaluation', 'Evaluation'), ('model', 'Part of a model')], max_length=20)),
                ('name', models.CharField(max_length=200)),
                ('sha256', models.CharField(db_index=True, max_length=64)),
                ('size_bytes', models.PositiveBigIntegerField()),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('publisher', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='files', to='accounts.publisher')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Upload',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='upload')),
                ('purpose', models.CharField(choices=[('fine-tune', 'Fine-tuning'), ('batch', 'Batch'), ('batch_output', 'Results of a batch'), ('evaluation', 'Evaluation'), ('model', 'Part of a model')], max_length=20)),
                ('name', models.CharField(max_length=200)),
                ('metadata', models.CharField(blank=True, max_length=2000)),
                ('length_bytes', models.PositiveBigIntegerField()),
                ('offset_bytes', models.PositiveBigIntegerField(default=0)),
                ('pieces', models.JSONField(blank=True, default=list)),
                ('expires_at', models.DateTimeField(db_index=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('publisher', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='accounts.publisher')),
                ('file', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='jobs.uploadedfile')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.CheckConstraint(condition=models.Q(('offset_bytes__lte', models.F('length_bytes'))), name='no_more_than_was_said')],
            },
        ),
        migrations.CreateModel(
            name='ModelFolder',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='folder')),
                ('kind', models.CharField(choices=[('weights', 'Full weights'), ('adapter', 'Adapter')], max_length=10)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('changed_at', models.DateTimeField(auto_now_add=True, db_index=True)),
                ('base', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='catalog.version')),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('job', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='jobs.job')),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='catalog.listing')),
                ('files', models.ManyToManyField(blank=True, related_name='folders', to='jobs.uploadedfile')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.CheckConstraint(condition=models.Q(('kind', 'weights'), ('base__isnull', False), _connector='OR'), name='an_adapter_has_a_base')],
            },
        ),
    ]
