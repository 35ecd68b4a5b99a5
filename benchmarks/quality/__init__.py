"""Which settings learn most in a given time: trials, one line each in trials.jsonl."""
