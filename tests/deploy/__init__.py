"""What is deployed: images, manifests, the runbook."""
