"""How good the lists are: rolling cuts in time, nights run as of each, judged on what users did after it."""
