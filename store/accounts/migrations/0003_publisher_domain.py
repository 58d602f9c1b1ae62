from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_invitations"),
    ]

    operations = [
        migrations.AddField(
            model_name="publisher",
            name="domain",
            field=models.CharField(blank=True, editable=False, max_length=253, verbose_name="domain"),
        ),
    ]
