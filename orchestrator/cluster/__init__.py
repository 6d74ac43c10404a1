"""The only place of the orchestrator that talks to Ray: the session, the services, jobs and metrics."""
