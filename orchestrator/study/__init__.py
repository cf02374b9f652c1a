"""The parts of a study: its leases, search space, trials, verdicts, driver, view and progress."""
