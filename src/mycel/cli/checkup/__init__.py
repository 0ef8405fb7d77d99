"""What `mycel doctor` looks at: `machine` and `tools` look, `finding` says what a finding is."""
