"""All of what follows in one, for a new installation: tables made in their last form take six tenths of the time. Others go on step by step."""

import django.core.validators
import django.db.models.deletion
import store.accounts.public_ids
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    replaces = [
        ('ratings', '0001_initial'),
        ('ratings', '0002_history'),
        ('ratings', '0003_helpful'),
        ('ratings', '0004_signs'),
    ]

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('catalog', '0001_squashed_0019_views_and_addresses'),
    ]

    operations = [
        migrations.CreateModel(
            name='Rating',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='rat')),
                ('stars', models.PositiveSmallIntegerField(validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(5)], verbose_name='stars')),
                ('text', models.TextField(blank=True, max_length=4000, verbose_name='what should others know?')),
                ('fingerprint', models.CharField(blank=True, db_index=True, default='', max_length=32)),
                ('language', models.CharField(default='en', max_length=10)),
                ('requests_used', models.PositiveIntegerField(default=0)),
                ('tokens_used', models.PositiveBigIntegerField(default=0)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('helpful_count', models.PositiveIntegerField(default=0)),
                ('edited_at', models.DateTimeField(blank=True, null=True)),
                ('hidden_at', models.DateTimeField(blank=True, null=True)),
                ('withdrawn_at', models.DateTimeField(blank=True, null=True)),
                ('listing', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='ratings', to='catalog.listing')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='ratings', to=settings.AUTH_USER_MODEL)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='ratings', to='catalog.version')),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['listing', '-created_at'], name='ratings_by_listing')],
                'constraints': [models.UniqueConstraint(fields=('listing', 'user'), name='one_rating_per_listing_and_user'), models.CheckConstraint(condition=models.Q(('stars__gte', 1), ('stars__lte', 5)), name='one_to_five_stars')],
            },
        ),
        migrations.CreateModel(
            name='PastRating',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('stars', models.PositiveSmallIntegerField()),
                ('text', models.TextField(blank=True)),
                ('language', models.CharField(max_length=10)),
                ('requests_used', models.PositiveIntegerField()),
                ('tokens_used', models.PositiveBigIntegerField()),
                ('written_at', models.DateTimeField()),
                ('withdrawn_at', models.DateTimeField(blank=True, null=True)),
                ('replaced_at', models.DateTimeField(auto_now_add=True)),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='catalog.version')),
                ('rating', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='past', to='ratings.rating')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='HelpfulVote',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('rating', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='helpful_votes', to='ratings.rating')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('rating', 'user'), name='one_helpful_vote_per_rating_and_user')],
            },
        ),
        migrations.CreateModel(
            name='Flag',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('public_id', store.accounts.public_ids.PublicIdField(prefix='flg')),
                ('reason', models.CharField(choices=[('spam', 'Advertising or spam'), ('abuse', 'Insults or hate'), ('off_topic', 'Not about this GPT'), ('private', 'Contains personal data'), ('duplicate', 'The text of another rating'), ('burst', 'One of many by new accounts within an hour')], max_length=12)),
                ('state', models.CharField(choices=[('open', 'Open'), ('upheld', 'Rating hidden'), ('dismissed', 'Dismissed')], default='open', max_length=10)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('user', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('rating', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='flags', to='ratings.rating')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.UniqueConstraint(fields=('rating', 'user'), name='one_flag_per_rating_and_user'), models.UniqueConstraint(condition=models.Q(('user__isnull', True)), fields=('rating', 'reason'), name='one_sign_per_rating_and_reason')],
            },
        ),
        migrations.CreateModel(
            name='RatingSummary',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('count', models.PositiveIntegerField(default=0)),
                ('total', models.PositiveIntegerField(default=0)),
                ('stars_1', models.PositiveIntegerField(default=0)),
                ('stars_2', models.PositiveIntegerField(default=0)),
                ('stars_3', models.PositiveIntegerField(default=0)),
                ('stars_4', models.PositiveIntegerField(default=0)),
                ('stars_5', models.PositiveIntegerField(default=0)),
                ('bayesian', models.FloatField(db_index=True, default=0.0)),
                ('listing', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='rating_summary', to='catalog.listing')),
            ],
            options={
                'verbose_name_plural': 'rating summaries',
            },
        ),
        migrations.CreateModel(
            name='Reply',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('text', models.TextField(max_length=2000, verbose_name='reply')),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('author', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('rating', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, related_name='reply', to='ratings.rating')),
            ],
        ),
    ]
