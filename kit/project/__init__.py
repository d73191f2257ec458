"""What the commands of a project's own environment do: one function a command."""
