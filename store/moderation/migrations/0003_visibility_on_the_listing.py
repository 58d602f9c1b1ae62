from django.db import migrations


def keep_choices(apps, schema_editor):
    for submission in apps.get_model("moderation", "Submission").objects.filter(state__in=["checking", "queued"]).select_related("listing"):
        submission.listing.wanted_visibility = submission.wanted_visibility
        submission.listing.save(update_fields=["wanted_visibility"])


class Migration(migrations.Migration):

    dependencies = [
        ("catalog", "0002_wanted_visibility"),
        ("moderation", "0002_claims"),
    ]

    operations = [
        migrations.RunPython(keep_choices, migrations.RunPython.noop),
        migrations.RemoveField(model_name="submission", name="wanted_visibility"),
    ]
