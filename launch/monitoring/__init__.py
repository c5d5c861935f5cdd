"""What Prometheus and Grafana are given to watch a cluster, made from one description.

    python -m launch.monitoring

writes dashboard.json, rules.yaml and prometheusrule.yaml here; a test keeps them in step with this
code, and all of it in step with the metrics that epd exports.
"""
