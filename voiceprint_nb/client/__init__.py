"""The client of the REST contract: transport, uploads, jobs."""
