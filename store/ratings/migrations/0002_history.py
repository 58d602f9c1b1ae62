import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalog", "0001_initial"), ("ratings", "0001_initial")]

    operations = [
        migrations.AddField("rating", "tokens_used", models.PositiveBigIntegerField(default=0)),
        migrations.AddField("rating", "edited_at", models.DateTimeField(blank=True, null=True)),
        migrations.AddField("rating", "withdrawn_at", models.DateTimeField(blank=True, null=True)),
        migrations.CreateModel(
            name="PastRating",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("stars", models.PositiveSmallIntegerField()),
                ("text", models.TextField(blank=True)),
                ("language", models.CharField(max_length=10)),
                ("requests_used", models.PositiveIntegerField()),
                ("tokens_used", models.PositiveBigIntegerField()),
                ("written_at", models.DateTimeField()),
                ("withdrawn_at", models.DateTimeField(blank=True, null=True)),
                ("replaced_at", models.DateTimeField(auto_now_add=True)),
                (
                    "rating",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="past", to="ratings.rating"),
                ),
                (
                    "version",
                    models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to="catalog.version"),
                ),
            ],
            options={"ordering": ["-id"]},
        ),
    ]
