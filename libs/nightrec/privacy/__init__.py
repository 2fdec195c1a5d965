"""Whom the data speak of: pseudonyms in place of ids, and the way out for whoever asks."""
