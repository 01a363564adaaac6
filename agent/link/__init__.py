"""agent/link/ — the conversation with the hub: every wait bounded, every answer verified.

uplink       batches out, receipts in; hub_client, tls: its one HTTP client
standing     what the hub thinks of us, and the way back in; readmission: what is shown for it
inbox        the long poll: what the hub may ask
hub_time, hub_faults: the hub's clock, its refusals
"""
