"""What is sent to services of others while no request waits: queues, and the threads that empty them."""
