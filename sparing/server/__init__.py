"""An HTTP server for many requests at once, in a fixed amount of KV memory."""
