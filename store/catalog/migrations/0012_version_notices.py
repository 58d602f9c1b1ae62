from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("catalog", "0011_leaderboards"),
    ]

    operations = [
        migrations.AddField(
            model_name="version",
            name="deprecated_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="version",
            name="notice",
            field=models.CharField(blank=True, max_length=300),
        ),
    ]
