from django.apps import AppConfig


class PlaygroundConfig(AppConfig):
    name = "store.playground"
    label = "playground"

    def ready(self) -> None:
        from store.accounts import personal_data
        from store.accounts.sign_in import on_sign_in
        from store.generation.settlement import on_finished
        from store.playground import answers, conversations, embeds, personal, preference_sets
        from store.playground.arena import battles

        on_sign_in(conversations.adopt)
        on_finished(answers.keep)
        on_finished(embeds.settle)
        on_finished(battles.keep)
        personal_data.declare(*personal.HOLDINGS)
        personal_data.before_erasure(personal.forget)
        personal_data.before_erasure(preference_sets.withdraw)
