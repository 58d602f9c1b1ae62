import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL), ("ratings", "0003_helpful")]

    operations = [
        migrations.AddField("rating", "fingerprint", models.CharField(blank=True, db_index=True, default="", max_length=32)),
        migrations.AlterField(
            "flag",
            "user",
            models.ForeignKey(
                blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AlterField(
            "flag",
            "reason",
            models.CharField(
                choices=[
                    ("spam", "Advertising or spam"),
                    ("abuse", "Insults or hate"),
                    ("off_topic", "Not about this GPT"),
                    ("private", "Contains personal data"),
                    ("duplicate", "The text of another rating"),
                    ("burst", "One of many by new accounts within an hour"),
                ],
                max_length=12,
            ),
        ),
        migrations.AddConstraint(
            "flag",
            models.UniqueConstraint(
                condition=models.Q(("user__isnull", True)), fields=("rating", "reason"), name="one_sign_per_rating_and_reason"
            ),
        ),
        migrations.AddIndex("rating", models.Index(fields=["listing", "-created_at"], name="ratings_by_listing")),
    ]
