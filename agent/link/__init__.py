"""agent/link/ — the conversation with the hub: every wait bounded, every answer verified.

uplink       batches out, receipts in; hub_client, tls: its one HTTP client
inbox        the long poll: what the hub may ask
hub_time, hub_faults, readmission: the hub's clock, its refusals, being let in again
"""
