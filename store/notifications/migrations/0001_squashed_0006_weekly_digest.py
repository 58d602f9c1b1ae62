"""All of what follows in one, for a new installation: tables made in their last form take six tenths of the time. Others go on step by step."""

import django.db.models.deletion
import store.accounts.public_ids
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    replaces = [
        ('notifications', '0001_initial'),
        ('notifications', '0002_emailed_at'),
        ('notifications', '0003_email_opt_outs'),
        ('notifications', '0004_new_versions'),
        ('notifications', '0005_money_and_publishers'),
        ('notifications', '0006_weekly_digest'),
    ]

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='WeeklyDigest',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('told_until', models.DateTimeField(db_index=True)),
                ('user', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='weekly_digest', to=settings.AUTH_USER_MODEL)),
            ],
        ),
        migrations.CreateModel(
            name='EmailOptOut',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('topic', models.CharField(choices=[('reviews', 'Decisions about your GPTs'), ('jobs', 'Jobs that are finished or have failed'), ('ratings', 'Ratings of your GPTs, and replies to yours'), ('followed', 'New versions of what you follow'), ('money', 'Access that has ended or was renewed'), ('publishers', "Transfers of GPTs, and your publishers' badges")], max_length=20)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='email_opt_outs', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('user', 'topic'), name='one_opt_out_per_user_and_topic')],
            },
        ),
        migrations.CreateModel(
            name='Notification',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='ntf')),
                ('kind', models.CharField(choices=[('submission_approved', 'Approved'), ('submission_changes', 'Changes requested'), ('submission_rejected', 'Rejected'), ('submission_checks_failed', 'Automated checks failed'), ('version_suspended', 'Suspended'), ('version_restored', 'Restored'), ('job_succeeded', 'Job finished'), ('job_failed', 'Job failed'), ('rating_received', 'New rating'), ('rating_reply', 'Reply to your rating'), ('gpt_published', 'New GPT'), ('version_published', 'New version'), ('access_renewed', 'Access renewed'), ('access_ended', 'Access ended'), ('transfer_offered', 'GPT offered'), ('transfer_answered', 'Offer answered'), ('badge_at_risk', 'Badge at risk'), ('badge_lost', 'Badge lost')], max_length=40)),
                ('params', models.JSONField(blank=True, default=dict)),
                ('url', models.CharField(blank=True, max_length=300)),
                ('key', models.CharField(help_text='One notification per cause and person, however often the cause is reported.', max_length=120, unique=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('read_at', models.DateTimeField(blank=True, null=True)),
                ('emailed_at', models.DateTimeField(blank=True, null=True)),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='notifications', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['user', 'read_at'], name='notificatio_user_id_47e85c_idx'), models.Index(condition=models.Q(('emailed_at__isnull', True)), fields=['created_at'], name='notifications_unsent')],
            },
        ),
    ]
