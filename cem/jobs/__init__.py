"""What a job is to its machine: its log and exit code, threads and device, interruption, and its attempts."""
