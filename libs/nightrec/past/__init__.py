"""Nights that were made: what each was made from, what was published when, and the ways back, again and out."""
