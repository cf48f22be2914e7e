"""Where sandboxes live: lifecycle calls, and one channel of frames to each."""
