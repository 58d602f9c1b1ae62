"""The picture that goes with a shared link: 1200×630, made for each listing and language from what its page says."""
