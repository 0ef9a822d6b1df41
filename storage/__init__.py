"""What survives a power cut: objects, journal, records, queues, audit."""
