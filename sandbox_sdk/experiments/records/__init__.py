"""What a run leaves on disk: its folder, journal, lease and all that is derived from them."""
