"""What both queue services share: the stop signal, the visibility heartbeat, settling messages."""
