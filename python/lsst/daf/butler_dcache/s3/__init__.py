"""The S3 protocol: bytes over our own data plane, everything else by boto3 over our control plane."""
