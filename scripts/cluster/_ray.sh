# shellcheck shell=bash
# Sourced wherever a Ray of archbench is started: settings that every host of a cluster shares.
# scripts/cluster/Dockerfile has the same.

# Whoever joins the cluster or runs code in it has to know the token.
export RAY_AUTH_MODE=token
# The head notices a host that was cut off within seconds instead of a minute.
export RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=1000
export RAY_health_check_failure_threshold=5
