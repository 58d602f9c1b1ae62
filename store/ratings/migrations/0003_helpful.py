import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL), ("ratings", "0002_history")]

    operations = [
        migrations.AddField("rating", "helpful_count", models.PositiveIntegerField(default=0)),
        migrations.CreateModel(
            name="HelpfulVote",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "rating",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="helpful_votes", to="ratings.rating"),
                ),
                (
                    "user",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL),
                ),
            ],
        ),
        migrations.AddConstraint(
            "helpfulvote",
            models.UniqueConstraint(fields=["rating", "user"], name="one_helpful_vote_per_rating_and_user"),
        ),
    ]
