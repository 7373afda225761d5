"""What is written and shown: the only room that writes; silent on all but the first process."""
