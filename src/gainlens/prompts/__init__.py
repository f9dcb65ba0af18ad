"""Read texts and turn them into token ids.  No torch."""
