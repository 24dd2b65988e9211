"""What the machine under a program gives: files, memory, threads, signals, compiled code."""
