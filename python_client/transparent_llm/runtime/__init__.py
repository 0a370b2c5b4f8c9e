"""What every implementation of the class needs while it runs, the local and the remote one."""
