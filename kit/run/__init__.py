"""Start containers of kit's images, here or behind SSH: a service that answers, a command on the caller's terminal, or
a job that goes on without it.
"""
