"""What is said: messages, their bytes, and which is legal when. No I/O."""
