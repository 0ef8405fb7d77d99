"""What `mycel policy` needs beside the engine: manifests from files or a cluster, and answers as text."""
